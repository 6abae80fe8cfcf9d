"""``--config``: flags from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from options.flags import PRETRAINING
from utils import json_text
from utils.errors import UserError

OF_ONE_RUN = ("output", "resume", "dry_run", "preview")  # a run.json's: another run has its own


def flags_of_file(path: str, defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> list[str]:
    """The words of a command line that say what the file says: YAML or JSON with names of flags, or a run's run.json.

    Of a ``run.json`` only those are taken that differ from what ``defaults`` has for its phase and data, and none of
    :data:`OF_ONE_RUN`; the weights are those that the run began with. Raises UserError, which names the file.
    """
    content = _read(path)
    if isinstance(content.get("options"), dict):
        options = dict(content["options"])
        usual = {**defaults(options), **dict.fromkeys(OF_ONE_RUN)}
        # A ratio that is not given follows from --weight (tasks/leftover.py): the one that the run had is kept.
        kept = ("phase", "n", "data", *(["ratio"] if options.get("phase", "pretask") not in PRETRAINING else []))
        if "begun_with" in (data := content["data"] if isinstance(content.get("data"), dict) else {}):
            options["weight"] = data["begun_with"]  # a run that goes on is not told again
        content = {
            name: value
            for name, value in options.items()
            if name in kept or (name not in OF_ONE_RUN and name in usual and value != usual[name])
        }
    words = []
    for name, value in content.items():
        if isinstance(value, dict | list):
            raise UserError(f"--config {path}: {name} must be a single value, not a list or a mapping")
        if value is None or value is False:
            continue
        words += [f"--{name}"] if value is True else [f"--{name}={value}"]
    return words


def _read(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"--config {path}: not a text file; give a run.json, or YAML with names of flags") from None
    try:
        content = json_text.parse(text) if text.lstrip().startswith("{") else _yaml(text)
    except ValueError as error:
        raise UserError(f"--config {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"--config {path}: the file must contain flag names with values, such as 'lr: 0.03'")
    return {str(name).lstrip("-"): value for name, value in content.items()}


def _yaml(text: str) -> Any:
    import yaml  # here, since few runs need it

    try:  # every value as its text, as on a command line: 1e-3 is no word, and no is no False
        document = yaml.compose(text, yaml.BaseLoader)
        content = yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise ValueError(f"not valid YAML{f', line {where.line + 1}' if where else ''}") from None
    names = [str(name.value) for name, _ in document.value] if isinstance(document, yaml.MappingNode) else []
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"{twice} is given twice")
    words = {"true": True, "false": False}
    return {k: words.get(str(v), v) for k, v in content.items()} if isinstance(content, dict) else content
