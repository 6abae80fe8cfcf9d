"""No block of 8 lines of code stands twice: imports, docstrings, comments and empty lines aside."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "datasets", "exporting", "methods", "models", "options", "phantoms", "phases", "preprocess")
FOLDERS += ("tasks", "training", "utils")
BLOCK = 8


def code_lines(text: str) -> list[tuple[int, str]]:
    """The lines that count, each with its number, without their indentation."""
    aside: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        is_string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is not ...
        if isinstance(node, (ast.Import, ast.ImportFrom)) or is_string:
            aside.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip() and n not in aside]


def blocks_that_stand_twice(paths: Iterable[Path]) -> list[str]:
    """Where they begin, "file:line and file:line"."""
    places = defaultdict(list)
    for path in paths:
        lines = code_lines(path.read_text(encoding="utf-8"))
        for first in range(len(lines) - BLOCK + 1):
            block = "\n".join(line for _, line in lines[first : first + BLOCK])
            places[block].append(f"{path}:{lines[first][0]}")
    return [" and ".join(where) for where in places.values() if len(where) > 1]


def sources() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])


def test_no_block_of_code_stands_twice() -> None:
    assert len(sources()) > 100
    assert blocks_that_stand_twice(sources()) == []


@pytest.mark.parametrize(("lines", "found"), [(BLOCK, 1), (BLOCK - 1, 0)])
def test_a_copy_is_found_whatever_its_comments_and_indentation(lines: int, found: int, tmp_path: Path) -> None:
    code = [f"a{i} = {i}" for i in range(lines)]
    (tmp_path / "a.py").write_text('"""Text."""\nimport os\n' + "\n".join(code) + "\nb = 1\n")
    (tmp_path / "b.py").write_text("if True:\n" + "".join(f"    {line}  # {i}\n\n" for i, line in enumerate(code)))
    assert len(blocks_that_stand_twice(sorted(tmp_path.glob("*.py")))) == found
