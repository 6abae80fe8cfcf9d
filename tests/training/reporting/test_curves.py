"""curves.png: what metrics.jsonl holds, whatever it holds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from methods.supervised import Supervised
from training.reporting.curves import (
    POINTS,
    curves,
    draw_curves,
    limits,
    panels,
    read_rows,
    spans_a_decade,
    thinned,
)


def test_thinned_curves_are_means_of_neighbours() -> None:
    assert thinned([1.0, 2.0, 3.0]) == [1, 2, 3]
    long = np.arange(1001.0).tolist()
    short = thinned(long)
    assert len(short) <= POINTS
    assert short[0] == np.mean(long[:6])
    assert short[-1] == np.mean(long[-(1001 % 6) :])


def test_a_run_is_drawn_with_a_line_cut_short_and_a_loss_that_is_no_number(tmp_path: Path) -> None:
    rows = [
        {"epoch": 1, "step": step, "loss": 5 - step / 10, "nce": float("nan") if step == 3 else 4.0, "lr": 1e-3}
        for step in range(1, 9)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"epoch": 1, "st')
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 8
    assert curves(rows)["loss"] == ([*range(1, 9)], [5 - step / 10 for step in range(1, 9)])
    draw_curves(read_rows(tmp_path / "metrics.jsonl"), tmp_path / "curves.png", "a run")
    assert np.asarray(Image.open(tmp_path / "curves.png").convert("L")).std() > 10


def test_every_name_has_a_panel_and_held_out_results_stand_beside_those_in_training() -> None:
    names = ["lr", "val_loss", "loss", "val_auroc", "val_auroc/Mass", "new_term", "val_new_term"]
    found = {panel.title: keys for panel, keys in panels(names, Supervised.panels)}
    assert found == {
        "loss": ["loss", "val_loss"],
        "results on held-out data": ["val_auroc"],
        "learning rate": ["lr"],
        "others": ["new_term", "val_new_term"],
    }


def test_a_constant_learning_rate_is_drawn_from_zero() -> None:
    ((panel, _),) = panels(["lr"])
    low, high = axis([1e-3, 1e-3], panel.from_zero)
    assert (low, high) == (0, pytest.approx(1.06e-3))


def axis(values: list[float], from_zero: bool = False, most: float = math.inf) -> tuple[float, float]:
    span = limits({"a": ([1.0] * len(values), values)}, from_zero, most)
    assert span
    return span


@given(
    st.lists(st.floats(0, 1e9) | st.just(math.nan), min_size=1, max_size=50).filter(lambda v: not all(np.isnan(v))),
    st.booleans(),
)
def test_no_line_runs_along_the_upper_frame(values: list[float], from_zero: bool) -> None:
    low, high = axis(values, from_zero)
    assert low <= np.nanmin(values)
    assert high > np.nanmax(values)
    assert low == 0 if from_zero else low < np.nanmin(values)


def test_axes_of_constants_are_not_blown_up_and_scores_end_at_1() -> None:
    low, high = axis([3.0, 3.0])
    assert high - low > 0.04 * 3
    low, high = axis([1.0, 1.0], most=1.0)
    assert low < 0.96
    assert 1 < high < 1.005
    assert limits({"a": ([1.0], [math.nan])}, False) is None


def test_logarithmic_from_a_decade_on() -> None:
    assert spans_a_decade({"a": ([1, 2], [1.0, 4.0]), "b": ([1], [10.0])})
    assert not spans_a_decade({"a": ([1, 2], [17.2, 17.4])})
    assert not spans_a_decade({"a": ([1, 2], [0.0, 17.4])})


def test_nothing_is_drawn_of_a_run_without_rows(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    draw_curves(read_rows(tmp_path / "metrics.jsonl"), tmp_path / "curves.png", "a run")
    assert not (tmp_path / "curves.png").exists()
