"""Where numbers must keep their precision, whatever mixed precision a run uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

_suspenders: list[Callable[[], AbstractContextManager[Any]]] = []


def add_suspender(suspender: Callable[[], AbstractContextManager[Any]]) -> None:
    """Let :func:`full_precision` enter ``suspender()`` too: it suspends a mixed precision that is not torch's own."""
    _suspenders.append(suspender)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Inside, operations compute in the types of their inputs: no mixed precision casts any."""
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        for suspender in _suspenders:
            stack.enter_context(suspender())
        yield
