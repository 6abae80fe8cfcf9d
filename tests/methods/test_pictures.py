"""What a step keeps for its pictures: the samples that are drawn, not the maps of the whole batch."""

from __future__ import annotations

import torch

from methods.base import PICTURED
from methods.pcrl_report import pictures
from training.reporting.pictures import SAMPLES_2D


def test_only_what_is_drawn_is_kept() -> None:
    maps = torch.rand(64, 1, 32, 32)
    targets = dict.fromkeys(("rec", "rec_mixed", "rec_mixup", "rec_mixup_mixed"), (maps + 1, maps))
    images = pictures(maps, targets)
    assert len(images) == 9
    assert all(torch.equal(images[name], maps[:PICTURED]) for name in ("view 1", "target", "mixed mixup target"))
    kept = sum(image.untyped_storage().nbytes() for image in images.values())
    assert kept == 9 * PICTURED * 32 * 32 * 4
    assert PICTURED == SAMPLES_2D
