"""The report of the evidence: from part of the results, without touching a file unless it is asked to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks import evidence_report
from benchmarks.evidence_cells import load_results
from benchmarks.evidence_data import write_truth
from benchmarks.evidence_figure import draw
from benchmarks.evidence_page import MARKS, NOT_YET, more_tables, page_tables, verdict, with_results
from benchmarks.evidence_protocol import RATES
from benchmarks.evidence_report import report, told_by_the_place
from benchmarks.evidence_scores import MEAN, Found, collect, is_current
from benchmarks.evidence_tables import against_parts, choices, gain_words, missing, rates
from tests.benchmarks.made_up import write_results
from tests.conftest import ROOT

GAINS = {"random": 0.0, "pcrl": 1.0, "no_contrast": 0.0, "no_gate": -0.6}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, GAINS)
    (folder / "nih_no_gate_labels50_draw3_seed0.json").unlink()
    (folder / "nih_no_gate_probe_seed0.json").write_text("{half a fi")
    return folder


def test_scores_and_differences(results: Path) -> None:
    found = collect("nih", load_results(results), results, replicates=100)
    cell = json.loads((results / "nih_random_labels50_draw0_seed0.json").read_text())
    scores = found.select("finetune", "male", "random", 50)
    assert scores[0][0] == pytest.approx(cell["auroc"]["male"], abs=1e-5)
    verdicts = {
        arm: verdict(gain) for arm in GAINS if (gain := found.gain("finetune", "male", arm, 50)) and arm != "random"
    }
    assert verdicts == {"pcrl": "better", "no_contrast": "not decided", "no_gate": "worse"}
    gain = found.gain("finetune", "male", "no_gate", 50)
    assert gain is not None
    assert gain.draws == 19, "paired with the draws that both have"
    pcrl, parts = found.select("finetune", MEAN, "pcrl", 25), []
    for seed in range(3):
        auroc = json.loads((results / f"nih_pcrl_labels25_draw2_seed{seed}.json").read_text())["auroc"]
        parts += [auroc[name] for name in ("Infiltration", "Effusion", "Atelectasis")]
    assert pcrl[2][0] == pytest.approx(sum(parts) / 9, abs=1e-5), "the mean over pre-trainings and findings"


def test_what_is_missing(results: Path) -> None:
    lines = missing("nih", load_results(results))
    assert "PCRL without gate: fine-tuning 49 of 50, fine-tuning at 1e-3 for all 0 of 40, linear probe 0 of 1" in lines
    assert "PCRLv2: fine-tuning 0 of 50, fine-tuning at 1e-3 for all 0 of 40, linear probe 0 of 1" in lines
    assert "random values: fine-tuning at 1e-3 for all 0 of 40, linear probe 1 of 3" in lines
    assert "PCRL: fine-tuning at 1e-3 for all 0 of 120" in lines
    assert "PCRL: fine-tuning 0 of 75" in missing("hippocampus_short_small4", {}), "20 draws of 5, 5 of 20; three seeds"
    assert "random values: fine-tuning 0 of 35" in missing("nodules", {})


def test_report_leaves_all_files_as_they_are(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = subprocess.check_output(["git", "status", "--porcelain"], cwd=ROOT)
    report(results, replicates=50)
    assert subprocess.check_output(["git", "status", "--porcelain"], cwd=ROOT) == before
    shown = capsys.readouterr().out
    assert "NIH X-rays, fine-tuning, male" in shown
    assert ". **Infiltration**, with 50 patients 0." in shown
    assert "Infiltration: better with 50 patients" not in shown, "both numbers alike are said once"
    assert (
        "?** male: better with 50 and with 100 patients; Infiltration: better with 50 and with 100 patients.\n" in shown
    )
    parts = "PCRL is better than without contrast in 4 of 4, than without gate in 4 of 4"
    assert (
        f": {parts}; else not decided. By the linear probe, PCRL is better than without contrast in 4 of 4.\n" in shown
    )
    assert "PCRL less random values, draws 5 to 19 alone: male, 50 patients +0." in shown
    assert "Hippocampus: segmentation of real MR volumes" in shown, "the earlier protocol's, too"


def test_what_the_searches_chose() -> None:
    tried = {"optimizer": "sgd", "lr": "3e-2"}, {"optimizer": "adamw", "lr": "1e-3"}
    cells = {
        str(number): {"task": "nih", "arm": "pcrl", "kind": "search", "tried": each, "valid": 0.6 + number / 10}
        for number, each in enumerate(tried)
    }
    assert choices("nih", cells) == ["PCRL: pre-training adamw 1e-3 0.700, sgd 3e-2 0.600"]


def test_the_page_shows_what_each_learning_rate_reached() -> None:
    cells = {f"nih_pcrl_rate{index}": {"valid": valid} for index, valid in enumerate((0.61, 0.7, 0.65, 0.7, 0.6))}
    lines = rates("nih", "NIH X-rays", cells | {"nih_random_rate0": {"valid": 0.6}}).splitlines()
    assert lines[2:] == [
        "| | 1e-4 | 3e-4 | 1e-3 | 3e-3 | 1e-2 |",
        "|---|---|---|---|---|---|",
        "| PCRL | 0.610 | **0.700** | 0.650 | 0.700 | 0.600 |",
    ], "an arm without all rates has chosen none"
    assert rates("nih", "NIH X-rays", {}) == ""


def test_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(tmp_path)
    assert "male: not computed yet; Infiltration: not computed yet." in capsys.readouterr().out


def test_page_and_figure(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pages' text around the results stays, and writing twice changes nothing."""
    (tmp_path / "docs").mkdir()
    pages = []
    for variable, name in (("PAGE", "EVIDENCE"), ("MORE", "EVIDENCE_TABLES"), ("RECIPES", "RECIPES")):
        pages.append(tmp_path / "docs" / f"{name}.md")
        pages[-1].write_text((ROOT / "docs" / f"{name}.md").read_text())
        monkeypatch.setattr(evidence_report, variable, pages[-1])
    page, more, recipes = pages
    former = [each.read_text() for each in pages]
    monkeypatch.setattr(evidence_report, "ROOT", tmp_path)
    monkeypatch.setattr(evidence_report, "FIGURE", page.parent / "images" / "evidence.svg")
    monkeypatch.setattr(evidence_report.evidence_earlier, "report", lambda write: None)
    in_3d = results / "hippocampus_pcrl_pretrain_seed0.json"
    in_3d.write_text((results / "nih_pcrl_pretrain_seed0.json").read_text().replace('"nih"', '"hippocampus"'))
    report(results, write=True, replicates=50)
    assert recipes.read_text().count("| PCRL, step |") == 1, "the recipe is for X-rays"
    figure, text = (page.parent / "images" / "evidence.svg").read_bytes(), page.read_text()
    for each, before in zip(pages, former, strict=True):
        assert each.read_text().partition(MARKS[0])[0] == before.partition(MARKS[0])[0]
        assert each.read_text().partition(MARKS[1])[2] == before.partition(MARKS[1])[2]
    assert "| PCRL without gate | -0." in text
    assert "**NIH X-rays, linear probe**: PCRL minus each of the others" in more.read_text()
    assert "\n| 1,001 | 9 |  |  |  | 0.5 |\n" in recipes.read_text()
    assert "\n| 4,901 | 5.1 |  |  |  | 0.5 |\n" in recipes.read_text()
    assert len(text.splitlines()) < 150
    written = [each.read_text() for each in pages]
    report(results, write=True, replicates=50)
    assert (page.parent / "images" / "evidence.svg").read_bytes() == figure
    assert [each.read_text() for each in pages] == written
    in_3d.unlink()


