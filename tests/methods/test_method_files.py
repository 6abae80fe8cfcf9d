"""A method in a file of its own: what its author may write there as in the project's own, and what is said if not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from methods import method_spec
from methods.pcrlv2 import PCRLv2
from models.unet import checkpoint_weights
from options import Options
from phases.pretask import build_student, check_flags
from training.checkpoint import check_same_run
from utils.errors import UserError
from utils.process_group import SINGLE

TOY = """
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from methods.base import Batch, Method, StepOutput
from methods.spec import MethodSpec, unet_of
from models.build import build_unet
from models.unet import UNetNetwork


@dataclass(frozen=True)
class Draws:
    turns: tuple[int, ...]


class Encoder(UNetNetwork):
    def forward(self, image: Tensor) -> Tensor:
        return self.unet.pooled(image)


class Turns(Method):
    def __init__(self, network: Encoder) -> None:
        super().__init__()
        self.network = network

    def draw(self, batch_size: int, rng: np.random.Generator) -> Draws:
        return Draws(tuple(rng.integers(0, 4, batch_size).tolist()))

    def trainable(self) -> Iterable[nn.Parameter]:
        return self.network.parameters()

    def forward(self, batch: Batch, draws: Draws) -> StepOutput:
        return StepOutput(self.network(batch["input1"]).mean(), {})

    def commit(self, output: StepOutput) -> None: ...

    def export(self) -> dict: return {"mine": self.network.state_dict()}

    def restore(self, checkpoint: dict) -> None: self.network.load_state_dict(checkpoint["mine"])


def _build(network, settings, n_data, wrap, ranks):
    assert isinstance(network, Encoder), type(network)
    return Turns(network)


SPEC = MethodSpec("turns", "Turns", lambda settings: Encoder(NETWORK), _build, "pcrl", "nobody", "nothing",
    flags=frozenset({"moco_k"}), fixed={"inchannel": {2: 3}})
"""
SHAPE = (64, 64)


def options(tmp_path: Path, unet: str = "unet_of(settings)", **more: object) -> Options:
    file = tmp_path / "turns.py"
    file.write_text(TOY.replace("NETWORK", unet))
    return Options(data="d", n="chest", size=64, model=str(file), **more)  # type: ignore[arg-type]


def test_a_file_may_have_dataclasses_and_knows_its_own_classes_again(tmp_path: Path) -> None:
    """It is run once: a network that was built first is of the class that the method is built around later."""
    given = options(tmp_path, narrow=8)
    network, _ = build_student(given, SHAPE)
    method = method_spec(given.model).build(network, given.plain(), 1, lambda module: module, SINGLE)
    assert method.draw(3, np.random.default_rng(0)).turns
    assert network.unet.narrow == 8


def test_a_network_that_does_not_heed_narrow_is_refused(tmp_path: Path) -> None:
    """Its checkpoints would name a --narrow that they do not have: no phase could read them."""
    own = 'build_unet(2, 3, 3, "bn", "none", narrow=4)'
    build_student(options(tmp_path, own, narrow=4), SHAPE)
    with pytest.raises(UserError, match="--narrow 8: --model turns does not heed it; leave it out"):
        build_student(options(tmp_path, own, narrow=8), SHAPE)


def test_its_flags_are_heeded_refused_or_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``fixed`` need not name both numbers of dimensions."""
    given = options(tmp_path, moco_k=8, moco_t=0.1)
    check_flags(given)
    assert capsys.readouterr().err == "warning: --moco_t has no effect with --model turns\n"
    check_flags(Options(data="d", n="luna", model=given.model))
    with pytest.raises(UserError, match="--inchannel 1: --model turns knows only 3 here"):
        check_flags(options(tmp_path, inchannel=1))


def test_how_its_views_are_normalised_travels_with_its_weights(tmp_path: Path) -> None:
    """Or fine-tuning would give them other images than they saw, without a word."""
    for views, inputs in (("pcrl", None), ("pcrlv2", "z-normal")):
        file = tmp_path / f"{views}.py"
        file.write_text(TOY.replace("NETWORK", "unet_of(settings)").replace('"pcrl"', f'"{views}"'))
        network, _ = build_student(Options(data="d", n="luna", model=str(file), narrow=8), (16, 16, 8))
        assert checkpoint_weights(network).get("inputs") == inputs


def test_a_run_whose_checkpoint_has_entries_of_its_own_alone_goes_on(tmp_path: Path) -> None:
    given = options(tmp_path)
    checkpoint = {"mine": {}, "opt": given.plain(), "torch_rng": torch.get_rng_state(), "list_sha256": "0"}
    check_same_run(checkpoint, given, "0", {})
    checkpoint["opt"]["model"] = "elsewhere/turns.py"
    check_same_run(checkpoint, given, "0", {})
    checkpoint["opt"]["model"] = "elsewhere/other.py"
    with pytest.raises(UserError, match=r"that run had --model elsewhere/other\.py"):
        check_same_run(checkpoint, given, "0", {})
    with pytest.raises(UserError, match="holds no training state"):
        check_same_run({"model": {}, "opt": given.plain()}, given, "0", {})


def test_where_a_run_goes_on_its_start_is_not_asked_for(tmp_path: Path) -> None:
    """The file may be gone by then, and ImageNet's weights out of reach."""
    gone = {"narrow": 8, "weight": str(tmp_path / "gone.pt"), "output": str(tmp_path)}
    with pytest.raises(UserError, match=r"gone\.pt"):
        build_student(options(tmp_path, **gone, resume="auto"), SHAPE)
    (tmp_path / "last.pt").touch()
    for resume in ("auto", str(tmp_path / "last.pt")):
        _, facts = build_student(options(tmp_path, **gone, resume=resume), SHAPE)
        assert facts == {}


def test_a_narrow_network_has_no_weights_of_imagenet_by_default() -> None:
    chest = {"data": "d", "n": "chest", "model": "pcrlv2"}
    assert Options(**chest).weight == "imagenet"  # type: ignore[arg-type]
    assert Options(**chest, narrow=8).weight == "none"  # type: ignore[arg-type]


def test_what_a_spec_says_for_a_page_is_what_the_method_shows() -> None:
    spec = method_spec("pcrlv2")
    assert (spec.panels({}), spec.headline) == (PCRLv2.panels, PCRLv2.headline)
    for name in ("pcrl", "pcrl_paper"):
        spec = method_spec(name)
        assert [panel.axis for panel in spec.panels({"loss": "l1"}) if panel.title == "reconstruction"] == [
            "absolute error"
        ]
        assert spec.panels({"loss": ["no", "word"]}), "a page is made of any run.json"
