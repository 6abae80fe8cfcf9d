"""Nodule crops: no scan on two sides, an epoch of both kinds alike, samples by their key."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets.ct.nodules import Crop, NoduleCrops, Parts, read_crops, split, without_pretrained
from utils.errors import UserError


def crops_of(subsets: list[int], positives: int = 1, negatives: int = 3) -> list[Crop]:
    """A scan in each of these subsets."""
    labels = [1] * positives + [0] * negatives
    return [
        Crop(f"{scan}_{index}.npy", f"1.2.{scan}", subset, label)
        for scan, subset in enumerate(subsets)
        for index, label in enumerate(labels)
    ]


def uids(part: list[Crop]) -> set[str]:
    return {crop.uid for crop in part}


def test_subsets_split_as_luna16_does() -> None:
    parts = split(crops_of(list(range(10))), seed=0)
    assert [{crop.subset for crop in part} for part in (parts.train, parts.valid, parts.test)] == [
        set(range(7)),
        {7},
        {8, 9},
    ]


@given(subsets=st.lists(st.integers(0, 7), min_size=3, max_size=40), seed=st.integers(0, 9))
def test_no_scan_is_on_two_sides(subsets: list[int], seed: int) -> None:
    crops = crops_of(subsets)  # no subset 8 or 9: by scan
    parts = split(crops, seed)
    sides = [uids(part) for part in (parts.train, parts.valid, parts.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(subsets)
    assert len(parts.train) + len(parts.valid) + len(parts.test) == len(crops)
    if len(subsets) >= 10:
        assert len(sides[0]) == pytest.approx(0.7 * len(subsets), abs=1)


def test_a_scan_in_two_parts_and_a_part_of_one_kind_are_refused() -> None:
    crops = crops_of([0, 7, 8])
    with pytest.raises(UserError, match="a scan has crops in two subsets"):
        split([*crops, Crop("x.npy", "1.2.0", 8, 1)], seed=0)
    with pytest.raises(UserError, match=r"validation part .3 crops. must have crops with and without"):
        Parts(crops[:4], crops[5:8], crops[8:])


def test_fine_tuning_takes_the_scans_that_pre_training_left(tmp_path: Path) -> None:
    crops = crops_of([0, 1, 2, 3])
    (tmp_path / "luna_train.txt").write_text("1.2.3\n1.2.1\n1.2.0\n1.2.2\n")
    assert uids(without_pretrained(crops, tmp_path, None, 0.5)) == {"1.2.0", "1.2.2"}
    assert uids(without_pretrained(crops, tmp_path / "nowhere", None, 1.0)) == uids(crops)
    with pytest.raises(UserError, match="--train_list"):
        without_pretrained(crops, tmp_path / "nowhere", None, 0.5)


@pytest.fixture
def crops(tmp_path: Path) -> list[Crop]:
    """3 crops with a nodule, 7 without, each of its own values."""
    lines = ["file,seriesuid,subset,label,coordX,coordY,coordZ"]
    (tmp_path / "subset0").mkdir()
    for index in range(10):
        name = f"subset0/u_crop_{index}.npy"
        np.save(tmp_path / name, np.random.default_rng(index).random((16, 16, 8)).astype(np.float16))
        lines.append(f"{name},u,0,{int(index < 3)},0,0,0")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return read_crops(tmp_path)


def test_an_epoch_has_both_kinds_alike_and_all_take_turns(crops: list[Crop]) -> None:
    data = NoduleCrops(crops, seed=3, balanced=True)
    assert len(data) == 6
    epochs = [[data.chosen(epoch, index) for index in range(6)] for epoch in range(7)]
    for chosen in epochs:
        assert sorted(chosen[:3]) == [0, 1, 2]
        assert len(set(chosen[3:])) <= 3
        assert all(index >= 3 for index in chosen[3:])
    assert Counter(index for chosen in epochs for index in chosen[3:]) == dict.fromkeys(range(3, 10), 3)  # 21 of 7
    assert [data[0, index]["label"].item() for index in range(6)] == [1, 1, 1, 0, 0, 0]


def test_a_sample_depends_on_seed_and_key_alone(crops: list[Crop]) -> None:
    first, second = (NoduleCrops(crops, seed=3, balanced=True) for _ in range(2))
    second[1, 4]
    image = first[2, 1]["image"]
    assert image.shape == (1, 16, 16, 8)
    assert torch.equal(image, second[2, 1]["image"])
    on_disk = np.load(crops[1].file).astype(np.float32)
    np.testing.assert_array_equal(np.sort(image.numpy().ravel()), np.sort(on_disk.ravel()))  # flipped, turned
    others = [first[epoch, 1]["image"] for epoch in range(8)]
    assert not all(torch.equal(image, other) for other in others)
    plain = NoduleCrops(crops, seed=3, balanced=False)
    np.testing.assert_array_equal(plain[5, 1]["image"][0].numpy(), on_disk)
    assert [int(plain[0, index]["label"]) for index in range(10)] == [1] * 3 + [0] * 7


def test_damaged_crops_and_lists_are_named(crops: list[Crop], tmp_path: Path) -> None:
    data = NoduleCrops(crops, seed=0, balanced=False)
    for bad, message in ((np.zeros((8, 8, 8), np.float32), "shape"), (np.full((16, 16, 8), 2.0), "not in 0..1")):
        np.save(crops[4].file, bad)
        with pytest.raises(UserError, match=f"crop_4.*{message}"):
            data[0, 4]
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no list of crops"):
        read_crops(tmp_path)
    with pytest.raises(UserError, match=r"preprocess/nodule_crops\.py writes it"):
        read_crops(tmp_path / "nowhere")
