"""LUNA16 pairs: which files are used, what a sample holds, and what is said of bad files."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from datasets.ct.luna import LunaPairs, augment_batch, read_pair
from datasets.transforms.spatial import SpatialTransform
from utils.errors import UserError
from utils.seeding import generator

ROOT = Path(__file__).resolve().parents[3]
VOLUMES = ["input1", "input2", "mask1", "mask2", "gt1", "gt2"]
SHAPE = (16, 16, 14)


def write_pair(path: Path, shape: tuple[int, ...] = SHAPE, dtype: type = np.float32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, generator(0, path.name).random((2, *shape)).astype(dtype))
    return path


# --- samples


@pytest.mark.parametrize("shape", [(64, 64, 32), (32, 32, 16), (24, 40, 16)])
def test_what_a_sample_holds(tmp_path: Path, shape: tuple[int, ...]) -> None:
    files = [write_pair(tmp_path / f"a_img_{k}.npy", shape) for k in range(3)]
    dataset = LunaPairs(files, seed=0)
    assert len(dataset) == 3
    for index, file in enumerate(files):
        sample = dataset[(0, index)]
        assert sorted(sample) == sorted([*VOLUMES, "aug1", "aug2"])
        for name in VOLUMES:
            assert sample[name].shape == (1, *shape)
            assert sample[name].dtype == torch.float32
            assert sample[name].is_contiguous()
        pair = np.load(file)
        for view in (1, 2):
            np.testing.assert_array_equal(sample[f"gt{view}"][0], pair[view - 1])
            image, target = sample[f"input{view}"].numpy(), sample[f"mask{view}"].numpy()
            assert not np.array_equal(image[0], pair[view - 1])
            assert 0 <= image.min() <= image.max() <= 1 + 1e-6
            code = sample[f"aug{view}"].numpy()
            assert code.shape == (7,)
            assert code.dtype == np.float32
            np.testing.assert_array_equal(SpatialTransform.from_code(code).invert(target), image)


def test_a_sample_depends_on_seed_and_key_alone(tmp_path: Path) -> None:
    files = [write_pair(tmp_path / f"a_img_{k}.npy") for k in range(2)]
    first, second = LunaPairs(files, seed=3), LunaPairs(files[:1], seed=3)
    sample = first[(5, 0)]
    first[(6, 1)]
    for other in (first[(5, 0)], second[(5, 0)]):
        assert all(torch.equal(sample[name], other[name]) for name in sample)
    for other in (first[(6, 0)], LunaPairs(files, seed=4)[(5, 0)]):
        assert not torch.equal(sample["input1"], other["input1"])


def test_samples_are_the_same_in_every_process(tmp_path: Path) -> None:
    files = [write_pair(tmp_path / f"a_img_{k}.npy") for k in range(4)]
    dataset = LunaPairs(files, seed=0)
    keys = [(1, index) for index in range(4)]
    here = torch.stack([dataset[key]["mask2"] for key in keys])
    by_workers = next(iter(DataLoader(dataset, sampler=keys, batch_size=4, num_workers=2)))["mask2"]  # type: ignore[arg-type]
    assert torch.equal(here, by_workers)
    script = (
        "import hashlib, pathlib, torch; from datasets.ct.luna import LunaPairs;"
        f"files = [pathlib.Path({str(tmp_path)!r}) / f'a_img_{{k}}.npy' for k in range(4)];"
        "masks = torch.stack([LunaPairs(files, 0)[(1, k)]['mask2'] for k in range(4)]);"
        "print(hashlib.sha256(masks.numpy().tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == hashlib.sha256(here.numpy().tobytes()).hexdigest()


def test_the_data_set_can_be_sent_to_a_process(tmp_path: Path) -> None:
    dataset = LunaPairs([write_pair(tmp_path / "a_img_0.npy")], seed=0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[(0, 0)]["input1"], dataset[(0, 0)]["input1"])


def test_a_batch_augmented_at_once_equals_the_single_samples(tmp_path: Path) -> None:
    files = [write_pair(tmp_path / f"a_img_{k}.npy", (32, 32, 16)) for k in range(4)]
    keys = [(2, index) for index in (3, 0, 2, 1)]
    expected = default_collate([LunaPairs(files, seed=5)[key] for key in keys])
    raw = default_collate([LunaPairs(files, seed=5, augmented=False)[key] for key in keys])
    assert not any(name.startswith(("input", "mask")) for name in raw)
    batch = augment_batch(raw)
    assert sorted(batch) == sorted(expected)
    for name, values in expected.items():
        assert batch[name].shape == values.shape
        assert batch[name].dtype == values.dtype
        torch.testing.assert_close(batch[name], values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_are_read_as_float32(tmp_path: Path, dtype: type) -> None:
    path = write_pair(tmp_path / "a_img_0.npy", dtype=dtype)
    pair = read_pair(path)
    assert pair.dtype == np.float32
    np.testing.assert_array_equal(pair, np.load(path).astype(np.float32))


def test_fortran_order_is_read_as_c_order(tmp_path: Path) -> None:
    array = generator(0).random((2, *SHAPE), dtype=np.float32)
    np.save(tmp_path / "a_img_0.npy", np.asfortranarray(array))
    pair = read_pair(tmp_path / "a_img_0.npy")
    assert pair.flags.c_contiguous
    np.testing.assert_array_equal(pair, array)


# --- bad files

GOOD = np.full((2, *SHAPE), 0.5, np.float32)


def _with(value: float) -> np.ndarray:
    array = GOOD.copy()
    array[1, 3, 3, 3] = value
    return array


BAD_ARRAYS = {
    "one crop": (GOOD[:1], r"shape \(1, 16, 16, 14\), not \(2, 16, 16, 14\)"),
    "three crops": (np.concatenate([GOOD, GOOD[:1]]), r"shape \(3, 16, 16, 14\)"),
    "a single crop": (GOOD[0], r"shape \(16, 16, 14\)"),
    "another size": (np.zeros((2, 16, 16, 16), np.float32), r"shape \(2, 16, 16, 16\), not \(2, 16, 16, 14\)"),
    "nothing": (np.zeros((2, 0, 16, 14), np.float32), r"shape \(2, 0, 16, 14\)"),
    "a scalar": (np.float32(1), r"shape \(\)"),
    "NaN": (_with(np.nan), "not in 0..1"),
    "infinity": (_with(np.inf), "not in 0..1"),
    "Hounsfield units": (_with(-1000), "from -1000 to 0.5, not in 0..1"),
    "above one": (_with(1.01), "not in 0..1"),
    "integers": (GOOD.astype(np.int16), "no floating-point array"),
    "complex numbers": (GOOD.astype(np.complex64), "no floating-point array"),
    "text": (np.array(["a"]), "no floating-point array"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(tmp_path: Path, case: str) -> None:
    array, message = BAD_ARRAYS[case]
    dataset = LunaPairs([write_pair(tmp_path / "a_img_0.npy"), tmp_path / "bad_img_1.npy"], seed=0)
    np.save(tmp_path / "bad_img_1.npy", array)
    with pytest.raises(UserError, match=message) as error:
        dataset[(0, 1)]
    assert str(tmp_path / "bad_img_1.npy") in str(error.value)
    assert "\n" not in str(error.value)
    dataset[(0, 0)]  # the others go on


def test_rounding_beyond_0_1_is_accepted(tmp_path: Path) -> None:
    np.save(tmp_path / "a_img_0.npy", _with(1 + 1e-6) - 1e-6)
    read_pair(tmp_path / "a_img_0.npy")


def _truncated(path: Path) -> None:
    content = write_pair(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _objects(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps([1, 2]))


def _archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, GOOD)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2, 10**6, 10**6, 10**3)}
        np.lib.format.write_array_header_1_0(file, header)


BAD_FILES = {
    "missing": (lambda path: None, "No such file"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "truncated": (_truncated, "damaged"),
    "header cut": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'"), "damaged"),
    "empty": (lambda path: path.touch(), "damaged"),
    "no array": (lambda path: path.write_text("not an array"), "damaged"),
    "a broken archive": (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "damaged"),
    "an archive": (_archive, "damaged"),
    "objects": (_objects, "damaged"),
    "a pickle": (_pickle, "damaged"),
    "a huge shape": (_huge, "damaged"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_unreadable_files(tmp_path: Path, case: str) -> None:
    make, message = BAD_FILES[case]
    path = tmp_path / "bad_img_0.npy"
    make(path)
    with pytest.raises(UserError, match=message) as error:
        read_pair(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_file_is_looked_at_when_the_data_set_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no LUNA16 pairs"):
        LunaPairs([], seed=0)
    with pytest.raises(UserError, match="No such file"):
        LunaPairs([tmp_path / "a_img_0.npy"], seed=0)
    with pytest.raises(UserError, match=r"too small to augment.*14 voxels"):
        LunaPairs([write_pair(tmp_path / "a_img_0.npy", (16, 16, 8))], seed=0)


# --- which files
