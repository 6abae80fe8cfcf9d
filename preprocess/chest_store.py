"""Decode X-rays once, into a store that training reads instead of the image files.

The store holds all images below --data (or those of --train_list), at full size or reduced to --size. For the
112,120 images of ChestX-ray14 it needs 118 GB, and a quarter of that with --size 512. At full size, training gets
bit-identical samples from the store and from the files. The same command continues an interrupted run.

Exit status: 0; 1 if an image could not be read; 2 if the options are wrong or the disk has too little space.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # run as a script, from any folder: imports start at the project's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.requirements import say_missing_packages

    say_missing_packages()

import numpy as np
from PIL import Image

from datasets.xray.files import ALL_IMAGES, NIH_LIST, TEST_LIST, TRAIN_LIST, VALID_LIST, Images, find_chest
from datasets.xray.images import read_image
from datasets.xray.store import DESCRIPTION, FORMAT, IMAGES_PER_SHARD, is_store, read_index, shard_paths
from preprocess.jobs.flags import folders
from preprocess.jobs.hold import holding
from preprocess.jobs.parallel import run_parallel
from utils import json_text
from utils.cli import Parser
from utils.console import say, warn
from utils.cores import available_cores
from utils.errors import UserError, reason, run_cli
from utils.files import atomic_path, write_text
from utils.hashes import hash_of_content
from utils.progress import progress
from utils.text import counted

EXAMPLES = """example:
  python preprocess/chest_store.py --data chest14_data_path --save store_path --size 512
  python main.py --data store_path --n chest --train_list none --ratio 1.0 --output pretrained_model_save_path
