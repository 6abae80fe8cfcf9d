"""The notebook's cells, run one after the other with few images, and the Dockerfile's words."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from datasets.xray.lists import CHEST14_LABELS
from options.command_line import parse_options
from tests.conftest import ROOT, write_xrays
from tests.inprocess import run_script

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def write_labelled(folder: Path) -> None:
    """Twelve X-rays in three lists and in a table, half of them with a finding."""
    write_xrays(folder, count=12, size=64)
    table = [f"patient,split,image,{','.join(CHEST14_LABELS)}\n"]
    for name, part in (("train", range(1, 7)), ("valid", range(7, 9)), ("test", range(9, 13))):
        lines = (f"{i:08d}_000.png {i % 2}{' 0' * 13}\n" for i in part)
        (folder / f"chest_{name}.txt").write_text("".join(lines))
        table += [f"{i},{name},{i:08d}_000.png,{i % 2}{',0' * 13}\n" for i in part]
    (folder / "labels.csv").write_text("".join(table))


def test_the_notebook_goes_from_phantoms_to_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert 6 <= len(cells) <= 12
    assert NOTEBOOK.stat().st_size < 1_000_000
    cells[0] = cells[0].replace("Path.cwd(), *Path.cwd().parents", "Path(ROOT_OF_TEST),")
    cells[0] = re.sub(r"PATIENTS, EPOCHS, NARROW = [\d, ]+", "PATIENTS, EPOCHS, NARROW = 12, 2, 8", cells[0])
    names: dict[str, Any] = {"ROOT_OF_TEST": str(ROOT)}

    def run(script: str, *flags: Any) -> None:
        if script == "preprocess/phantoms.py":  # half a minute of phantoms: others test it
            write_labelled(tmp_path / flags[1] / "Chest14")
            return
        small = ["--workers", "0", "--gpus", "", *(["--b", "2"] if "--optimizer" in flags else [])]
        log = tmp_path / "log.txt"
        status = run_script([str(ROOT / script), *map(str, flags), *small], tmp_path, log)
        assert status == 0, log.read_text()

    for number, cell in enumerate(cells):
        exec(compile(cell, f"cell {number}", "exec"), names)
        if number == 0:
            names["run"] = run  # in forks of this process, which are quick
    assert names["scores"].keys() == {"untrained", "pre-trained"}
    work = tmp_path / "quickstart_output"
    assert (work / "pretrained" / "report.html").stat().st_size > 50_000
    assert '"probe_linear"' in (work / "pretrained" / "metrics.jsonl").read_text()
    record = json.loads((work / "finetuned" / "run.json").read_text())
    assert record["options"]["train_list"].endswith("labels.csv")
    assert len(list((work / "new").iterdir())) == 2
    assert len((work / "predicted" / "predictions.csv").read_text().splitlines()) == 3


def test_what_the_dockerfile_names_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    instructions = re.findall(r"^([A-Z]+) (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    assert [name for name, _ in instructions] == ["FROM", "ARG", "WORKDIR", "COPY", "RUN", "COPY", "ENV", "CMD"]
    for name, words in instructions:
        if name == "COPY":
            assert (ROOT / words.split()[0]).exists()
    command = json.loads(next(words for name, words in instructions if name == "CMD"))
    assert (ROOT / command[1]).exists()
    (line,) = [line for line in text.splitlines() if "python main.py" in line and line.startswith("#")]
    words = shlex.split(line[line.index("python main.py") :])
    options, _ = parse_options(words[2:])
    assert (options.data, options.n, options.report) == ("/data", "chest", True)
