"""Compiled kernels work with and without a place to keep them."""

from __future__ import annotations

from utils.jit import compiled


def plus_one(number: float) -> float:
    return number + 1


def test_a_compiled_function_computes_the_same() -> None:
    assert compiled(plus_one)(2.5) == 3.5


def test_where_no_cache_can_be_kept_it_is_compiled_all_the_same() -> None:
    names: dict[str, object] = {}
    exec("def twice(number):\n    return 2 * number", names)  # from no file: numba finds no cache for it
    assert compiled(names["twice"])(2.5) == 5.0  # type: ignore[arg-type]
