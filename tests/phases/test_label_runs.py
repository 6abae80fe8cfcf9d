"""Labels from tables, at the command line: kinds, splits that can be given again, what checkpoints tell, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from options import Options
from options.command_line import check_paths, parse_options
from phases import phase
from tests.conftest import run_main, write_xrays
from training.devices import Devices
from utils.errors import UserError
from utils.process_group import SINGLE

SMALL: dict[str, Any] = {
    "n": "chest",
    "size": 64,
    "narrow": 8,
    "epochs": 1,
    "b": 4,
    "workers": 0,
    "gpus": "",
    "lr": 1e-3,
}
PARTS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 X-rays of 12 patients, and a table of what is known of them."""
    folder = write_xrays(tmp_path_factory.mktemp("labelled"), count=24, size=64)
    rows = [f"{n + 1:08d}_000.png,{n // 2},{n % 2},{(n // 2) % 2 or -1},{'abc'[n % 3]},{40 + n}\n" for n in range(24)]
    (folder / "table.csv").write_text("Image Index,Patient ID,ill,worse,kind,age\n" + "".join(rows))
    return folder


def run(data: Path, output: Path, work: str = "finetune", **flags: object) -> dict[str, Any]:
    """A run's metrics.json."""
    options = Options(phase=work, data=str(data), output=str(output), **{**SMALL, **flags})
    phase(work)(options, Devices("", None), SINGLE)
    return json.loads((output / "metrics.json").read_text())


def labels_of(output: Path) -> dict[str, Any]:
    return torch.load(output / "best.pt", weights_only=True)["run"]


def test_a_split_is_written_and_its_lists_give_the_same_run(data: Path, tmp_path: Path) -> None:
    flags = {"label_column": "kind", "seed": 3}
    first = run(data, tmp_path / "a", train_list=str(data / "table.csv"), split="50,25,25", **flags)
    lists = {f"{part}_list": str(tmp_path / "a" / f"split_{part}.csv") for part in ("train", "valid", "test")}
    assert run(data, tmp_path / "b", **lists, **flags) == first
    assert {"mean_auroc", "balanced_accuracy", "intervals"} <= first.keys()
    assert first["intervals"]["how"].endswith("over 3 patients")
    record = labels_of(tmp_path / "a")
    assert (record["kind"], record["classes"]) == ("softmax", ["a", "b", "c"])
    first, again = (torch.load(tmp_path / run / "best.pt", weights_only=True)["model"] for run in "ab")
    assert all(torch.equal(first[name], again[name]) for name in first)
    neighbours = run(data, tmp_path / "knn", "knn", **lists, **flags)
    assert 0 <= neighbours["balanced_accuracy"] <= 1


def test_findings_of_any_part_are_classes_however_the_parts_are_given(data: Path, tmp_path: Path) -> None:
    """A rare finding may be in the test part alone."""
    table = tmp_path / "table.csv"
    rows = [(n, ("Edema" if n % 4 == 1 else "") + ("|Scar" * (n >= 20))) for n in range(24)]
    lines = [
        f"{n + 1:08d}_000.png,{n // 2},{words.strip('|') or 'No Finding'},{PARTS[min(n // 8, 2)]}" for n, words in rows
    ]
    table.write_text("\n".join(["Image Index,Patient ID,findings,split", *lines]))
    flags = {"label_column": "findings"}
    whole = run(data, tmp_path / "a", train_list=str(table), **flags)
    lists = {}
    for part in PARTS:
        lists[f"{part}_list"] = str(tmp_path / f"{part}.csv")
        own = [line.rpartition(",")[0] for line in lines if line.endswith(part)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["Image Index,Patient ID,findings", *own]))
    assert run(data, tmp_path / "b", **lists, **flags) == whole
    assert labels_of(tmp_path / "b")["classes"] == ["Edema", "Scar"]


