"""The page of scripts/demo.sh: all parts of a demo are on it, and a demo that is not whole is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from reports.demo_page import write_demo
from reports.html import linked
from tests.conftest import ROOT, write_xrays
from tests.reports.test_run_page import checked, write_run
from utils.errors import UserError


def write_demo_folder(folder: Path) -> Path:
    """What the demo leaves, small."""
    xrays = write_xrays(folder / "phantoms" / "Chest14", count=6, size=64)
    for name, part in (("train", (1, 2)), ("valid", (3, 4)), ("test", (5, 6))):
        lines = (f"{i:08d}_000.png 0 {i % 2}{' 0' * 12}\n" for i in part)
        (xrays / f"chest_{name}.txt").write_text("".join(lines))
    scans = folder / "phantoms" / "LUNA16" / "subset0"
    scans.mkdir(parents=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 9, 10), np.int16)), str(scans / "scan.mhd"))
    for name in ("chest", "luna"):
        write_run(folder / name)
    for name, auroc in (("knn_before", 0.5), ("knn_after", 0.625), ("finetuned", 0.75), ("scratch", 0.55)):
        (folder / name).mkdir()
        intervals = {"mean_auroc": [auroc - 0.1, auroc + 0.1], "auroc": {}}
        results = {"mean_auroc": auroc, "auroc": {"Cardiomegaly": auroc}, "intervals": intervals}
        (folder / name / "metrics.json").write_text(json.dumps(results))
    shutil.copytree(xrays / "images", folder / "unseen")
    (folder / "predicted").mkdir()
    (folder / "predicted" / "predictions.csv").write_text("file,Mass,Cardiomegaly\nnew/00000005_000.png,0.25,0.875\n")
    return folder


def test_all_of_a_demo_is_on_its_page(tmp_path: Path) -> None:
    parser = checked(write_demo(write_demo_folder(tmp_path / "demo")))
    words = " ".join(" ".join(parser.words).split())
    for told in (
        "0.62 (0.53 .. 0.72)",
        "0.75 (0.65 .. 0.85)",
        "0.55 (0.45 .. 0.65)",
        "nearest neighbours, untrained encoder: AUROC",
        "source .venv/bin/activate",
        "Cardiomegaly 0.88, Mass 0.25",
        "00000005_000.png",
        "After epoch 9.",
    ):
        assert told in words, told
    parts = ("After epoch 9.", "Then the same network", "X-rays of six", "untrained encoder")
    order = [words.index(told) for told in parts]
    assert order == sorted(order), "what was learnt comes first"
    assert parser.seen.count("img") == 7, "phantoms, slices, two pictures of each pre-training, the predicted X-ray"
    assert words.count("a blend of two images") == 1, "the pictures are explained once"


def test_a_demo_that_is_not_whole_is_one_line(tmp_path: Path) -> None:
    folder = write_demo_folder(tmp_path / "demo")
    shutil.rmtree(folder / "phantoms" / "LUNA16")
    with pytest.raises(UserError, match=r"run scripts/demo\.sh again"):
        write_demo(folder)
    shutil.rmtree(folder / "knn_after")
    with pytest.raises(UserError, match="knn_after: no such folder"):
        write_demo(folder)


def test_pages_that_are_named_are_links_where_the_page_lies_in_the_clone(tmp_path: Path) -> None:
    said = "See docs/EVIDENCE.md, <b>, docs/NO_SUCH_PAGE.md."
    plain = "See docs/EVIDENCE.md, &lt;b&gt;, docs/NO_SUCH_PAGE.md."
    assert linked(said, tmp_path) == plain
    link = '<a href="../../docs/EVIDENCE.md">docs/EVIDENCE.md</a>'
    assert linked(said, ROOT / "demo_output" / "chest") == plain.replace("docs/EVIDENCE.md", link)
