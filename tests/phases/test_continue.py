"""--continue_with: a new run begins with the teacher and the queue of a former one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from options import Options
from options.command_line import parse_options
from phases import phase
from tests.conftest import write_xrays
from training.devices import Devices
from utils.errors import UserError
from utils.process_group import SINGLE

FLAGS = (
    "--n",
    "chest",
    "--size",
    64,
    "--b",
    2,
    "--ratio",
    1,
    "--workers",
    0,
    "--moco_k",
    16,
    "--narrow",
    8,
    "--gpus",
    "",
)
LEAN = ("--image_every", 0, "--without", "reconstruction,mixup", "--epochs", 1)


def run(*argv: object) -> Options:
    options, warnings = parse_options([str(word) for word in (*FLAGS, *argv)])
    assert warnings == []
    phase("pretask")(options, Devices("", None), SINGLE)
    return options


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of one epoch, whose queue has 4 keys."""
    folder = tmp_path_factory.mktemp("former")
    run(*LEAN, "--data", write_xrays(folder / "xrays", count=4), "--output", folder / "out")
    return folder / "out" / "last.pt"


def test_teacher_and_queue_are_those_of_the_former_run(former: Path, tmp_path: Path) -> None:
    data = write_xrays(tmp_path / "others", count=2)
    argv = (*LEAN, "--data", data, "--lr", 0, "--moco_m", 0.5, "--weight", former)
    run(*argv, "--output", tmp_path / "both", "--continue", "teacher,queue")
    run(*argv, "--output", tmp_path / "anew")
    before, both, anew = (
        torch.load(path, weights_only=True) for path in (former, tmp_path / "both/last.pt", tmp_path / "anew/last.pt")
    )
    keys = before["contrast"]["pointer"].item()
    assert keys == 4, "as many as were pushed"
    assert torch.equal(both["contrast"]["memory"][:keys], before["contrast"]["memory"][:keys])
    assert not torch.equal(anew["contrast"]["memory"][2:keys], before["contrast"]["memory"][2:keys])
    assert (both["contrast"]["pointer"], anew["contrast"]["pointer"]) == (6, 2)
    assert both["contrast"]["z"] != before["contrast"]["z"], "set anew: this run has another number of batches"
    name = "model.encoder.layer4.1.conv2.weight"
    # With --lr 0 the student stays as it was, and each teacher moves half of the way to it in the one step.
    halfway = (before["model_ema"][name] + before["model"][name]) / 2
    torch.testing.assert_close(both["model_ema"][name], halfway)
    assert torch.equal(anew["model_ema"][name], before["model"][name]), "a teacher begins as the student"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--continue_with", "teacher"), "--weight must be the last.pt of the former run"),
        (("--continue", "optimizer", "--weight", "FORMER"), "--model pcrl has no such part; it has teacher, queue"),
        (
            ("--continue", "queue", "--weight", "FORMER", "--moco_k", 32),
            "does not fit .*give the same network and --moco_k",
        ),
        (
            ("--continue", "queue", "--weight", "ENCODER"),
            "ENCODER.pt has no `contrast`; give a checkpoint of pre-training",
        ),
    ],
)
def test_what_does_not_fit_is_named(argv: tuple[object, ...], message: str, former: Path, tmp_path: Path) -> None:
    state = torch.load(former, weights_only=True)["state_dict"]
    torch.save(state, tmp_path / "ENCODER.pt")
    paths = {"FORMER": former, "ENCODER": tmp_path / "ENCODER.pt"}
    words = [paths.get(str(word), word) for word in argv]
    with pytest.raises(UserError, match=message) as error:
        run(*LEAN, "--data", former.parents[1] / "xrays", "--output", tmp_path / "out", *words)
    assert "\n" not in str(error.value)
