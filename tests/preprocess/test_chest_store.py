"""The store of decoded X-rays: the same samples as from the files, whatever happened while it was made."""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import subprocess
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.xray.chest import ChestPairs, find_chest
from datasets.xray.images import read_image
from datasets.xray.store import IMAGES_PER_SHARD, Store
from options import Options
from options.command_line import parse_options
from preprocess import chest_store
from preprocess.jobs.hold import holding
from tests.conftest import run_preprocess, write_xrays
from utils.errors import UserError

COUNT = IMAGES_PER_SHARD + 5


run = partial(run_preprocess, "chest_store")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More images than fit into a shard: grey, some of 16 bits, one in colour, one as JPEG, in many shapes."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT - 2):
        shape = tuple(rng.integers(30, 60, 2))
        deep = number % 10 == 3
        pixels = rng.integers(0, 60_000 if deep else 256, shape, dtype=np.uint16 if deep else np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:08d}_000.png")
    Image.fromarray(rng.integers(0, 256, (300, 260), dtype=np.uint8)).save(folder / "images" / "large.jpg")
    Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(folder / "images" / "colour.png")
    (folder / "chest_train.txt").write_text("colour.png 1\n00000004_000.png 0\nlarge.jpg 0\n00000003_000.png 1\n")
    return folder