"""
SMALLEST = 64  # of --size, as of main.py
SHARD = re.compile(r"shard_\d{5}\.(bin|npy|json)")
SAMPLED = 16  # images that are read to say how large the store will be
KILLED = "a process was killed, most likely because memory ran out: run the command again with fewer --workers"


@dataclass(frozen=True)
class Shard:
    """What a process does at a time: decode ``files`` into the shard of this number."""

    folder: Path
    number: int
    files: tuple[str, ...]
    size: int | None

    def is_done(self) -> bool:
        """Whether it is there, with all its images."""
        index = read_index(self.folder, self.number, len(self.files))
        return index is not None and bool(index[:, 3].all())

    def check_sources(self) -> None:
        """UserError if it was made of other images than the files that are there now; earlier versions do not tell."""
        try:
            former = json_text.parse(source_path(self.folder, self.number).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if not isinstance(former, list) or len(former) != len(self.files):
            return
        for file, (size, time, content) in zip(self.files, former, strict=True):
            status = os.stat(file)
            if (status.st_size, status.st_mtime_ns) != (size, time) and hash_of_content(file) != content:
                raise UserError(
                    f"--save {self.folder} has another image than {file} by that name: of another folder, or as it was "
                    f"before; give another --save, or delete that store"
                )


def source_path(folder: Path, shard: int) -> Path:
    """The file that says which files a shard was made of: size, time of change and hash of the content of each."""
    return folder / f"shard_{shard:05d}.json"


def source_of(file: str) -> tuple[int, int, str]:
    """What is written down of an image's file; of one that cannot be read, nothing that fits later."""
    try:
        status = os.stat(file)
        return status.st_size, status.st_mtime_ns, hash_of_content(file)
    except OSError:
        return -1, -1, ""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the flags; UserError if they are wrong."""
    usage = "chest_store.py --data FOLDER --save FOLDER [flags]"
    parser = Parser(usage=usage, description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--data", metavar="FOLDER", type=Path, help="needed: the images, as for main.py")
    add("--save", metavar="FOLDER", type=Path, help="needed: where the store goes")
    listed = "names the images to take (default: none, for all there are)"
    add("--train_list", metavar="FILE", default=ALL_IMAGES, help=listed)
    size = "reduce images so that their shorter side is this long (default: as they are)"
    add("--size", metavar="PIXELS", type=int, help=size)
    add("--workers", metavar="N", type=int, default=available_cores(), help="processes (default: one per core)")
    flags = parser.parse(argv)
    folders(flags, "data", "save")
    if flags.size is not None and flags.size < SMALLEST:
        raise UserError(f"--size {flags.size}: it must be at least {SMALLEST}")
    if flags.workers < 1:
        raise UserError(f"--workers {flags.workers}: it must be at least 1")
    if is_store(flags.data):
        raise UserError(f"--data {flags.data} is a store already; give the folder of the image files")
    if flags.save.resolve() in (flags.data.resolve(), *flags.data.resolve().parents):
        raise UserError(f"--save {flags.save} holds the images themselves; give another folder")
    return flags


def describe(flags: argparse.Namespace, files: list[str]) -> str:
    """What ``store.json`` says of these images; UserError if ``--save`` has another store."""
    names = {file: path for path, file in Images(flags.data).files.items()}
    description = json.dumps({"format": FORMAT, "size": flags.size, "names": [names[file] for file in files]})
    if is_store(flags.save):
        former = (flags.save / DESCRIPTION).read_text(encoding="utf-8")
        if former != description:
            raise UserError(f"--save {flags.save}: {difference(former, description)}; give another folder")
    return description


def difference(former: str, wanted: str) -> str:
    """What a store that is there differs in from the wanted one, by their descriptions."""
    now = json.loads(wanted)
    try:
        then = json_text.parse(former)
        size, names, version = then["size"], set(then["names"]), then["format"]
    except (ValueError, KeyError, TypeError):
        return f"its {DESCRIPTION} does not describe a store"
    words = [f"format {version}, not {now['format']}"] * (version != now["format"])
    if size != now["size"]:
        words.append(f"--size {size or 'none'}, not {now['size'] or 'none'}")
    gone, new = len(names - set(now["names"])), len(set(now["names"]) - names)
    if gone or new:
        words.append(
            f"the store has {counted(gone, 'image')} that {'is' if gone == 1 else 'are'} not selected now, and lacks "
            f"{new} that {'is' if new == 1 else 'are'}"
        )
    return f"it holds another store: {'; '.join(words) or 'its images are in another order'}"


def remove_shards(save: Path) -> None:
    """Remove the shards of a store whose description is gone: they may be of another --size. Says so."""
    shards = [path for path in save.iterdir() if SHARD.fullmatch(path.name) and path.is_file()]
    if shards:
        say(f"{save} has shards but no {DESCRIPTION}: they are made anew")
    for path in shards:
        path.unlink()


def begin(flags: argparse.Namespace, description: str) -> None:
    """Make the folder. The lists that ``main.py`` finds in ``--data`` go along if all images do."""
    for name in (TRAIN_LIST, NIH_LIST, VALID_LIST, TEST_LIST):
        if flags.train_list == ALL_IMAGES and (flags.data / name).is_file():
            shutil.copyfile(flags.data / name, flags.save / name)
        elif (flags.save / name).is_file() and not (flags.data / name).is_file():
            warn(f"{flags.save} holds {name}, and {flags.data} does not: main.py will use it; remove it if it is old")
    write_text(flags.save / DESCRIPTION, description)


def announce(files: list[str], remaining: int, flags: argparse.Namespace) -> None:
    """Say how large the store will be, from a sample of the images; UserError if there is no room for it."""
    sample = [read_or_none(file, flags.size) for file in files[:: -(-len(files) // SAMPLED)]]
    sizes = [pixels.nbytes for pixels in sample if pixels is not None]
    if not sizes:
        raise UserError(f"--data {flags.data}: none of {len(sample)} images that were tried can be read")
    there = next(folder for folder in (flags.save, *flags.save.absolute().parents) if folder.exists())
    each, free = sum(sizes) / len(sizes), shutil.disk_usage(there).free
    say(
        f"{counted(len(files), 'image')}: a store of about {size_text(len(files) * each)}; "
        f"{size_text(remaining * each)} to be written, {size_text(free)} free in {flags.save}"
    )
    if remaining * each > free:
        raise UserError(f"--save {flags.save} has too little room; reduce the images with --size, or free some")


def size_text(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.3g} GB" if count > 1e8 else f"{count / 1e6:.3g} MB"


def read_or_none(file: str, size: int | None) -> np.ndarray | None:
    """The image, reduced; None if it cannot be read."""
    try:
        return reduce(read_image(file), size)
    except UserError:
        return None


def reduce(pixels: np.ndarray, size: int | None) -> np.ndarray:
    """The image with its shorter side reduced to ``size``, bilinearly with anti-aliasing; never enlarged."""
    height, width = pixels.shape[:2]
    if size is None or min(height, width) <= size:
        return pixels
    scale = size / min(height, width)
    shape = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(shape, Image.Resampling.BILINEAR))


def write_shard(shard: Shard) -> list[str]:
    """Decode a shard's images and write it; returns what is wrong with those that cannot be read."""
    pixels_path, index_path = shard_paths(shard.folder, shard.number)
    write_text(source_path(shard.folder, shard.number), json.dumps([source_of(file) for file in shard.files]))
    index = np.zeros((len(shard.files), 4), np.int64)
    problems = []
    with atomic_path(pixels_path) as temporary, open(temporary, "wb") as file:
        for entry, path in zip(index, shard.files, strict=True):
            entry[0] = file.tell()
            try:
                pixels = reduce(read_image(path), shard.size)
            except UserError as error:
                problems.append(str(error))
                continue
            entry[1:] = *pixels.shape[:2], 1 if pixels.ndim == 2 else 3
            file.write(pixels.tobytes())
    with atomic_path(index_path) as temporary, open(temporary, "wb") as file:
        np.save(file, index)
    return problems


