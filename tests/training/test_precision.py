"""Mixed precision: what stays float32, what a step that overflowed leaves behind, and whose apex is meant."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods.nce import contrast
from models.queue import KeyQueue
from tests.test_resume import assert_equal
from training.precision import Apex, Native, build_precision
from utils import full_precision
from utils.errors import UserError
from utils.process_group import SINGLE

CPU = torch.device("cpu")


def model() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Linear(4, 1)
    return module, torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)


def with_scaler() -> Native:
    """fp16's gradient scaler, as on GPUs without bf16."""
    precision = Native(CPU, enabled=True)
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    return precision


def one_step(precision: Native, module: nn.Module, optimizer: torch.optim.Optimizer, factor: float = 1.0) -> bool:
    optimizer.zero_grad(set_to_none=True)
    precision.backward(module(torch.full((2, 4), factor)).square().mean(), optimizer)
    return precision.update(optimizer)


@pytest.mark.parametrize("kind", ["scaler", "bf16", "off"])
@pytest.mark.parametrize("factor", [1e18, 1e19, float("nan")])  # only the gradient's norm overflows; its elements do
def test_a_step_that_overflows_changes_nothing_but_the_scale(kind: str, factor: float) -> None:
    precision = with_scaler() if kind == "scaler" else Native(CPU, enabled=kind == "bf16")
    module, optimizer = model()
    assert one_step(precision, module, optimizer)
    before = [p.detach().clone() for p in module.parameters()]
    momenta = [optimizer.state[p]["momentum_buffer"].clone() for p in module.parameters()]
    assert not one_step(precision, module, optimizer, factor)
    assert all(torch.equal(p, former) for p, former in zip(module.parameters(), before, strict=True))
    for p, former in zip(module.parameters(), momenta, strict=True):
        assert torch.equal(optimizer.state[p]["momentum_buffer"], former)
    if kind == "scaler":
        assert precision.scaler.get_scale() == (1024 if factor == 1e18 else 512)
    assert one_step(precision, module, optimizer)


def test_the_scaler_goes_on_where_it_was() -> None:
    """Halved once and two good steps since: the third doubles the scale, in the run that goes on as in the other."""
    precision, (module, optimizer) = with_scaler(), model()
    for factor in (1.0, 1e19, 1.0, 1.0):
        one_step(precision, module, optimizer, factor)
    resumed = with_scaler()
    resumed.load_state_dict(precision.state_dict())
    assert_equal(resumed.state_dict(), precision.state_dict())
    for each in (precision, resumed):
        other, its_optimizer = model()
        one_step(each, other, its_optimizer)
        assert each.scaler.get_scale() == 1024
    assert_equal(resumed.state_dict(), precision.state_dict())


def contrast_loss(queries: Tensor, keys: Tensor) -> Tensor:
    torch.manual_seed(1)
    state = KeyQueue(64, 128).read()
    result = contrast([queries], [keys], state, 0.2, 7, SINGLE.shares(len(queries)))
    assert result.losses.dtype == result.state.z.dtype == result.state.memory.dtype == torch.float32
    return result.losses


def test_the_contrast_is_computed_in_float32_under_autocast() -> None:
    queries, keys = torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = contrast_loss(queries.float(), keys.float())
    with Native(CPU, enabled=True).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        assert torch.equal(contrast_loss(queries, keys), expected)


# -- apex

FAKE_AMP = """
import contextlib
import torch

active, original = True, torch.Tensor.__matmul__

def initialize(module, optimizer, opt_level, verbosity):
    assert opt_level == "O1"
    torch.Tensor.__matmul__ = lambda a, b: original(a.half(), b.half()) if active else original(a, b)

@contextlib.contextmanager
def disable_casts():
    global active
    active = False
    yield
    active = True
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that comes first, where apex is to be found."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.Tensor, "__matmul__", torch.Tensor.__matmul__)  # put back afterwards
    monkeypatch.setattr(full_precision, "_suspenders", [])
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "apex").mkdir()
    yield tmp_path / "apex"
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_another_package_called_apex_is_not_taken_for_it(packages: Path, tmp_path: Path) -> None:
    (packages / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise RuntimeError('not this one')\n")
    with pytest.raises(UserError, match=r"--amp apex: needs NVIDIA's apex .*another one.*; use --amp native"):
        Apex(*model())
    assert not (tmp_path / "ran").exists()


def test_an_apex_that_cannot_be_imported_says_why(packages: Path) -> None:
    (packages / "__init__.py").touch()
    (packages / "amp").mkdir()
    (packages / "amp" / "__init__.py").write_text("import no_such_extension\n")
    with pytest.raises(UserError, match=r"cannot be imported .*no_such_extension"):
        Apex(*model())


def test_the_contrast_is_computed_in_float32_under_apex(packages: Path) -> None:
    """A stand-in for apex O1, which patches torch's functions to cast to half precision."""
    queries, keys = torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(0))
    expected = contrast_loss(queries, keys)
    (packages / "__init__.py").touch()
    (packages / "amp").mkdir()
    (packages / "amp" / "__init__.py").write_text(FAKE_AMP)
    Apex(*model())
    assert (queries @ keys.T).dtype == torch.float16
    assert torch.equal(contrast_loss(queries, keys), expected)
    assert (queries @ keys.T).dtype == torch.float16


def test_apex_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="--amp apex needs a GPU; use --amp native"):
        build_precision("apex", CPU, *model())


def test_bf16_that_the_processor_cannot_do_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        pytest.skip("only Linux says so what the processor has")
    if "avx2" not in flags or ("avx512f" in flags and "avx512_bf16" not in flags):
        pytest.skip("whether bf16 pays is known of processors with AVX512-BF16, and of those with AVX2 alone")
    build_precision("native", CPU, *model())
    assert ("product in bf16 takes" in capsys.readouterr().err) == ("avx512_bf16" not in flags)
    build_precision("off", CPU, *model())
    assert not capsys.readouterr().err