def test_narrow_networks_answer_until_the_full_width_does(results: Path, tmp_path: Path) -> None:
    """A task of its own, of the same test part; the page says so, and the full width comes first where both are."""
    for path in results.glob("nih_[!t]*.json"):
        text = path.read_text().replace('"task": "nih"', '"task": "nih_small4"')
        (tmp_path / path.name.replace("nih_", "nih_small4_")).write_text(text)
    (tmp_path / "nih_test.json").write_bytes((results / "nih_test.json").read_bytes())
    narrow = load_results(tmp_path)
    found = collect("nih_small4", narrow, tmp_path, replicates=50)
    page = page_tables([found], narrow)
    assert "> - AUROC of PCRL against random values: **male**, with 50 patients 0." in page
    assert "> - 2D: 3 of 3 pre-trainings of PCRL, a quarter of the channels, trained on a processor. " in page
    assert "**NIH X-rays, a quarter of the channels, fine-tuning**" in page
    assert "ImageNet" not in page
    whole = collect("nih", load_results(results), results, replicates=50)
    assert "> - 2D: 3 of 3 pre-trainings of PCRL, trained on a processor. " in page_tables(
        [whole, found], load_results(results) | narrow
    )
    on_gpu = {name: cell | {"device": "cuda"} for name, cell in narrow.items()}
    assert "> - 2D: 3 of 3 pre-trainings of PCRL, a quarter of the channels. " in page_tables([found], on_gpu)


