"""How many examples hypothesis tries: a tenth in daily work, all where PCRL_TESTS=all, as .ci/run sets it."""

from __future__ import annotations

import os

ALL = os.environ.get("PCRL_TESTS") == "all"
FEWEST = 10


def examples(number: int) -> int:
    """``number`` where all are tried, else a tenth of it, but 10 or more if there are so many."""
    return number if ALL else max(number // 10, min(number, FEWEST))
