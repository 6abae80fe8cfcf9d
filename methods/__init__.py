"""Self-supervised methods by their ``--model`` names. A new one is a file here, its test, and a line in METHODS."""

from __future__ import annotations

from methods.pcrl import PCRL

METHODS = {"pcrl": PCRL}
