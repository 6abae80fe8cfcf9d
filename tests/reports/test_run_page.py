"""The page of a run: whole, self-contained, harmless whatever the files hold, and legible on a screen and a phone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from methods.base import Panel
from reports.chart import LEFT, RIGHT, WIDTH, chart, ticks
from reports.html import page, picture
from reports.of_run import report_on
from tests.conftest import ROOT
from tests.inprocess import run_captured
from utils.errors import UserError

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br", "hr"}
HOSTILE = '<script>alert("1")</script><img src=http://example.org/x.png onerror=alert(1)>'


class Checked(HTMLParser):
    """Elements are closed in their order, and nothing is loaded or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "href") or str(value).startswith("data:image/"), (tag, value)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and tag != "path":
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def checked(path: Path) -> Checked:
    parser = Checked()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == []
    assert "script" not in parser.seen
    return parser


def write_run(folder: Path) -> Path:
    """A run of pre-training, as an earlier version left it and a full disk cut it short."""
    folder.mkdir()
    options = {"model": "pcrl", "phase": "pretask", "n": "chest", "data": HOSTILE, "epochs": 9, "loss": "mse"}
    record = {
        "command": ["main.py", HOSTILE],
        "options": options,
        "data": {"samples": 48},
        "machine": {"host": HOSTILE},
    }
    (folder / "run.json").write_text(json.dumps(record))
    rows = [
        {"epoch": 1 + (step - 1) // 8, "step": step, "loss": 8 - step / 50, "nce": 7.0, "rec": 2.0 / step, "lr": 1e-3}
        for step in range(1, 73)
    ]
    rows[5]["loss"] = float("nan")
    rows.append({"epoch": 9, "step": 72, "val_loss": 7.1, "val_rec": 0.5, HOSTILE: 1.0})
    lines = [json.dumps(row) for row in rows] + ['"no row"', '{"loss": 1.0}', '{"epoch": 9, "st']
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "reconstructions").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "reconstructions" / "step_00000001.png")
    Image.fromarray(noise[:300, :300]).save(folder / "reconstructions" / "epoch_0009.png")
    (folder / "views.png").write_text("no picture")
    return folder


def test_a_page_tells_the_run_and_loads_nothing(tmp_path: Path) -> None:
    path = report_on(write_run(tmp_path / "run"))
    parser = checked(path)
    words = " ".join(parser.words)
    for told in ("PCRL pre-training on chest X-rays", "9 of 9", "val_loss", "nce", "After epoch 9.", "After step 1."):
        assert told in words, told
    assert words.count('alert("1")') >= 3, "folder, command and machine stand there as text"
    assert parser.seen.count("img") == 2, "what is no picture is left out"
    assert parser.seen.count("svg") >= 4
    assert path.stat().st_size < 3_000_000
    assert "Zhou et al." in words
    assert "default-src 'none'" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("left", ["run.json", "metrics.jsonl"])
def test_what_is_left_of_a_run_has_a_page(left: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for name in {"run.json", "metrics.jsonl"} - {left}:
        (folder / name).write_text("[[[[")
    checked(report_on(folder))


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for argv, line in ((["empty"], "empty: it holds no run"), (["no"], "no: no such folder"), ([], "name the folder")):
        ran = run_captured([str(ROOT / "scripts" / "report.py"), *argv], tmp_path)
        assert ran.returncode == 2, ran.stderr
        assert ran.stderr.startswith(f"error: {line}"), ran.stderr
    assert list((tmp_path / "empty").iterdir()) == []


def test_results_of_any_shape_are_tables(tmp_path: Path) -> None:
    results = {"phase": "knn", "mean_auroc": 0.75, "auroc": {"Mass": 0.7, "<b>": None}, "ci": [0.1, 0.2], "n": {}}
    (tmp_path / "metrics.json").write_text(json.dumps(results))
    words = " ".join(checked(report_on(tmp_path)).words)
    assert "0.75" in words
    assert "<b>" in words


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 2_000_000
    assert len(picture(tmp_path / "large.png", "noise")) < 1_000_000


def test_a_record_that_cannot_be_read_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "run.json").write_text("{")
    report_on(folder)
    assert "run.json cannot be read; the page is made without it" in capsys.readouterr().err
    with pytest.raises(UserError, match="this is not a folder"):
        report_on(folder / "run.json")


def test_a_damaged_folder_is_refused_with_a_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "report.html").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        report_on(folder)


@pytest.mark.skipif(BROWSER is None, reason="no chromium here; the pages are parsed in the other tests")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(width: int, tmp_path: Path) -> None:
    assert BROWSER
    path, shot = report_on(write_run(tmp_path / "run")), tmp_path / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},2000"]
    environment = os.environ | {"HOME": str(tmp_path)}
    subprocess.run(
        [BROWSER, *flags, f"--screenshot={shot}", path.as_uri()],
        check=True,
        timeout=120,
        capture_output=True,
        env=environment,
    )
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("L"), float)
    assert pixels.shape[1] == width
    assert pixels.std() > 10
    assert (pixels[:, -4:] == pixels[0, -1]).all(), "nothing sticks out on the right"


def test_an_axis_has_several_numbers_and_a_single_value_is_seen() -> None:
    for low in (2.05, 0.61, 0.0499, 19.2):
        for width in (0.11, 0.16, 0.19, 0.24, 0.51, 7.9):
            assert 3 <= len(ticks(low, low + width)) <= 8, (low, width)
    drawn = chart(Panel("dice", "score", ("dice",)), {"dice": ([2], [0.5])})
    assert 'class="c0 dot"' in drawn
    x = float(drawn.partition('dot" d="M')[2].split()[0])
    assert abs(x - (LEFT + WIDTH - RIGHT) / 2) < 1, "in the middle, not on the frame"


def test_an_empty_page_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(page("<title>"), encoding="utf-8")
    assert "<title>" in checked(tmp_path / "a.html").words