def fill(shards: list[Shard], workers: int) -> list[str]:
    """Write the shards, in ``workers`` processes; returns what is wrong with images that are left out."""
    problems: list[str] = []
    with progress(sum(len(shard.files) for shard in shards), "image") as bar:
        for shard, result in run_parallel(write_shard, shards, min(workers, len(shards))):
            if result is None:
                raise UserError(KILLED)
            problems += result
            bar.update(len(shard.files))
    return problems


def command(flags: argparse.Namespace) -> str:
    """What pre-trains on the store: with the list given or the one that main.py takes, if all its images are there."""
    given = None if flags.train_list == ALL_IMAGES else flags.train_list
    chosen = given
    try:
        find_chest(flags.save, given)
    except UserError:
        chosen = ALL_IMAGES
    listed = f" --train_list {shlex.quote(chosen)}" if chosen else ""
    return f"python main.py --data {shlex.quote(str(flags.save))} --n chest{listed} --ratio 1.0 --output my_run"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    flags = parse(argv)
    files = list(dict.fromkeys(find_chest(flags.data, flags.train_list)))  # a list may name an image twice
    parts = [tuple(files[start : start + IMAGES_PER_SHARD]) for start in range(0, len(files), IMAGES_PER_SHARD)]
    shards = [Shard(flags.save, number, part, flags.size) for number, part in enumerate(parts)]
    try:
        with holding(flags.save):
            description = describe(flags, files)
            begun = is_store(flags.save)
            done = [shard for shard in shards if begun and shard.is_done()]
            for shard in done:
                shard.check_sources()
            remaining = [shard for shard in shards if shard not in done]
            announce(files, sum(len(shard.files) for shard in remaining), flags)
            if not begun:
                remove_shards(flags.save)
            begin(flags, description)
            problems = fill(remaining, flags.workers)
    except OSError as error:
        raise UserError(f"--save {flags.save}: {reason(error)}") from error
    for problem in problems:
        say(f"left out: {problem}")
    made = len(files) - len(problems)
    say(f"{counted(made, 'image is', 'images are')} in {flags.save}; to pre-train on them: {command(flags)}")
    return 1 if problems else 0


if __name__ == "__main__":
    run_cli(main)
