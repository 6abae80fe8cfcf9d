"""The evidence's command: what it runs and in which order, where it stops, and how it goes on."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.evidence import compute_all, left_over, seconds_of
from benchmarks.evidence_cells import (
    Machine,
    begin_or_go_on,
    done,
    held_out_scores,
    is_kept,
    load_results,
    unpacked,
)
from benchmarks.evidence_data import JUDGED, prepare_nih
from benchmarks.evidence_protocol import (
    ALL_DRAWS,
    ARMS,
    DRAWS,
    RATES,
    SEARCH_DRAWS,
    Task,
    candidates,
    hippocampus,
    nih,
    plan,
)
from benchmarks.evidence_scores import TASKS
from tests.benchmarks.made_up import write_nih
from tests.conftest import ROOT
from tests.inprocess import run_captured


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("evidence")
    prepare_nih(write_nih(folder / "nih", 60), folder / "work" / "nih", folder / "results", ALL_DRAWS)
    return Machine(folder / "work", folder / "results", gpu=False, amp="off")


@pytest.fixture(scope="module")
def task(machine: Machine) -> Task:
    return nih(machine.work, 2, 2, 2, narrow=8)


def known(task: Task, arm: str) -> dict[str, dict]:
    """Results of the arm's searches, of which the second try of both did best."""
    searches = {f"{task.name}_{arm}_search{index}": {"valid": 0.5 + 0.1 * (index == 1)} for index in range(4)}
    rates = {f"{task.name}_{arm}_rate{index}": {"valid": 0.5 + 0.1 * (index == 1)} for index in range(len(RATES))}
    return searches | rates


def test_every_arm_has_the_same_search(task: Task) -> None:
    tried = {name: candidates(task, arm) for name, arm in ARMS.items() if arm.seeds}
    for name, own in tried.items():
        assert own == (tried["pcrl"] if ARMS[name].has_queue else candidates(task, ARMS["no_contrast"]))
    cells = plan([task], list(ARMS), {})
    assert not any(cell.facts["arm"] == "imagenet" for cell in cells), "its weights fit the full width alone"
    for name, arm in ARMS.items():
        if name == "imagenet":
            continue
        own = [cell for cell in cells if cell.facts["arm"] == name]
        assert sum(cell.kind == "rate" for cell in own) == len(RATES)
        assert sum(cell.kind == "search" for cell in own) == (len(tried[name]) if arm.seeds else 0)
        finetuned = [cell for cell in own if cell.kind == "finetune"]
        assert len(finetuned) == len(task.labels) * len(DRAWS) * max(1, len(arm.seeds))
        assert not any(cell.runs for cell in finetuned), "not before the search has an answer"
    searched = [run for cell in cells if cell.kind in ("search", "rate") for run in cell.runs if "finetune" in run]
    assert {run[run.index("--seed") + 1] for run in searched} == set(map(str, SEARCH_DRAWS)), (
        "other draws than reported"
    )


def test_what_did_best_on_the_validation_part_is_taken(task: Task) -> None:
    cells = {cell.name: cell for cell in plan([task], ["no_gate"], known(task, "no_gate"))}
    (pretraining,) = cells["nih_small8_no_gate_pretrain_seed0"].runs
    assert pretraining[pretraining.index("--lr") + 1] == "1e-1"
    assert pretraining[-2:] == ("--without", "gate")
    tuned = cells["nih_small8_no_gate_labels25_draw3_seed0"]
    (run,) = tuned.runs
    assert run[run.index("--lr") + 1] == RATES[1]
    assert "WORK/nih/labelled25_draw3.txt" in run
    assert "START:nih_small8_no_gate_pretrain_seed0" in run
    assert set(tuned.needs) == {
        "nih_small8_no_gate_pretrain_seed0",
        *(f"nih_small8_no_gate_rate{index}" for index in range(len(RATES))),
    }