def test_neighbours_need_no_validation_part(data: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    parts = ["valid" if n < 2 else PARTS[n % 4 == 0 and 2] for n in range(24)]
    lines = [f"{n + 1:08d}_000.png,{int(n > 1) * (n // 4 % 2)},{part}" for n, part in enumerate(parts)]
    table.write_text("\n".join(["file,ill,split", *lines]))
    assert run(data, tmp_path / "knn", "knn", train_list=str(table))["images"] == parts.count("test")
    with pytest.raises(UserError, match="validation images: no class has both positives and negatives"):
        run(data, tmp_path / "tuned", train_list=str(table))


def test_a_number(data: Path, tmp_path: Path) -> None:
    flags = {"train_list": str(data / "table.csv"), "split": "50,25,25", "label_column": "age", "target": "regression"}
    found = run(data, tmp_path / "run", "linear", **flags)
    assert found["mae"] > 0
    record = labels_of(tmp_path / "run")
    assert (record["kind"], record["classes"]) == ("identity", ["age"])
    ages = [float(line.split(",")[-1]) for line in (tmp_path / "run" / "split_train.csv").read_text().splitlines()[1:]]
    assert (record["mean"], record["scale"]) == (pytest.approx(torch.tensor(ages).mean()), pytest.approx(
        torch.tensor(ages).std(correction=0)))  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("val_mae" in row for row in rows)
    assert run(data, tmp_path / "knn", "knn", **flags)["mae"] > 0


def test_a_run_goes_on_with_its_own_labels_and_start_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label that was put right would change what the outputs mean: the mean and scale of the numbers."""
    pretrained, table, output = tmp_path / "pretrained", tmp_path / "table.csv", tmp_path / "run"
    work: dict[str, Any] = {"train_list": str(table), "label_column": "age", "target": "regression"}
    lines = (data / "table.csv").read_text().splitlines()
    parts = ["split", *(PARTS[min(row // 8, 2)] for row in range(len(lines) - 1))]
    table.write_text("\n".join(f"{line},{part}" for line, part in zip(lines, parts, strict=True)))
    options = Options(data=str(data), output=str(pretrained), ratio=1.0, train_list="none", moco_k=64, **SMALL)
    phase("pretask")(options, Devices("", None), SINGLE)
    weight = str(pretrained / "last.pt")
    assert run(data, output, "linear", weight=weight, **work)["weight"] == weight
    assert labels_of(output)["steps_per_epoch"] == 2
    longer = {**work, "epochs": 2, "resume": "auto"}
    assert run(data, output, "linear", **longer)["weight"] == weight
    capsys.readouterr()
    words = ["--phase=linear", "--n=chest", f"--data={data}", f"--output={output}", "--resume=auto", "--weight=gone"]
    check_paths(parse_options(words)[0])
    assert run(data, output, "linear", weight="gone/last.pt", **longer | {"epochs": 3})["weight"] == weight
    said = capsys.readouterr()
    assert "--weight gone/last.pt has no effect: the run goes on from its checkpoint" in said.err
    assert "weights of gone" not in said.out
    table.write_text(table.read_text().replace(",40,train", ",41,train"))
    with pytest.raises(UserError, match=r"^--resume: the labels of the training samples differ from those of that run"):
        run(data, output, "linear", **longer | {"epochs": 4})


def test_the_first_image_may_be_the_one_that_is_skipped(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "data")
    found = {"train_list": str(folder / "table.csv"), "split": "50,25,25", "label_column": "ill", "seed": 3}
    run(folder, tmp_path / "whole", **found)
    first = (tmp_path / "whole" / "split_train.csv").read_text().splitlines()[1].partition(",")[0]
    (image,) = folder.rglob(first)
    image.write_bytes(b"damaged")
    with pytest.raises(UserError, match=rf"{first} cannot be decoded.*--on_bad_sample skip"):
        run(folder, tmp_path / "stopped", **found)
    assert "auroc" in " ".join(run(folder, tmp_path / "run", on_bad_sample="skip", **found))


def test_what_is_not_known_is_masked_and_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(data, tmp_path / "run", train_list=str(data / "table.csv"), split="50,25,25", seed=1)
    assert "labels: yes or no of 2 classes (ill, worse); 12 of 48 labels are unknown" in capsys.readouterr().out
    assert found["skipped"] == {"worse": "no negatives"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train_list", "{table}", "--split", "70,10"], "--split 70,10: with --n chest give three percentages"),
        (["--train_list", "{table}", "--split", "70,30,0"], "--split 70,30,0: .*such as 70,10,20"),
        (["--train_list", "{table}", "--split", "{table}"], "give three percentages that sum to 100"),
        (
            ["--train_list", "{table}", "--split", "70,10,20", "--ratio", "0.5"],
            "--ratio 0.5 cannot be combined",
        ),
        (["--n", "msd", "--split", "70,10,20"], "--split 70,10,20: with --n msd, --split is a JSON file"),
        (["--target", "names"], "--target names is not known; choose from multilabel, classes, regression"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: list[str], message: str, data: Path) -> None:
    words = [flag.format(table=data / "table.csv") for flag in flags]
    with pytest.raises(UserError, match=message):
        parse_options(["--data", str(data), "--n", "chest", "--phase", "finetune", *words])


def test_flags_of_labels_are_warned_of_elsewhere(data: Path) -> None:
    words = ("--valid_list", "x", "--split", "70,10,20")
    columns = ("--label_column", "a", "--target", "classes")  # refused in pre-training, by name
    for work, n, more in (("pretask", "chest", ()), ("finetune", "nodules", columns)):
        given = ("--data", str(data), "--phase", work, "--n", n, *words, *more)
        _, warnings = parse_options(given)
        assert len(warnings) == 2 + len(more) // 2


def test_a_bad_table_ends_the_command_with_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text((data / "table.csv").read_text().replace("0,0,", "0,9,"))
    command = ("--data", data, "--n", "chest", "--phase", "finetune", "--train_list", tmp_path / "t.csv")
    small = ("--gpus", "", "--output", tmp_path / "out", "--workers", 0)
    done = run_main(
        *command, *small, "--size", 64, "--split", "70,10,20", "--label_column", "ill", "--target", "multilabel"
    )
    assert (done.returncode, done.stderr.count("error: "), "Traceback" in done.stderr) == (2, 1, False)
    assert "t.csv, line 22: the column ill has '9', which must be 0, 1" in done.stderr
    missing = run_main(*command, *small, "--valid_list", tmp_path / "none.csv")
    assert (missing.returncode, missing.stderr.strip()) == (
        2, f"error: --valid_list {tmp_path / 'none.csv'}: no such file")  # fmt: skip
    assert not (tmp_path / "out").exists(), "nothing half-written"
