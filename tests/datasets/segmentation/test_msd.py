"""Segmentation data: files found and refused, grids, intensities, patches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from datasets.segmentation.files import Description, find_cases, read_case, read_description, read_spacing
from datasets.segmentation.msd import Patches, Recipe, Volume, augment, load_volume, take
from datasets.transforms.affine import Affine
from utils.errors import UserError

AS_IT_IS = Affine(flip=False, scales=np.ones(3), degrees=np.zeros(3))


def write(path: Path, voxels: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1), direction: object = None) -> Path:
    """Write (x, y, z) voxels, or (channel, x, y, z) as a 4D image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if voxels.ndim == 4:
        image = sitk.JoinSeries([sitk.GetImageFromArray(np.ascontiguousarray(v.T)) for v in voxels])
        spacing = (*spacing, 1.0)
    else:
        image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing([float(value) for value in spacing])
    if direction is not None:
        image.SetDirection(np.asarray(direction, float).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def case(data: Path, name: str = "a", **changes: object) -> None:
    """One case of known content: a box of class 1 and one of class 2 in noise."""
    rng = np.random.default_rng(0)
    label = np.zeros((12, 10, 8), np.uint8)
    label[2:6, 3:7, 2:6], label[8:11, 2:5, 1:4] = 1, 2
    image = (rng.normal(0, 20, label.shape) + 300.0 * label).astype(np.float32)
    write(data / "imagesTr" / f"{name}.nii.gz", image, **changes)  # type: ignore[arg-type]
    write(data / "labelsTr" / f"{name}.nii.gz", label, **changes)  # type: ignore[arg-type]


def test_cases_are_found_in_either_layout(tmp_path: Path) -> None:
    for name in ("b", "a"):
        case(tmp_path / "msd", name)
    (tmp_path / "msd" / "imagesTr" / "._a.nii.gz").write_bytes(b"what a Mac leaves")
    assert [found.name for found in find_cases(tmp_path / "msd")] == ["a", "b"]
    voxels = np.zeros((4, 4, 4), np.float32)
    for channel in (1, 0):
        write(tmp_path / "nnunet" / "imagesTr" / f"x_000{channel}.nrrd", voxels + channel)
    write(tmp_path / "nnunet" / "labelsTr" / "x.nrrd", voxels)
    (found,) = find_cases(tmp_path / "nnunet")
    assert found.name == "x"
    assert [path.name for path in found.images] == ["x_0000.nrrd", "x_0001.nrrd"]
    assert read_case(found).image.mean(axis=(1, 2, 3)).tolist() == [0, 1]
    write(tmp_path / "four" / "imagesTr" / "y.nii.gz", np.stack([voxels, voxels + 1, voxels + 2]))
    write(tmp_path / "four" / "labelsTr" / "y.nii.gz", voxels)
    (found,) = find_cases(tmp_path / "four")
    assert read_case(found).image.mean(axis=(1, 2, 3)).tolist() == [0, 1, 2]


def test_an_image_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """As git-annex leaves links whose content is elsewhere."""
    case(tmp_path)
    (tmp_path / "imagesTr" / "a.nii.gz").unlink()
    (tmp_path / "imagesTr" / "a.nii.gz").symlink_to("elsewhere.nii.gz")
    (found,) = find_cases(tmp_path)
    for read in (read_spacing, read_case):
        with pytest.raises(UserError, match="the case a: "):
            read(found)


def test_two_images_of_one_case_are_refused(tmp_path: Path) -> None:
    """As a raw one beside one that was prepared for nnU-Net."""
    case(tmp_path)
    write(tmp_path / "imagesTr" / "a_0000.nii.gz", np.zeros((12, 10, 8), np.float32))
    with pytest.raises(UserError, match=r"a has two images, a\.nii\.gz and a_0000\.nii\.gz; leave one in imagesTr"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "modality": {"0": "MRI"}},
            Description(["Anterior", "Posterior"], [False]),
        ),
        (
            {"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT", "1": "PET"}},
            Description(["liver"], [True, False]),
        ),
        ({}, Description()),
    ],
)
def test_both_kinds_of_description(content: dict, expected: Description, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert read_description(tmp_path) == expected


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="imagesTr cannot be read"):
        find_cases(tmp_path)
    case(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": {"0": "background", "3": "x"}}')
    with pytest.raises(UserError, match="labels are 0, 3"):
        read_description(tmp_path)
    (found,) = find_cases(tmp_path)
    write(found.label, np.zeros((12, 10, 7), np.uint8))
    with pytest.raises(
        UserError, match=r"the case a: image and label differ in size \(size 12, 10, 8 against 12, 10, 7\)"
    ):
        read_case(found)
    write(found.label, np.full((12, 10, 8), 0.5, np.float32))
    with pytest.raises(UserError, match=r"no whole numbers from 0 to 255, such as 0\.5"):
        read_case(found)
    found.images[0].write_bytes(found.images[0].read_bytes()[:200])
    with pytest.raises(UserError, match=r"the case a: .*a\.nii\.gz"):
        read_case(found)
    found.label.unlink()
    write(tmp_path / "labelsTr" / "b.nii.gz", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(UserError, match="no file in labelsTr"):
        find_cases(tmp_path)


def test_axes_do_not_depend_on_how_the_file_stores_them(tmp_path: Path) -> None:
    case(tmp_path / "plain", spacing=(1, 2, 3))
    plain = read_case(find_cases(tmp_path / "plain")[0])
    stored = tmp_path / "stored"  # z first, x from left to right
    for folder, voxels in (("imagesTr", plain.image[0]), ("labelsTr", plain.label)):
        turned = voxels[::-1].transpose(2, 0, 1)
        write(stored / folder / "a.nii.gz", turned, (3, 1, 2), [[0, -1, 0], [0, 0, 1], [1, 0, 0]])
    (found,) = find_cases(stored)
    # turning about the origin shifts the volume, so only the arrays are compared
    again = read_case(found)
    np.testing.assert_array_equal(again.image, plain.image)
    np.testing.assert_array_equal(again.label, plain.label)
    assert again.spacing_mm == pytest.approx((1, 2, 3))
    assert read_spacing(found) == pytest.approx((1, 2, 3))


def test_intensities_and_spacing(tmp_path: Path) -> None:
    case(tmp_path, spacing=(1, 1, 2))
    (found,) = find_cases(tmp_path)
    raw = read_case(found)
    volume = load_volume(found, Recipe((1.0, 1.0, 2.0), ((-100.0, 500.0),)), None)
    np.testing.assert_allclose(volume.image, np.clip((raw.image + 100) / 600, 0, 1), atol=1e-3)
    np.testing.assert_array_equal(volume.label, raw.label)
    volume = load_volume(found, Recipe((1.0, 1.0, 1.0), (None,)), None)
    assert volume.image.shape == (1, 12, 10, 16)
    np.testing.assert_array_equal(volume.label[..., ::2], raw.label)  # every voxel twice
    np.testing.assert_array_equal(volume.label[..., 1::2], raw.label)
    np.testing.assert_array_equal(volume.truth, raw.label)
    volume = load_volume(found, Recipe((1.0, 1.0, 2.0), (None,)), None)
    low, high = np.percentile(raw.image, (0.5, 99.5))
    np.testing.assert_allclose(volume.image, np.clip((raw.image - low) / (high - low), 0, 1), atol=1e-3)
    assert [set(raw.label[tuple(places.T)]) for places in volume.places] == [{1}, {2}]


def test_a_cache_gives_the_same_and_notices_other_files(tmp_path: Path) -> None:
    case(tmp_path)
    (found,) = find_cases(tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    recipe = Recipe((1.5, 1.0, 1.0), (None,))
    fresh, mapped, again = (load_volume(found, recipe, folder) for folder in (None, cache, cache))
    assert len(list(cache.iterdir())) == 3
    for volume in (mapped, again):
        assert isinstance(volume.image, np.memmap)
        for name in ("image", "label", "truth"):
            np.testing.assert_array_equal(getattr(volume, name), getattr(fresh, name))
    load_volume(found, Recipe((1.0, 1.0, 1.0), (None,)), cache)
    assert len(list(cache.iterdir())) == 6
    next(cache.glob("*_image.npy")).write_bytes(b"cut")
    with pytest.raises(UserError, match=r"--cache .*delete them"):
        [load_volume(found, Recipe((size, 1.0, 1.0), (None,)), cache) for size in (1.0, 1.5)]


@pytest.fixture
def volume() -> Volume:
    """Smaller than a patch in z; few voxels of class 1, in a corner, none of them alike."""
    label = np.zeros((40, 30, 6), np.uint8)
    label[37:39, 1:3, 2:4] = 1
    image = np.linspace(0, 1, label.size, dtype=np.float32).reshape(1, *label.shape).astype(np.float16)
    return Volume("v", image, label, label, [np.argwhere(label == 1)])


def test_patches_lie_in_the_volume_and_a_third_on_the_foreground(volume: Volume) -> None:
    patches = Patches([volume], (16, 16, 8), per_case=300, seed=0, mirror=True)
    samples = [patches[0, index] for index in range(300)]
    assert samples[0]["image"].shape == samples[0]["label"].shape == (1, 16, 16, 8)
    assert samples[0]["label"].dtype == torch.uint8
    seen = np.mean([bool(sample["label"].any()) for sample in samples])
    # Of all starts that fit, (2 * 3) / (25 * 15) see the corner's class: nearly all that do are centred on it.
    assert 0.25 < seen < 0.45
    assert all(0 <= sample["image"].min() <= sample["image"].max() <= 1 for sample in samples)
    again = Patches([volume], (16, 16, 8), per_case=300, seed=0, mirror=True)[0, 7]
    assert torch.equal(again["image"], samples[7]["image"])
    assert not torch.equal(patches[1, 7]["image"], samples[7]["image"])


def test_parts_beyond_the_volume_are_empty(volume: Volume) -> None:
    part = take(volume.image, np.array([-2, 5, -1]), (6, 4, 8))
    np.testing.assert_array_equal(part[:, 2:, :, 1:7], volume.image[:, :4, 5:9])
    assert not part[:, :2].any()
    assert not part[..., 0].any()
    assert not part[..., 7].any()


def test_image_and_label_are_transformed_alike() -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((24, 24, 16), np.uint8)
    label[4:12, 6:16, 3:12], label[14:20, 8:18, 5:13] = 1, 2
    image = (label / 2).astype(np.float32)[None]
    same = augment(image, label, AS_IT_IS, 1.0)
    np.testing.assert_array_equal(same[0], image)
    np.testing.assert_array_equal(same[1], label)
    for _ in range(5):
        turned, classes = augment(image, label, Affine.sample(rng), 1.0)
        clear = np.minimum(np.abs(turned[0] - 0.25), np.abs(turned[0] - 0.75)) > 0.15  # away from the boundaries
        agree = (np.rint(2 * turned[0]) == classes)[clear]
        assert agree.mean() > 0.98  # but where class 2 fades to 0 and passes 0.5
        assert set(np.unique(classes)) == {0, 1, 2}