def test_the_published_length(machine: Machine) -> None:
    """5,000 steps of batch 64 of pre-training, 300 of batch 16 of fine-tuning, whatever the numbers of images."""
    whole = nih(machine.work)
    cells = {cell.name: cell for cell in plan([whole], ["pcrl"], known(whole, "pcrl"))}
    for name, steps, images, batch in (
        ("nih_pcrl_pretrain_seed2", 5000, whole.images, 64),
        ("nih_pcrl_labels25_draw0_seed0", 300, 25, 16),
        ("nih_pcrl_labels36_draw4_seed1", 300, 36, 16),
    ):
        (run,) = cells[name].runs
        epochs = int(run[run.index("--epochs") + 1])
        assert run[run.index("--b") + 1] == str(batch)
        assert epochs * -(-images // batch) == pytest.approx(steps, rel=0.02)


@pytest.fixture
def of_all_patients(tmp_path: Path) -> Task:
    """The X-rays' task as it is computed, with no image in its folder."""
    (tmp_path / "nih").mkdir()
    for count in (25, 50, 100, 479):
        (tmp_path / "nih" / f"labelled{count}_draw0.txt").touch()
    (tmp_path / "nih" / "chest_train.txt").write_text("a.png 0 0 0 0\n" * 1041)
    return nih(tmp_path)


def test_one_learning_rate_for_all(of_all_patients: Task) -> None:
    """A second comparison: the rate that random values chose, on 50 and 100 patients; none where it is the chosen."""
    chose_another = plan([of_all_patients], ["pcrl"], known(of_all_patients, "pcrl"))
    common = [cell for cell in chose_another if cell.kind == "common"]
    assert len(common) == 2 * 20 * 3
    assert chose_another[-len(common) :] == common, "after all else"
    assert {run[run.index("--lr") + 1] for cell in common for run in cell.runs} == {"1e-3"}
    tuned = {cell.name: cell for cell in chose_another}["nih_pcrl_labels50_draw7_seed1"]
    (same,) = [cell for cell in common if cell.facts == tuned.facts]
    assert [word.replace("1e-3", RATES[1]) for word in same.runs[0]] == list(tuned.runs[0]), "else the same run"
    rates = {f"nih_pcrl_rate{index}": {"valid": float(rate == "1e-3")} for index, rate in enumerate(RATES)}
    chose_it = plan([of_all_patients], ["pcrl"], known(of_all_patients, "pcrl") | rates)
    assert not [cell for cell in chose_it if cell.kind == "common"]


def test_more_draws_of_few_labels_come_last(of_all_patients: Task) -> None:
    """20 draws of 50 and of 100 patients, 5 of the others; all arms have five before one has more, seed by seed."""
    cells = [cell for cell in plan([of_all_patients], ["random", "pcrl"], {}) if cell.kind == "finetune"]
    counts = Counter((cell.facts["arm"], cell.facts["seed"], cell.facts["labels"]) for cell in cells)
    assert set(counts) == {
        (*of, count) for of in (("random", 0), *(("pcrl", s) for s in range(3))) for count in (25, 50, 100, 479)
    }
    assert all(number == (20 if count in (50, 100) else 5) for (_, _, count), number in counts.items())
    draws = [cell.facts["draw"] for cell in cells if cell.facts["seed"] == 0]
    assert max(draws[: 2 * 20]) == 4
    assert min(draws[2 * 20 :]) == 5
    seeds = [cell.facts["seed"] for cell in cells]
    assert seeds == sorted(seeds)


def test_no_cell_begins_after_the_budget(machine: Machine, task: Task) -> None:
    left, failed = compute_all([task], ["random", "pcrl"], machine, 2, seconds=0)
    assert {cell.name for cell in left} == {cell.name for cell in plan([task], ["random", "pcrl"], {})}
    assert not failed
    assert not load_results(machine.results)
    machine.stop.clear()


def test_a_result_is_kept_and_not_computed_again(machine: Machine, task: Task) -> None:
    before = left_over([task], ["random"], machine)
    assert before[0].name == "nih_small8_random_probe_seed0"
    script = str(Path(__file__).with_name("first_cell.py"))
    ran = run_captured([script, str(machine.work), str(machine.results)])
    assert ran.returncode == 0, ran.stderr
    after = left_over([task], ["random"], machine)
    assert [cell.name for cell in after] == [cell.name for cell in before[1:]]
    kept = load_results(machine.results)
    probed = kept["nih_small8_random_probe_seed0"]["probed"]
    assert set(probed) == {f"{count}_{draw}" for count in (25, 36) for draw in DRAWS}
    files = json.loads((machine.results / "nih_test.json").read_text())["files"]
    assert len(unpacked(probed["25_0"]["ranks"]["male"])) == len(files)
    assert set(probed["25_0"]["auroc"]) == set(JUDGED)
    others = replace(task, more=("--narrow", "4"))
    assert not is_kept(plan([others], ["random"], kept)[0], kept), "the result of other flags is none"
    fewer = {name: cell | {"draws": 4} for name, cell in kept.items()}
    assert not is_kept(before[0], fewer), "nor that of fewer draws"
    assert str(machine.work) not in (machine.results / "nih_small8_random_probe_seed0.json").read_text()


def test_a_pretraining_whose_weights_are_gone_is_run_again(machine: Machine, task: Task) -> None:
    """As on another machine, which has the results alone."""
    results = known(task, "no_gate")
    for cell in plan([task], ["no_gate"], results):
        if cell.kind in ("search", "rate", "pretrain"):
            result = {**results.get(cell.name, {}), "task": task.name, "runs": cell.runs}
            (machine.results / f"{cell.name}.json").write_text(json.dumps(result))
    left = [cell.name for cell in left_over([task], ["no_gate"], machine)]
    assert left[0] == "nih_small8_no_gate_pretrain_seed0"
    weights = machine.folder("nih_small8_no_gate_pretrain_seed0") / "pcrl_chest_pretask_1.0_2.pt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert "nih_small8_no_gate_pretrain_seed0" not in [cell.name for cell in left_over([task], ["no_gate"], machine)]


@pytest.mark.parametrize(
    ("on_gpu", "narrow", "ending"), [(True, 1, ""), (False, 1, "_short"), (False, 4, "_short_small4")]
)
def test_3d_results_of_a_short_or_narrow_pretraining_stand_by_themselves(
    tmp_path: Path, on_gpu: bool, narrow: int, ending: str
) -> None:
    (tmp_path / "hippocampus" / "pairs" / "subset0").mkdir(parents=True)
    for index in range(320):
        (tmp_path / "hippocampus" / "pairs" / "subset0" / f"scan_img_{index}.npy").touch()
    task = hippocampus(tmp_path, on_gpu, narrow)
    assert task.name == "hippocampus" + ending
    assert TASKS[task.name].title.startswith("Hippocampus")
    cells = {cell.name: cell for cell in plan([task], ["pcrl"], known(task, "pcrl"))}
    steps, batch = (3000, 16) if on_gpu else (1500, 8)
    (pretraining,) = cells[f"{task.name}_pcrl_pretrain_seed0"].runs
    assert int(pretraining[pretraining.index("--epochs") + 1]) * 320 / batch == pytest.approx(steps, rel=0.02)
    (tuning,) = cells[f"{task.name}_pcrl_labels5_draw0_seed0"].runs
    for run in (pretraining, tuning):
        assert ("--narrow" in run) == (narrow > 1)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--jobs 0 --work w --nodules", "argument --jobs: 0: give a whole number of at least 1"),
        ("--budget 2 --work w --nodules", "argument --budget: 2: give a time such as 90m, 2h or 1h30m"),
        ("--report --results gone", "--results gone: no such folder"),
        ("--write", "--write goes with --report"),
        ("--work w --nih gone", "gone: no such folder"),
        ("--work begun --nih .", "--work .*begun was begun with the data in /elsewhere, not .*; give another --work"),
    ],
)
def test_wrong_flags_are_one_line(flags: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "begun" / "nih").mkdir(parents=True)
    (tmp_path / "begun" / "nih" / "prepared").write_text("/elsewhere")
    ran = run_captured([str(ROOT / "benchmarks/evidence.py"), *flags.split()], tmp_path)
    assert ran.returncode == 2
    assert re.fullmatch(f"error: .*{line}.*\n", ran.stderr), ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_a_run_of_other_flags_is_not_gone_on_with(tmp_path: Path) -> None:
    output, run = tmp_path / "0", ("--phase", "finetune", "--lr", "1e-3")
    begin_or_go_on(run, output)
    output.mkdir()
    (output / "metrics.json").touch()
    begin_or_go_on(run, output)
    assert done(run, output)
    begin_or_go_on((*run[:-1], "1e-4"), output)
    assert not done(run, output)


