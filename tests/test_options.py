"""The command line: every flag of the published code, and one clear line for bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from options import NO_EFFECT, Options, command_line, telling
from options.command_line import check_paths, parse_options
from options.flags import PHASES
from options.help_texts import epilog
from utils.errors import UserError

CHEST = (
    "--data chest --phase pretask --model pcrl --b 64 --epochs 240 --lr 1e-3 --output save --optimizer sgd "
    "--outchannel 3 --n chest --d 2 --gpus 0,1,2,3 --inchannel 3 --ratio 1.0"
)
LUNA = (
    "--data luna --phase pretask --model pcrl --b 16 --epochs 240 --lr 1e-3 --output save --optimizer sgd "
    "--outchannel 1 --n luna --d 3 --gpus 0,1,2,3 --inchannel 1 --ratio 1.0"
)


@pytest.mark.parametrize(("command", "dims", "batch"), [(CHEST, 2, 64), (LUNA, 3, 16)])
def test_published_commands(command: str, dims: int, batch: int) -> None:
    options, warnings = parse_options(command.split())
    assert (options.d, options.b, options.ratio, options.epochs) == (dims, batch, 1.0, 240)
    assert warnings == []


def test_defaults_are_the_published_ones() -> None:
    options, _ = parse_options(["--data", "x"])
    got = (options.n, options.d, options.b, options.epochs, options.lr, options.workers, options.ratio)
    assert got == ("luna", 3, 16, 100, 1e-3, 4, 0.8)
    assert (options.output, options.optimizer, options.momentum, options.weight_decay) == (
        "./pcrl_output",
        "sgd",
        0.9,
        1e-4,
    )
    assert (options.norm, options.final_act, options.loss, options.moco_t) == ("bn", "sigmoid", "mse", 0.2)
    assert (options.moco_k, options.moco_m) == (16384, 0.999)
    assert (options.inchannel, options.outchannel, options.seed, options.gpus) == (1, 1, 0, None)
    chest, _ = parse_options(["--data", "x", "--n", "chest"])
    assert (chest.d, chest.inchannel, chest.outchannel, chest.final_act, chest.size) == (2, 3, 3, "none", 224)


def test_flags_without_effect_are_accepted_with_one_warning_each() -> None:
    argv = ["--data", "x"] + [word for name in NO_EFFECT for word in (f"--{name}", "3")]
    _, warnings = parse_options(argv)
    assert len(warnings) == len(NO_EFFECT)
    for name, warning in zip(NO_EFFECT, warnings, strict=True):
        assert f"--{name} " in warning
        assert "no effect" in warning


def test_flags_that_segmentation_does_not_heed_are_warned_of() -> None:
    words = ["--data", "x", "--phase", "finetune", "--n", "msd", "--split", "x.json", "--folds", "10"]
    assert parse_options([*words, "--on_bad_sample", "skip"])[1] == [
        "--on_bad_sample has no effect with --n msd",
        "--folds has no effect with --split, whose file has the folds",
    ]
    with pytest.raises(UserError, match=r"^--inchannel 4: the channels of --n msd are its files'; leave it out$"):
        parse_options([*words, "--inchannel", "4"])


@pytest.mark.parametrize("flag", ["--preview=4", "--dry_run"])
def test_a_report_of_no_run_is_warned_of(flag: str) -> None:
    assert parse_options(["--data", "x", "--report", flag])[1] == [
        f"--report has no effect with {flag.partition('=')[0]}"
    ]


@pytest.mark.parametrize(
    ("argv", "warned"),
    [
        ("--optimizer adam", True),
        ("--optimizer adam --phase finetune --n chest", True),
        ("--optimizer adam --weight_decay 0", False),
        ("--optimizer adamw", False),
    ],
)
def test_decay_that_empties_the_decoder_is_warned_of(argv: str, warned: bool) -> None:
    _, warnings = parse_options(["--data", "x", *argv.split()])
    assert ["take adamw, or --weight_decay 0" in warning for warning in warnings] == [True] * warned


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--n chest --d 3", "--d 3 with --n chest"),
        ("--n luna --d 2", "--d 2 with --n luna"),
        ("--b 0", "--b 0"),
        ("--b 1.5", "--b.*1.5"),
        ("--ratio 0", "--ratio 0.0"),
        ("--ratio 1.01", "--ratio 1.01"),
        ("--ratio nan", "--ratio nan"),
        ("--lr nan", "--lr nan"),
        ("--lr -1", "--lr -1"),
        ("--epochs 0", "--epochs 0"),
        ("--workers -1", "--workers -1"),
        ("--batch_sise 3", "unknown argument --batch_sise"),
        ("--lr nan", "--lr nan: must be a finite number"),
        ("--lr inf", "--lr inf: must be a finite number"),
        ("--epoch 3", "did you mean --epochs"),
        ("--outputs 3", "did you mean --output"),
        ("--phase pretrain", "pretrain is not known"),
        ("--loss bce", "bce is not known; choose from mse, l1"),
        ("--n chest --norm gn", "--norm gn: 2D networks"),
        ("--n chest --size 100", "--size 100: must be a multiple of 32, 64 or more"),
        ("--n chest --size 32", "--size 32: must be a multiple of 32, 64 or more"),
        ("--n luna --size 64", "--size 64: only for 2D data"),
        ("--inchannel 3", "--inchannel 3: a 3D network"),
        ("--n chest --inchannel 3 --outchannel 1", "--outchannel 1"),
        ("--model simclr", "simclr is not known; choose from pcrl"),
        ("--optimizer lamb", "lamb is not known"),
        ("--amp fp8", "fp8 is not known"),
        ("--moco_t 0", "--moco_t 0"),
        ("--moco_k 0", "--moco_k 0: must be 1 or more"),
        ("--moco_m 1", "--moco_m 1.0: must be at least 0 and below 1"),
        ("--b 4 --accumulate 5", "--accumulate 5: a batch has only --b 4"),
        ("--accumulate 0", "--accumulate 0: must be 1 or more"),
        ("--prefetch 0", "--prefetch 0: must be 1 or more"),
        ("--ratio -1", "--ratio -1.0: must not be negative"),
        ("--val_every -1", "--val_every -1: must not be negative"),
        ("--seed 9223372036854775808", "--seed 9223372036854775808: must be below 9223372036854775808"),
        ("--epochs 3 --warmup_epochs 3", "--warmup_epochs 3: must be below --epochs 3"),
        ("--warmup_epochs -1", "--warmup_epochs -1"),
    ],
)
def test_bad_values_are_named(argv: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_options(["--data", "x", *argv.split()])
    assert "\n" not in str(error.value)


def test_help_tells_metavars_defaults_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("--patch X,Y,Z", "--spacing_mm X,Y,Z", "--cache FOLDER", "--split 70,10,20|FILE"):
        assert words in text, words
    for name in ("resume auto|none|FILE", "warmup_epochs N", "patience N", "without PARTS", "fold N"):
        assert "(default:" in text.split(f" --{name} ")[1][:200], name
    for line in epilog(None).splitlines():
        if line.strip().startswith("python main.py"):
            assert line.strip() in text
            if "--help" not in line:
                assert parse_options(line.split()[2:])[1] == []


@pytest.mark.parametrize("phase", PHASES)
def test_help_of_a_phase_is_about_it_alone(phase: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--help", "--phase", phase])
    text = capsys.readouterr().out
    assert ("luna" in text.split("kinds of data")[1]) == ("luna" in PHASES[phase])
    assert ("without labels" in text.splitlines()[2]) == (phase == "pretask")
    assert f"--n {'|'.join(PHASES[phase])} " in text
    examples = text.split("\nexamples:\n")[1].replace("\\\n", "").splitlines()
    commands = [line.split() for line in examples if "main.py" in line]
    assert commands
    for command in commands:
        options, warnings = parse_options(command[2:])
        assert (options.phase, warnings) == (phase, [])


@pytest.mark.parametrize("flag", ["--phase segment", "--phase=segment", "--n mri"])
def test_help_does_not_hide_a_value_that_is_not_known(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--help", *flag.split()], [*flag.split(), "--help"]):
        with pytest.raises(UserError, match=rf"^{flag.replace('=', ' ')} is not known; choose from [^\n]*$"):
            parse_options(argv)
    assert capsys.readouterr().out == ""


def test_telling_options_are_those_with_an_effect() -> None:
    options, _ = parse_options(["--data", "x"])
    pretask = telling(options.plain())
    assert {"b", "epochs", "moco_k", "norm", "ratio"} <= pretask.keys()
    assert not {"hu_min", "patch", "fold", "dry_run", "preview", "size"} & pretask.keys()
    options, _ = parse_options(["--data", "x", "--n", "msd", "--phase", "finetune"])
    segmentation = telling(options.plain())
    assert {"hu_min", "patch", "fold"} <= segmentation.keys()
    assert not {"moco_k", "ratio", "train_list", "inchannel"} & segmentation.keys()
    options, _ = parse_options(["--data", "x", "--model", "pcrlv2", "--moco_k", "8"])
    assert not {"moco_k", "moco_t", "moco_m", "shuffle_bn", "without", "loss"} & telling(options.plain()).keys()
    options, _ = parse_options(["--data", "x", "--model", "of_mine.py"])
    assert "moco_k" in telling(options.plain()), "what a method in a file heeds is not known here"
    assert telling({"b": 3, "unheard_of": 1}) == {"b": 3, "unheard_of": 1}, "of the published code's options"


def test_data_is_needed() -> None:
    with pytest.raises(UserError, match="--data is needed"):
        parse_options([])


def test_workers_above_the_cores_are_said_where_they_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "cores_of_process", lambda: 2)
    assert parse_options(["--data", "x"])[1] == []
    assert parse_options(["--data", "x", "--workers", "2"])[1] == []
    warnings = parse_options(["--data", "x", "--workers", "4"])[1]
    assert warnings == ["--workers 4: only 2 are used, one per available core"]


@pytest.mark.parametrize("flag", ["train_list", "weight", "resume", "split"])
def test_paths_that_are_not_there_are_named(flag: str, tmp_path: Path) -> None:
    data = str(tmp_path)
    for word in ("none", "imagenet", "auto"):  # some flags know words that are no files
        if word in command_line.NO_PATHS[flag]:
            check_paths(Options(data=data, **{flag: word}))
    words = command_line.NO_PATHS[flag]
    others = f"; give a file, or {' or '.join(words)}" if words else ""
    with pytest.raises(UserError, match=f"^--{flag} gone: no such file{others}$"):
        check_paths(Options(data=data, **{flag: "gone"}))
    with pytest.raises(UserError, match=r"^--data .*gone: no such folder$"):
        check_paths(Options(data=f"{data}/gone"))
    with pytest.raises(UserError, match=r"^--train_list gone: no such file$"):  # none has no labels
        check_paths(Options(data=data, n="chest", phase="finetune", train_list="gone"))
    (tmp_path / "file").touch()
    check_paths(Options(data=data, **{flag: f"{data}/file"}))
    with pytest.raises(UserError, match=r"^--data .*file: this is not a folder$"):
        check_paths(Options(data=f"{data}/file"))
