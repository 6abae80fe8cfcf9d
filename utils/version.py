"""The version of the project, as CHANGELOG.md has it."""

from __future__ import annotations

VERSION = "0.2.0"