def test_pretrainings_count_when_they_have_all_draws(results: Path) -> None:
    """Else a mean over draws would be one over other pre-trainings in each draw."""
    whole = load_results(results)
    part = {
        name: cell
        for name, cell in whole.items()
        if not ("pcrl_labels50" in name and name.endswith("seed2") and cell["draw"] >= 12)
    }
    found = collect("nih", part, results, replicates=50)
    key = ("finetune", "male", "pcrl", 50)
    assert set(found.seeds[key]) == {0, 1}
    assert list(found.select(*key)) == list(range(20))
    both = [whole[f"nih_pcrl_labels50_draw7_seed{seed}"]["auroc"]["male"] for seed in (0, 1)]
    assert found.select(*key)[7][0] == pytest.approx(sum(both) / 2, abs=1e-5)
    assert "> - 2D: so far 2 of 3 pre-trainings of PCRL" in page_tables([found], part)
    base = [whole[f"nih_random_labels50_draw{draw}_seed0"]["auroc"]["male"] for draw in range(20)]
    own = [whole[f"nih_pcrl_labels50_draw{draw}_seed1"]["auroc"]["male"] for draw in range(20)]
    assert found.seed_gains(*key)[1] == pytest.approx((sum(own) - sum(base)) / 20, abs=1e-5)


def test_the_draws_that_were_added_by_themselves(results: Path) -> None:
    found = collect("nih", load_results(results), results, replicates=50)
    gain = found.gain("finetune", "male", "pcrl", 50, first=5)
    assert gain is not None
    assert gain.draws == 15
    pairs = [
        found.select("finetune", "male", "pcrl", 50)[draw][0] - found.select("finetune", "male", "random", 50)[draw][0]
        for draw in range(5, 20)
    ]
    assert gain.value == pytest.approx(np.mean(pairs))


def test_pcrl_less_another_arm(results: Path) -> None:
    found = collect("nih", load_results(results), results, replicates=50)
    shown = against_parts(found, "finetune", [("male", 50)], "title")
    gain = found.gain("finetune", "male", "pcrl", 50, "no_gate")
    assert gain is not None
    assert shown.splitlines()[-1] == f"| minus PCRL without gate | {gain_words(gain)} [19 of 20 draws] |"
    assert "random values" not in shown


def test_finetunings_at_a_rate_that_is_not_chosen_any_more_are_left_out() -> None:
    trial = {"task": "nih", "arm": "pcrl", "kind": "rate"}
    rates = {f"nih_pcrl_rate{index}": trial | {"valid": 0.6 + (index == 3) / 10} for index in range(len(RATES))}
    tuned = {"task": "nih", "arm": "pcrl", "kind": "finetune", "runs": [["--lr", RATES[2]]]}
    assert not is_current(tuned, rates)
    assert is_current(tuned | {"runs": [["--lr", RATES[3]]]}, rates)
    assert is_current(tuned, {}), "of results without a search"
    stale = [line for line in missing("nih", rates | {"nih_pcrl_labels50_draw0_seed0": tuned}) if "PCRL:" in line]
    assert "fine-tuning 0 of" in stale[0]


