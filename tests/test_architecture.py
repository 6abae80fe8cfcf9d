"""Imports go one way: models <- methods <- training <- tasks <- phases <- main; data knows none of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OWN = {
    "main",
    "export",
    "options",
    "phases",
    "reports",
    "tasks",
    "exporting",
    "phantoms",
    "models",
    "methods",
    "datasets",
    "training",
    "preprocess",
    "utils",
}
ALLOWED = {
    "utils": {"utils"},
    "models": {"models", "utils"},
    "methods": {"methods", "models", "utils"},
    "datasets": {"datasets", "utils"},
    "phantoms": {"phantoms", "datasets", "utils"},
    "preprocess": {"preprocess", "phantoms", "datasets", "utils"},
    "training": {"training", "methods", "models", "datasets", "options", "utils"},
    "tasks": {"tasks", "training", "methods", "models", "datasets", "options", "utils"},
    "exporting": {"exporting", "models", "datasets", "options", "utils"},
    "reports": {"reports", "training", "methods", "models", "datasets", "options", "utils"},
    "phases": {"phases", "reports", "tasks", "training", "methods", "models", "datasets", "options", "utils"},
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        own = {name for name in imports(path) if name.split(".")[0] in OWN}
        foreign = {name for name in own if name.split(".")[0] not in ALLOWED[package]}
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_training_sees_only_the_base_of_methods() -> None:
    for path in (ROOT / "training").rglob("*.py"):
        methods = {name for name in imports(path) if name.startswith("methods")}
        assert methods <= {"methods.base"}, f"{path.name} imports {methods}"


def test_preprocessing_needs_no_torch() -> None:
    for path in (ROOT / "preprocess").rglob("*.py"):
        assert not {name for name in imports(path) if name.split(".")[0] in ("torch", "torchvision")}, path.name
