"""Flags as other programs call them: taken where they are the same thing, else the answer says what to give here."""

from __future__ import annotations

import pytest

from options import ALIASES
from options.command_line import parse_options
from utils.errors import UserError


def test_names_that_other_programs_have_are_taken() -> None:
    argv = [
        "--data_dir",
        "x",
        "--dataset",
        "chest",
        "--batch_size",
        "3",
        "--learning_rate",
        "0.5",
        "--image_size",
        "96",
    ]
    options, _ = parse_options(
        [*argv, "--num_workers", "1", "--output_dir", "y", "--pretrained", "w.pt", "--dims", "2"]
    )
    given = (options.data, options.n, options.b, options.lr, options.size, options.workers, options.output)
    assert given == ("x", "chest", 3, 0.5, 96, 1, "y")
    assert (options.weight, options.d) == ("w.pt", 2)


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--device", "--gpus 0,1"),
        ("--batch", "the batch size is --b"),
        ("--wandb", "--tracker wandb"),
        ("--name", "--output"),
        ("--ckpt", "--resume goes on from a checkpoint, --weight starts from its weights"),
        ("--mixed-precision", "mixed precision is --amp"),
        ("--labels", "a list or table of labels is --train_list"),
        ("--learning-rate", "did you mean --learning_rate?"),
        ("--save_evry", "did you mean --save_every?"),
    ],
)
def test_others_are_answered_by_what_they_mean(flag: str, expected: str) -> None:
    with pytest.raises(UserError, match="unknown argument") as error:
        parse_options([flag, "1"])
    assert expected in str(error.value)


def test_help_shows_no_alias(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit):
            parse_options(["--help"])
        text = capsys.readouterr().out
        assert not [alias for alias in ALIASES if f"--{alias} " in text]
        flags = text.split("\nexamples:")[0].splitlines()
        assert max(map(len, flags)) <= max(80, min(columns, 100)), "but for a choice that cannot be broken"
