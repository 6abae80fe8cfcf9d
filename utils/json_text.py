"""JSON that others wrote, or that a killed process left half written."""

from __future__ import annotations

import json
from typing import Any


def parse(text: str) -> Any:
    """What the text holds; ValueError if it is damaged. Python's own parser raises more than that.

    Brackets in brackets in brackets end in a RecursionError there.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
