"""What a step keeps for its pictures, the samples that are drawn and not the maps of a batch, and how they look."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datasets.transforms.spatial import SpatialTransform
from methods.base import PICTURED
from methods.pcrl_report import pictures, upright
from training.reporting.pictures import SAMPLES


def test_only_what_is_drawn_is_kept() -> None:
    maps = torch.rand(64, 1, 32, 32)
    targets = dict.fromkeys(("rec", "rec_mixed", "rec_mixup", "rec_mixup_mixed"), (maps + 1, maps))
    images = pictures({"view 1": maps, "mixup": maps}, targets, {"view 1": torch.zeros(64, 6)})
    code = images.pop("code: view 1")
    assert len(images) == 10
    names = ("view 1: input", "view 1: target", "mixup: input", "mixup: mixed target")
    assert all(torch.equal(images[name], maps[:PICTURED]) for name in names)
    kept = sum(image.untyped_storage().nbytes() for image in images.values())
    assert kept == 10 * PICTURED * 32 * 32 * 4
    assert code.untyped_storage().nbytes() == PICTURED * 6 * 4
    assert PICTURED == SAMPLES


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 4), (6, 4, 4)])
def test_what_is_drawn_of_view_1_is_turned_back(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    views = rng.random((PICTURED, 2, *shape), dtype=np.float32)
    transforms = [SpatialTransform.sample(shape, rng) for _ in views]
    assert len({tuple(each.code) for each in transforms} - {tuple(SpatialTransform((False,) * 3, 0).code)}) > 1
    target = torch.from_numpy(np.stack([each.apply(view) for each, view in zip(transforms, views, strict=True)]).copy())
    view, code = torch.from_numpy(views), torch.from_numpy(np.stack([each.code for each in transforms]))
    targets = {"rec": (target + 1, target), "rec_mixup": (view + 2, view), "rec_hybrid": (target + 3, target)}
    views_by_row = {"view 1": view, "mixup": view, "hybrid": view}
    images = upright(pictures(views_by_row, targets, {"view 1": code, "hybrid": code}))
    assert not any(name.startswith("code") for name in images)
    assert torch.equal(images["hybrid: reconstruction"], view + 3)
    assert torch.equal(images["view 1: target"], view)
    assert torch.equal(images["view 1: reconstruction"], view + 1)
    assert torch.equal(images["mixup: target"], view), "these were never turned"