def test_a_chosen_rate_that_is_the_common_one_is_not_run_twice(results: Path) -> None:
    """Random values have it chosen; those of PCRL stand by themselves, as another rate is its best."""
    whole = load_results(results)
    for index, rate in enumerate(RATES):
        for arm, chosen in (("random", "1e-3"), ("pcrl", "3e-4")):
            whole[f"nih_{arm}_rate{index}"] = {"valid": 0.5 + 0.1 * (rate == chosen), "task": "nih", "arm": arm}
            whole[f"nih_{arm}_rate{index}"] |= {"kind": "rate", "tried": {"lr": rate}}
    for name, cell in list(whole.items()):
        if cell["kind"] == "finetune" and cell["arm"] in ("random", "pcrl"):
            own = {"random": "1e-3", "pcrl": "3e-4"}[cell["arm"]]
            whole[name] = cell | {"runs": [["--lr", own]]}
            if cell["arm"] == "pcrl" and cell["labels"] in (50, 100):
                whole[f"common_{name}"] = cell | {"kind": "common", "runs": [["--lr", "1e-3"]]}
    found = collect("nih", whole, results, replicates=50)
    assert found.counts("common") == [50, 100]
    for arm in ("random", "pcrl"):
        common, own = (found.select(kind, "male", arm, 50) for kind in ("common", "finetune"))
        assert {draw: scores[0] for draw, scores in common.items()} == {draw: scores[0] for draw, scores in own.items()}
    lines = missing("nih", whole)
    assert not [line for line in lines if line.startswith("PCRL:")]
    assert "random values: linear probe 1 of 3" in lines
    page = page_tables([found], whole)
    assert "At 1e-3 for all, PCRL is better than random values in 4 of 4 ([tables](EVIDENCE_TABLES.md))." in page


def test_answer_in_3d(results: Path, tmp_path: Path) -> None:
    """A line beside the answer in 2D, with verdicts, PCRL against its parts, and tables."""
    dice = {"random": (0.50, 0.56, 0.62), "pcrl": (0.61, 0.64, 0.75), "no_gate": (0.70, 0.72, 0.83)}
    write_truth(tmp_path, "hippocampus", ["a", "b", "c"], ["a", "b", "c"], {})
    facts = {"kind": "finetune", "task": "hippocampus_short_small4", "seed": 0, "labels": 5, "runs": []}
    for arm, scores in dice.items():
        for number in range(5):
            cell = facts | {"arm": arm, "draw": number, "dice": [score + number / 100 for score in scores]}
            (tmp_path / f"{arm}{number}.json").write_text(json.dumps(cell))
    cells = load_results(tmp_path)
    found = collect("hippocampus_short_small4", cells, tmp_path, replicates=200)
    page = page_tables([found], cells)
    title = "Hippocampus, short pre-training, a quarter of the channels"
    words = f"> - **3D**, PCRL minus random values: {title}, 1 of 3 pre-trainings, Dice: 5 volumes +0.107 (+0."
    assert words in page
    assert ") [5 of 20 draws], better. In these comparisons, PCRL is better " in page
    assert " better than without gate in 0 of 1 (worse in 1); else not decided.\n" in page
    assert "minus PCRL without gate" not in page
    assert "| minus PCRL without gate | -0.083 (-0." in more_tables([found], cells)
    assert f"**{title}, fine-tuning**: Dice in the first row" in page
    assert f"done so far ({title}): random values: fine-tuning 5 of 25; PCRL: fine-tuning 5 of 75; " in page


def test_the_place_of_collection(tmp_path: Path) -> None:
    """Pneumonia, of which it is known, against the judged labels."""
    write_truth(tmp_path, "nih", ["a", "b", "c"], ["1", "2", "3"], {"male": [0, 1, 1]}, place=[0, 0, 1])
    assert told_by_the_place(tmp_path).endswith(" alone, which goes with the place of collection: male 0.750")
    assert told_by_the_place(tmp_path / "none") == ""


def test_figure_has_a_line_for_each_arm(results: Path, tmp_path: Path) -> None:
    draw([collect("nih", load_results(results), results, replicates=50)], tmp_path / "evidence.svg")
    svg = (tmp_path / "evidence.svg").read_text()
    for word in ("PCRL without contrast", "random values", "labelled patients", "male, linear probe"):
        assert f"<!-- {word}" in svg


def test_marks() -> None:
    page = f"above\n{MARKS[0]}\nformer\n{MARKS[1]}\nbelow\n"
    assert with_results(page, "new") == f"above\n{MARKS[0]}\nnew\n{MARKS[1]}\nbelow\n"
    assert page_tables([], {}) == NOT_YET
    untrained = Found("nih", {("finetune", "male", "random", 50): {0: np.ones(2)}})
    assert page_tables([untrained], {}) == NOT_YET, "random values alone say nothing of pre-training"
    assert (ROOT / "docs" / "EVIDENCE.md").read_text().count(MARKS[0]) == 1
