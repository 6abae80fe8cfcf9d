"""--config: flags from a file; and --help of one phase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from options.command_line import parse_options
from tests.conftest import run_main
from utils.errors import UserError


def write(folder: Path, text: str) -> str:
    path = folder / "flags.yaml"
    path.write_text(text)
    return str(path)


def test_yaml_is_as_if_typed_and_the_command_line_wins(tmp_path: Path) -> None:
    text = (
        "data: x\nn: chest\nlr: 3e-2\nbatch_size: 8  # alias\ngpus: ''\ntrain_list: none\ndry_run: true\nresume: no\n"
    )
    options, warnings = parse_options(["--lr", "0.5", "--config", write(tmp_path, text.replace("resume: no\n", ""))])
    assert (options.data, options.n, options.lr, options.b, options.gpus) == ("x", "chest", 0.5, 8, "")
    assert (options.train_list, options.dry_run, warnings) == ("none", True, [])
    assert parse_options(["--config", write(tmp_path, text)])[0].resume == "no", "a word, not YAML's False"


def test_run_record_of_a_former_run(tmp_path: Path) -> None:
    typed = ["--data", "x", "--n", "chest", "--lr", "0.03", "--b", "64", "--output", "old", "--resume", "auto"]
    former, _ = parse_options([*typed, "--moco_k", "256", "--save_every", "7"])
    record = tmp_path / "run.json"
    record.write_text(json.dumps({"options": former.plain(), "data": {}}))
    again, _ = parse_options(["--config", str(record)])
    assert again.plain() == {**former.plain(), "output": "./pcrl_output", "resume": ""}
    tuned, warnings = parse_options(["--config", str(record), "--phase", "finetune", "--output", "new"])
    assert (tuned.lr, tuned.b, tuned.val_every, tuned.ratio, tuned.output) == (0.03, 64, 1, 1.0, "new")
    assert tuned.ratio_by_default
    assert warnings == [], "nobody typed --moco_k here"


def test_a_former_fine_tuning_is_repeated_with_its_part_of_the_list_and_its_weights(tmp_path: Path) -> None:
    """The part would else follow from the weights, and who goes on need not name them again."""
    record = tmp_path / "run.json"
    typed = ["--data", "x", "--n", "chest", "--phase", "finetune", "--ratio", "1.0"]
    for began in ("pre.pt", "none"):
        record.write_text(json.dumps({"options": parse_options(typed)[0].plain(), "data": {"begun_with": began}}))
        again, _ = parse_options(["--config", str(record)])
        assert (again.ratio, again.ratio_by_default) == (1.0, False)
        assert again.weight == {"pre.pt": "pre.pt", "none": ""}[began]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must contain flag names"),
        ("- lr\n", "must contain flag names"),
        ("lr: [1, 2]\n", "lr must be a single value"),
        ("lr: 'a\n", "not valid YAML, line"),
        ("{", "Expecting property name"),
        ("epoch: 1\n", "unknown argument --epoch.*did you mean --epochs"),
        ("config: other.yaml\n", "the file contains --config itself"),
        ("lr: 1\nb: 2\nlr: 2\n", "lr is given twice"),
        ("report: yes\n", "--report: takes no value, but has 'yes'"),
        ("b: few\n", "--b: invalid int value: 'few'"),
        ("!!python/object:os.system {}\n", "must contain flag names|not valid YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_options(["--data", "x", "--config", write(tmp_path, text)])
    assert str(error.value).startswith(f"--config {tmp_path / 'flags.yaml'}: ")
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--config is given twice"):
        parse_options(["--config", str(tmp_path / "a"), f"--config={tmp_path / 'b'}"])
    with pytest.raises(UserError, match=r"^--config .*gone: No such file"):
        parse_options(["--config", str(tmp_path / "gone")])
    with pytest.raises(UserError, match=r"^--config .*: Is a directory"):
        parse_options(["--config", str(tmp_path)])
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(UserError, match=r"^--config .*last.pt: not a text file; give a run.json"):
        parse_options(["--config", str(tmp_path / "last.pt")])


def test_run_json_of_a_real_run_repeats_it(pairs: Path, tmp_path: Path) -> None:
    lean = (
        "--n",
        "luna",
        "--epochs",
        1,
        "--b",
        2,
        "--workers",
        0,
        "--moco_k",
        8,
        "--ratio",
        1,
        "--without",
        "contrast",
        "--image_every",
        0,
    )
    assert run_main("--data", pairs, *lean, "--output", tmp_path / "one").returncode == 0
    config = tmp_path / "one" / "run.json"
    again = run_main("--config", config, "--output", tmp_path / "two")
    assert again.returncode == 0, again.stderr
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [row["loss"] for row in one if "loss" in row] == [row["loss"] for row in two if "loss" in row]


def help_text(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit):
        parse_options(["--help", *argv])
    return capsys.readouterr().out


def test_help_of_a_phase_shows_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    everything, tuning = help_text(capsys), help_text(capsys, "--phase", "finetune", "--n", "msd")
    knn = help_text(capsys, "--phase=knn")
    for name, among in {"--moco_k": (1, 0, 0), "--patch": (1, 1, 1), "--epochs": (1, 1, 0), "--b": (1, 1, 1)}.items():
        shown = tuple(int(f"\n  {name} " in text) for text in (everything, tuning, knn))
        assert shown == among, name
    assert "--size" not in tuning
    assert "--size" in help_text(capsys, "--n", "chest")