@pytest.fixture(scope="module")
def store(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "store"
    result = run("--data", images, "--save", folder, "--workers", 2)
    assert result.returncode == 0, result.stderr
    assert f"{COUNT} images: a store of about " in result.stdout
    assert result.stdout.index("MB to be written") < result.stdout.index(f"{COUNT} images are in {folder}; ")
    return folder


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy"))


@pytest.mark.parametrize("train_list", [None, "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_those_from_the_files_to_the_bit(
    images: Path, store: Path, train_list: str | None, channels: int
) -> None:
    files, stored = find_chest(images, train_list), find_chest(store, train_list)
    assert [os.path.basename(path) for path in files] == [os.path.basename(path) for path in stored]
    assert len(files) == (COUNT if train_list else 4)
    from_files, from_store = ChestPairs(files, 3, channels, 64), ChestPairs(stored, 3, channels, 64)
    for index in range(0, len(files), 1 if train_list is None else 7):
        one, other = from_files[(1, index)], from_store[(1, index)]
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_pixels_are_mapped_not_read(images: Path, store: Path) -> None:
    opened = Store(store)
    assert len(opened.names) == COUNT
    for name in ("00000003_000.png", "colour.png", f"{COUNT - 3:08d}_000.png"):
        pixels = opened.read(str(store / name))
        assert not pixels.flags.owndata
        assert not pixels.flags.writeable
        np.testing.assert_array_equal(pixels, read_image(images / "images" / name))


def test_another_process_maps_the_store_itself(store: Path) -> None:
    pairs = ChestPairs(find_chest(store, "none"), 0, size=32)
    sample = pairs[(0, 0)]
    sent = pickle.dumps(pairs)
    assert len(sent) < 200 * COUNT
    assert torch.equal(pickle.loads(sent)[(0, 0)]["mask1"], sample["mask1"])


def test_a_second_run_does_only_what_is_missing(images: Path, store: Path, copy: Path) -> None:
    (copy / "shard_00001.npy").unlink()
    os.truncate(copy / "shard_00001.bin", 100)
    (copy / ".shard_00001.bin.999.tmp").write_bytes(b"left by a killed run")
    with pytest.raises(UserError, match=r"is incomplete, at shard_00001\.bin: make it with"):
        find_chest(copy, "none")
    before = (copy / "shard_00000.bin").stat().st_mtime_ns
    result = run("--data", images, "--save", copy, "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert (copy / "shard_00000.bin").stat().st_mtime_ns == before
    assert contents(copy) == contents(store)


def test_shards_without_their_description_are_made_anew(images: Path, copy: Path) -> None:
    """They may be of another --size; and a run that is killed then leaves a description and such shards."""
    (copy / "store.json").unlink()
    before = (copy / "shard_00000.bin").stat().st_ino
    (copy / "shard_00009.bin").write_bytes(b"of a larger store")
    (copy / "shard_000.tar").write_bytes(b"of something else")
    with holding(copy):
        result = run("--data", images, "--save", copy, "--size", 64)
        assert (result.returncode, "is in use by process" in result.stderr) == (2, True)
    assert not (copy / "store.json").exists(), "who does not hold the folder writes nothing there"
    assert run("--data", images, "--save", copy, "--size", 64).returncode == 0
    assert (copy / "shard_00000.bin").stat().st_ino != before
    assert not (copy / "shard_00009.bin").exists()
    assert (copy / "shard_000.tar").read_bytes() == b"of something else"


@pytest.mark.parametrize("damage", ["shard_00000.bin", "shard_00000.npy", "shard_00001.bin", "store.json"])
def test_an_incomplete_store_is_named(copy: Path, damage: str) -> None:
    os.truncate(copy / damage, 50)
    with pytest.raises(UserError, match=r"preprocess/chest_store\.py"):
        find_chest(copy)


def test_lists_of_nih_go_along_and_others_are_asked_of_the_store(images: Path, store: Path, tmp_path: Path) -> None:
    assert (store / "chest_train.txt").read_bytes() == (images / "chest_train.txt").read_bytes()
    data, save = (shutil.copytree(each, tmp_path / each.name) for each in (images, store))
    (data / "chest_train.txt").unlink()
    told = f"warning: {save} holds chest_train.txt, and {data} does not: main.py will use it; remove it if it is old"
    assert told in run("--data", data, "--save", save, cwd=tmp_path).stderr
    (tmp_path / "my.txt").write_text("large.jpg\nabsent.png\n")
    with pytest.raises(UserError, match=r"1 of the 2 images that .*my.txt names is not in .*store: absent.png"):
        find_chest(store, str(tmp_path / "my.txt"))


def test_a_part_of_the_images_at_a_smaller_size(images: Path, tmp_path: Path) -> None:
    result = run(
        "--data", images, "--save", "small", "--size", 224, "--train_list", images / "chest_train.txt", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    opened = Store(tmp_path / "small")
    assert opened.names == ["colour.png", "00000004_000.png", "large.jpg", "00000003_000.png"]
    assert opened.read(str(tmp_path / "small" / "colour.png")).shape == (224, 299, 3)
    large = opened.read(str(tmp_path / "small" / "large.jpg"))
    expected = Image.open(images / "images" / "large.jpg").resize((224, 258), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(large, np.asarray(expected))
    small = read_image(images / "images" / "00000004_000.png")
    np.testing.assert_array_equal(opened.read(str(tmp_path / "small" / "00000004_000.png")), small)
    assert not (tmp_path / "small" / "chest_train.txt").exists()
    result = run("--data", images, "--save", "small", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == (
        "error: --save small: it holds another store: --size 224, not none; the store has 0 images that are not "
        f"selected now, and lacks {COUNT - 4} that are; give another folder\n"
    )


def printed_command(result: subprocess.CompletedProcess[str]) -> Options:
    """What main.py takes the command for that the last line shows."""
    _, _, shown = result.stdout.splitlines()[-1].partition("python main.py ")
    return parse_options(shlex.split(shown))[0]


def test_the_command_that_is_shown_works(tmp_path: Path) -> None:
    data = write_xrays(tmp_path / "my data", count=3)
    mine = tmp_path / "mine.txt"
    mine.write_text("00000002_000.png\n00000001_000.png\n")
    (data / "chest_train.txt").rename(tmp_path / "list.txt")
    for flags, listed, found in (
        ([], "none", 3),
        (["--train_list", mine], str(mine), 2),
    ):
        options = printed_command(run("--data", data, "--save", tmp_path / f"store {found}", *flags))
        assert options.train_list == listed
        assert len(find_chest(Path(options.data), options.train_list, options.ratio)) == found
    (tmp_path / "list.txt").rename(data / "chest_train.txt")  # goes along into the store, where main.py finds it
    options = printed_command(run("--data", data, "--save", tmp_path / "listed"))
    assert options.train_list == ""
    assert len(find_chest(Path(options.data), None, options.ratio)) == 3


def test_an_image_that_cannot_be_read_is_left_out_until_it_can(images: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(images, tmp_path / "data"))
    whole = (data / "images" / "00000001_000.png").read_bytes()
    (data / "images" / "00000001_000.png").write_bytes(whole[:100])
    result = run("--data", data, "--save", tmp_path / "store", "--workers", 1)
    assert result.returncode == 1
    assert f"left out: the image {data}/images/00000001_000.png cannot be decoded" in result.stdout
    assert f"{COUNT - 1} images are in" in result.stdout
    stored = find_chest(tmp_path / "store", "none")
    assert len(stored) == COUNT - 1
    assert not any("00000001_000.png" in path for path in stored)
    (data / "images" / "00000001_000.png").write_bytes(whole)
    assert run("--data", data, "--save", tmp_path / "store", "--workers", 1).returncode == 0
    assert len(find_chest(tmp_path / "store", "none")) == COUNT


def test_dicom_files_without_a_suffix_are_still_images_in_the_store(tmp_path: Path) -> None:
    data = pytest.importorskip("pydicom.data")
    (tmp_path / "data").mkdir()
    shutil.copy(data.get_testdata_file("CT_small.dcm"), tmp_path / "data" / "IM0001")
    assert run("--data", tmp_path / "data", "--save", tmp_path / "store").returncode == 0
    assert find_chest(tmp_path / "store", "none") == [str(tmp_path / "store" / "IM0001")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--save {tmp}/s", "--data"),
        ("--data {data} --save {tmp}/s --siz 300", "unknown argument --siz; did you mean --size?"),
        ("--data {data} --save {tmp}/s --size 40", "--size 40: it must be at least 64"),
        ("--data {data} --save {tmp}/s --workers 0", "--workers 0: it must be at least 1"),
        ("--data {tmp} --save {tmp}/s", "holds no images"),
        ("--data {tmp}/absent --save {tmp}/s", "no such folder"),
        ("--data {data} --save {data}", "holds the images themselves"),
        ("--data {store} --save {tmp}/s", "is a store already"),
        ("--data {data} --save {data}/chest_train.txt/s", "chest_train.txt/s: cannot write there: Not a directory"),
    ],
)
def test_bad_flags_are_one_line_and_nothing_is_written(
    images: Path, store: Path, tmp_path: Path, flags: str, message: str
) -> None:
    result = run(*flags.format(data=images, store=store, tmp=tmp_path).split())
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_too_little_room_is_said_before_the_start(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5000, 5000))
    with pytest.raises(UserError, match=r"has too little room; reduce the images with --size"):
        chest_store.main(["--data", str(images), "--save", str(tmp_path / "store"), "--workers", "1"])
    assert not (tmp_path / "store").exists()
