"""LUNA16 crops for PCRLv2: which files count, what a sample holds, and that it equals the transforms one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchio

from datasets.ct.luna_v2 import LunaViews, local_file
from datasets.registry import DATASETS
from datasets.transforms.crops_v2 import CropAugmentationV2
from utils.errors import UserError

SHAPE, LOCAL_SHAPE = (2, 16, 16, 8), (3, 8, 8, 8)


def write(folder: Path, uid: str = "1.2.3", number: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    np.save(folder / f"{uid}_local_{number}.npy", rng.random(LOCAL_SHAPE))
    path = folder / f"{uid}_global_{number}.npy"
    np.save(path, rng.random(SHAPE))
    return path


def by_torchio(crop: np.ndarray, parameters: CropAugmentationV2) -> tuple[np.ndarray, np.ndarray]:
    image = torch.from_numpy(crop.astype(np.float32))[None]
    affine = parameters.affine
    if affine.flip:
        image = torchio.Flip(axes=0)(image)
    target = torchio.Affine(scales=affine.scales, degrees=affine.degrees, translation=(0, 0, 0))(image)
    image = torchio.Blur(std=tuple(parameters.blur.stds))(target)
    image = image + parameters.noise.std * torch.from_numpy(parameters.noise.values(crop.shape))
    image = torchio.Gamma(gamma=parameters.gamma.gamma)(image)
    for first, second in [] if parameters.swaps is None else parameters.swaps.starts.tolist():
        a, b = ((0, *(slice(s, s + n) for s, n in zip(start, (8, 4, 4), strict=True))) for start in (first, second))
        image[b], image[a] = image[a].clone(), image[b].clone()
    return torchio.ZNormalization()(image)[0].numpy(), target[0].numpy()


def test_a_sample_equals_torchio_with_the_same_draws(tmp_path: Path) -> None:
    path = write(tmp_path / "a_global_0_folder" / "subset0")  # the word in a folder's name must not matter
    views = LunaViews([str(path)], seed=3)
    sample = views[(2, 0)]
    globals_, locals_ = views.draw((2, 0))
    pair, small = np.load(path), np.load(local_file(str(path)))
    for number, (crop, parameters) in enumerate(zip(pair, globals_, strict=True), start=1):
        expected, target = by_torchio(crop, parameters)
        np.testing.assert_allclose(sample[f"input{number}"][0], expected, rtol=1e-3, atol=2e-4)
        if number == 1:
            np.testing.assert_allclose(sample["gt1"][0], target, atol=1e-5)
    assert sample.keys() == {"input1", "input2", "gt1", "locals"}
    assert sample["locals"].shape == (3, 1, 8, 8, 8)
    for ours, crop, parameters in zip(sample["locals"], small, locals_, strict=True):
        assert parameters.swaps is None
        np.testing.assert_allclose(ours[0], by_torchio(crop, parameters)[0], rtol=1e-3, atol=2e-4)


def test_a_sample_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    files = [str(write(tmp_path / "subset0", number=number)) for number in range(2)]
    one, two = LunaViews(files, seed=1), LunaViews(files, seed=1)
    two[(0, 1)]
    first = one[(0, 0)]
    assert all(torch.equal(value, two[(0, 0)][name]) for name, value in first.items())
    for other in (one[(1, 0)], LunaViews(files, seed=2)[(0, 0)]):
        assert all(not torch.equal(value, other[name]) for name, value in first.items())
    assert abs(first["input1"].mean()) < 1e-5
    assert first["input1"].std() == pytest.approx(1, abs=1e-4)
    assert 0 <= first["gt1"].min() <= first["gt1"].max() <= 1


def test_files_of_another_method_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "v2" / "subset0")
    v1, v2 = (DATASETS["luna"].views[name] for name in ("pcrl", "pcrlv2"))
    assert v2.find(tmp_path / "v2", None, 1.0) == [str(path)]
    with pytest.raises(UserError, match=r"_global_<k>\.npy, not <uid>_img_<k>\.npy.*luna_pre\.py --data"):
        v1.find(tmp_path / "v2", None, 1.0)
    (tmp_path / "v1" / "subset0").mkdir(parents=True)
    np.save(tmp_path / "v1" / "subset0" / "1.2_img_0.npy", np.zeros((2, 16, 16, 16)))
    with pytest.raises(UserError, match=r"_img_<k>\.npy, not <uid>_global_<k>\.npy.*luna_pre\.py --recipe pcrlv2"):
        v2.find(tmp_path / "v1", None, 1.0)


def test_damaged_local_crops_are_named(tmp_path: Path) -> None:
    files = [str(write(tmp_path / "subset0", number=number)) for number in range(2)]
    views = LunaViews(files, seed=0)
    np.save(local_file(files[1]), np.zeros((2, 8, 8, 8)))
    with pytest.raises(UserError, match=r"_local_1\.npy has the shape \(2, 8, 8, 8\), not \(3, 8, 8, 8\)"):
        views[(0, 1)]
    Path(local_file(files[1])).unlink()
    with pytest.raises(UserError, match=r"_local_1\.npy cannot be read"):
        views[(0, 1)]