def test_a_run_that_fails_is_named_and_stops_no_other(
    machine: Machine, task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")  # every run fails at once
    left, failed = compute_all([task], ["no_mixup"], machine, 2, seconds=60)
    assert failed.keys() == {f"nih_small8_no_mixup_search{index}" for index in range(4)}
    assert "nih_small8_no_mixup_search0: exit status 1" in capsys.readouterr().out
    assert len(left) == 4 + 1 + 1 + len(RATES) + 2 * len(DRAWS)
    machine.stop.clear()


def test_scores_of_a_test_part(tmp_path: Path) -> None:
    """By name, or by the order of the columns, and by the file's name, whatever its folder and the order of rows."""
    true = {"files": ["a.png", "b.png", "c.png"], "labels": {"male": [1, 0, 1], "Effusion": [0, 1, 1]}}
    for names in ("male,Effusion", "class_1,class_2"):
        (tmp_path / "predictions.csv").write_text(
            f"file,{names}\nimages/c.png,0.9,0.8\nimages/a.png,0.4,0.9\nimages/b.png,0.5,0.8\n"
        )
        found = held_out_scores(tmp_path, true)
        assert unpacked(found["ranks"]["male"]).tolist() == [0, 1, 2]
        assert unpacked(found["ranks"]["Effusion"]).tolist() == [1, 0, 0]
        assert found["auroc"] == {"male": 0.5, "Effusion": 0.0}
    (tmp_path / "metrics.json").write_text(
        json.dumps({"by_volume": {"v2": {"x": 0.5, "y": 0.7}, "v1": {"x": 1, "y": 0}}})
    )
    assert held_out_scores(tmp_path, {"files": ["v1", "v2"], "labels": {}}) == {"dice": [0.5, 0.6]}


def test_budgets() -> None:
    assert [seconds_of(text) for text in ("90m", "2h", "1h30m", "45s", "0.5d")] == [5400, 7200, 5400, 45, 43200]
    for text in ("2", "h", "2 h", "-1h"):
        with pytest.raises(argparse.ArgumentTypeError):
            seconds_of(text)
