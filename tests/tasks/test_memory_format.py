"""Fine-tuning computes in the memory format of pre-training: as --channels_last says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from options import Options
from tasks import TASKS
from tests.conftest import write_xrays
from tests.tasks.test_msd import TINY, data  # noqa: F401  # a fixture
from training.devices import Devices
from utils.process_group import SINGLE


def kernels_are_channels_last(options: Options) -> bool:
    method = TASKS[options.n](options, Devices(""), SINGLE).method
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    kernels = [p for p in method.parameters() if p.dim() in formats and min(p.shape[1], p.shape[-1]) > 1]
    assert kernels
    found = {p.is_contiguous(memory_format=formats[p.dim()]) for p in kernels}
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize(("flag", "expected"), [("auto", True), ("on", True), ("off", False)])
def test_of_a_segmenter(flag: str, expected: bool, data: Path) -> None:  # noqa: F811
    options = Options(phase="finetune", data=str(data), split=str(data / "splits.json"), channels_last=flag, **TINY)
    assert kernels_are_channels_last(options) == expected


@pytest.mark.parametrize(("flag", "expected"), [("auto", True), ("off", False)])
def test_of_a_classifier(flag: str, expected: bool, tmp_path: Path) -> None:
    folder = write_xrays(tmp_path / "xrays", count=6, size=64)
    for number, name in enumerate(("train", "valid", "test")):
        lines = [f"{2 * number + i + 1:08d}_000.png {i} 0\n" for i in range(2)]
        (folder / f"chest_{name}.txt").write_text("".join(lines))
    options = Options(
        phase="finetune", n="chest", data=str(folder), b=2, size=64, workers=0, ratio=1.0, channels_last=flag
    )
    assert kernels_are_channels_last(options) == expected
