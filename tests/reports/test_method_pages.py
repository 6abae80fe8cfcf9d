"""The page of a run of pre-training: its method's words, not another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from methods import METHODS
from reports.of_run import report_on


def write_run(folder: Path, **options: Any) -> Path:
    (folder / "reconstructions").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"options": {"phase": "pretask", "n": "chest", **options}}))
    rows = [{"epoch": 1, "step": step, "loss": 1.0, "local": -0.5, "error": 0.25} for step in range(1, 4)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Image.new("RGB", (8, 8)).save(folder / "reconstructions" / "epoch_0001.png")
    return folder


def test_pictures_and_figures_are_told_in_the_methods_words(tmp_path: Path) -> None:
    page = report_on(write_run(tmp_path / "v2", model="pcrlv2", weight="imagenet", moco_k=16384)).read_text()
    for words in ("PCRLv2 pre-training", "each of its scales", "local, last epoch", "minus the cosine"):
        assert words in page, words
    assert "mixup" not in page
    assert "moco_k" not in page, "among its options"
    page = report_on(write_run(tmp_path / "v1", model="pcrl")).read_text()
    assert "a blend of two images" in page
    report_on(write_run(tmp_path / "damaged", model=["pcrl"], loss={}))


def test_where_the_weights_began_is_told_though_no_run_is_known_for_them(tmp_path: Path) -> None:
    for number, (weight, words) in enumerate(
        (("imagenet", "imagenet"), ("/a/b/of_others.pth", "of_others.pth"), ("none", "random values"))
    ):
        page = report_on(write_run(tmp_path / str(number), model="pcrlv2", weight=weight)).read_text()
        assert f"<td>{words}</td>" in page.partition("weights at the start")[2][:200], words


def test_a_method_in_a_file_is_named_by_it_and_its_code_is_not_run(tmp_path: Path) -> None:
    page = report_on(write_run(tmp_path / "own", model="elsewhere/turns.py")).read_text()
    assert "Turns pre-training" in page
    assert "error" in page
    told = report_on(tmp_path / "own", METHODS["pcrlv2"]).read_text()
    assert "TPAMI 2023" in told, "at the end of a run the method is at hand"
