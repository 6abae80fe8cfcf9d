"""The error that all readers of scans raise."""

from __future__ import annotations


class ScanError(Exception):
    """A scan that cannot be used. The message is one line and says why."""
