"""Which X-rays to train on: the images there are under ``--data``, and the list that names some of them.

Free of torch. Each folder is read once, and no listed file is opened or even looked up by itself: 112,120
listed images take 0.4 s.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from datasets.layout import CROP, GLOBAL, PAIR, SCANS
from datasets.xray.folders import (
    BESIDE,
    IMAGE,
    NOTHING,
    SEVERAL,
    SLICE,
    files_below,
    files_beside,
    kind,
    roots,
    shows_a_mask,
)
from datasets.xray.images import SUFFIXES
from datasets.xray.lists import first_part, read_list
from datasets.xray.store import Store, is_store
from utils.console import say, warn
from utils.errors import UserError, reason
from utils.progress import waiting
from utils.text import counted

ALL_IMAGES = "none"  # --train_list none: no list
TRAIN_LIST, NIH_LIST = "chest_train.txt", "train_val_list.txt"
VALID_LIST, TEST_LIST = "chest_valid.txt", "chest_test.txt"
REMEDY = "name your own list with --train_list FILE, or take all that are there with --train_list none"
PROJECT_LIST = Path(__file__).resolve().parents[2] / "train_val_txt" / "chest_train.txt"
SEPARATOR = re.compile(r"[/\\]")  # Windows has the other one
_said: set[tuple[Path, str]] = set()  # what is said once a process


def find_chest(data: Path, train_list: str | None = None, ratio: float = 1.0) -> list[str]:
    """The paths of the training images, in the order of their list, the first ``int(ratio * N)`` of its lines.

    ``data``: a folder with ``images/``, or with NIH's ``images_001/images`` and so on, or with the images
    themselves, in subfolders or not; or a store that ``preprocess/chest_store.py`` made of one of these. The
    list is ``train_list``; or, if that is None, ``chest_train.txt`` or NIH's ``train_val_list.txt`` in ``data``; or
    the project's own. ``"none"`` stands for all images there are, sorted by their path, without those that this
    project draws itself, masks, and DICOM objects without an image. A list has file names, or paths below the images'
    folder.

    Raises UserError if there are no images, if listed ones are missing, or if ``ratio`` leaves none.
    """
    images = Images(data)
    if train_list == ALL_IMAGES:
        paths = images.all()
        return paths[: first_part(len(paths), ratio, str(data))]
    path = training_list(data, train_list)
    if train_list is None and path.name == NIH_LIST and (data, NIH_LIST) not in _said:
        _said.add((data, NIH_LIST))
        say(f"training list: {path}, NIH's own; for this project's give --train_list {PROJECT_LIST}")
    names = read_list(path).names
    return images.named(names[: first_part(len(names), ratio, str(path))], path)


def listed(data: Path, train_list: str | None) -> int:
    """How many images the list of :func:`find_chest` has, whatever the ratio."""
    if train_list == ALL_IMAGES:
        return len(Images(data).all())
    return len(read_list(training_list(data, train_list)).names)


def training_list(data: Path, train_list: str | None) -> Path:
    """The list to train on: the one named, or one in ``data``, or the project's own."""
    if train_list is not None:
        return Path(train_list)
    there = (data / name for name in (TRAIN_LIST, NIH_LIST))
    return next((path for path in there if os.path.lexists(path)), PROJECT_LIST)


class HoldsOthers(UserError):
    """A folder has the files of another command. ``what``: they are, in words."""

    def __init__(self, line: str, what: str) -> None:
        super().__init__(line)
        self.what = what


class Images:
    """The images of a folder: ``files`` has their paths, by their paths below the folder of images."""

    def __init__(self, data: Path) -> None:
        self.data = data
        if not data.is_dir():
            raise UserError(f"--data {data}: " + ("this is not a folder" if data.exists() else "no such folder"))
        self.stored = is_store(data)
        self.files: dict[str, str]  # strings: to make 112,120 Path objects takes longer than all the rest
        try:
            if self.stored:
                self.files = {name: os.path.join(data, name) for name in Store(data).names}
            else:
                with waiting(f"looking for images in {data}"):
                    self.files = files_below(data)
        except OSError as error:
            raise UserError(f"--data {data}: {error.filename} cannot be read: {reason(error)}") from error

    def all(self) -> list[str]:
        """All images, sorted by their path below the folder of images. Says what it passes over."""
        found: dict[str, list[str]] = {}
        slices: list[str] = []
        with waiting(f"looking at the images in {self.data}"):  # of DICOM at what they are
            for path, file in sorted(self.files.items()):
                what = IMAGE if self.stored else kind(path, file)
                slices += [file] * (what == SLICE)
                found.setdefault(IMAGE if what == SLICE else what, []).append(file)
        images = found.pop(IMAGE, [])
        found.pop(NOTHING, None)
        passed_over = [_some(files, what) for what, files in sorted(found.items())]
        count, others, _ = self._others()
        if not images or len(images) < count:  # among pairs of crops may lie a picture, their preview
            raise self._none(", ".join(passed_over))
        passed_over += [f"{counted(count, 'file')} of {others}"] * (count > 0)
        beside, are_all = self._beside()
        passed_over += ["at least " * (not are_all) + _some(beside, BESIDE)] if beside else []
        self._tell(say, f"passed over in {self.data}: {', '.join(passed_over)}" * bool(passed_over))
        self._tell(
            warn,
            f"{_some(slices, SLICE)} in {self.data} will be used like X-rays" if slices else "",
        )
        return images

    def _beside(self) -> tuple[list[str], bool]:
        with waiting(f"looking for images in {self.data}"):
            try:
                return ([], True) if self.stored else files_beside(self.data)
            except OSError:  # of a folder that nobody asked for
                return [], True

    def _tell(self, how: Callable[[str], None], line: str) -> None:
        """Once a process."""
        if line and (self.data, line) not in _said:
            _said.add((self.data, line))
            how(line)

    def named(self, names: list[str], source: Path, remedy: str = REMEDY, part: str = "") -> list[str]:
        """The images of these names or paths; for messages, ``source`` is the list they are from, and ``part`` of it.

        A path may be below the folder of images, below ``--data`` or the folder that it is in, or absolute.
        """
        unknown = {name for name in names if name not in self.files}
        located = self._located(unknown)
        places = self._places(unknown - set(located))
        missing = [name for name in names if name in unknown and name not in located and name not in places]
        if len(missing) == len(names):
            images = sum(path.lower().endswith(SUFFIXES) for path in self.files)
            if images <= self._others()[0]:
                raise self._none()
        if missing:
            there = f" (an image there: {min(self.files)})" if self.files else ""
            where = (f" in its {part} part" if part else "") + (" is" if len(missing) == 1 else " are")
            raise UserError(
                f"{len(missing)} of the {counted(len(names), 'image')} that {source} names{where} not in {self.data}: "
                f"{', '.join(map(_in_a_line, missing[:3]))}{', ...' if len(missing) > 3 else ''}{there}; "
                f"complete the images, {remedy}"
            )
        for name, files in places.items():
            if len(files) > 1:
                raise UserError(f"{source}: {name} is ambiguous: {files[0]} or {files[1]}; write its path in the list")
        found = located | {name: files[0] for name, files in places.items()}
        files = [self.files[name] if name in self.files else found[name] for name in names]
        if repeated := len(files) - len(set(files)):
            warn(
                f"the list {source} has {counted(repeated, 'repeated image')} (the first: {_first_repeated(files)}); "
                "an image counts as often as it is listed"
            )
        return files

    def _located(self, names: set[str]) -> dict[str, str]:
        """The files that these paths lead to, over links or not: from ``--data``, the folder it is in, or here."""
        paths = {name: name.replace("\\", "/") for name in names if SEPARATOR.search(name) and "\0" not in name}
        if not paths:
            return {}
        real = lru_cache(maxsize=None)(os.path.realpath)
        bases = (*roots(self.data), self.data, self.data.absolute().parent, Path())
        split = (file.rpartition("/") for file in self.files.values())
        files = {f"{real(folder)}/{name}": f"{folder}/{name}" for folder, _, name in split}
        located: dict[str, str] = {}
        for name, path in paths.items():
            folder, _, last = path.rpartition("/")
            for base in bases:
                file = files.get(f"{real(os.path.join(base, folder or '/'))}/{last}")
                if file is None and self.stored and base == self.data:  # whose paths are below the folder of images
                    file = self.files.get(path.removeprefix("images/"))
                if file is not None:
                    located.setdefault(name, file)
        return located

    def _places(self, names: set[str]) -> dict[str, list[str]]:
        """The files in subfolders that have these names, and are no masks of those that do.

        Blanks at the ends of names do not count where there is no other file, nor how an accent is put together, nor a
        suffix that the names do not have: tables have 000c3a3f293f for 000c3a3f293f.dicom.
        """
        if not names:
            return {}
        wanted = {name: _plain(name) for name in names}
        found: dict[str, list[tuple[str, str]]] = {form: [] for form in wanted.values()}
        for path, file in self.files.items():
            forms = {_plain(path), _plain(path.rpartition("/")[2])}
            if path.lower().endswith(SUFFIXES):
                forms |= {form.rpartition(".")[0] for form in forms}
            for form in forms & found.keys():
                found[form].append((path, file))
        places: dict[str, list[str]] = {}
        for name, form in wanted.items():
            candidates = [(path, file) for path, file in found[form] if not shows_a_mask(path)] or found[form]
            exact = [file for path, file in candidates if path.rpartition("/")[2] == name]
            if candidates:
                places[name] = exact or [file for _, file in candidates]
        return places

    def _others(self) -> tuple[int, str, str]:
        """How many files belong to another command, what they are, and which it is."""
        names = [path.rpartition("/")[2] for path in self.files if not (path.endswith(SCANS) and shows_a_mask(path))]
        pairs, pairs_v2, crops = ([name for name in names if kind.fullmatch(name)] for kind in (PAIR, GLOBAL, CROP))
        scans = [name for name in names if name.lower().endswith(SCANS)]
        make = f"python preprocess/luna_pre.py --data {self.data} --save my_pairs"
        kinds = (
            (pairs, "pairs of CT or MR crops", "for these add --n luna"),
            (pairs_v2, "pairs of CT or MR crops", "for these add --n luna --model pcrlv2"),
            (crops, "CT crops", "for these add --n nodules, with --phase finetune, linear or knn"),
            (scans, "CT or MR scans", f"make pairs of them, {make}, and train on those with --n luna"),
        )
        found, what, remedy = max(kinds, key=lambda kind: len(kind[0]))
        return len(found), f"{what} ({found[0]})" if found else "", remedy

    def _none(self, passed_over: str = "") -> UserError:
        _, others, remedy = self._others()
        if others:
            return HoldsOthers(f"--data {self.data} holds {others}: {remedy}", others)
        if passed_over:
            return UserError(
                f"--data {self.data} holds nothing but {passed_over}; to take some, name them by --train_list FILE"
            )
        return UserError(
            f"--data {self.data} holds no images ({', '.join(SUFFIXES)}), "
            "neither in images/ nor in images_001/images and so on, nor in itself"
        )


def _some(files: Sequence[str], what: str) -> str:
    return f"{counted(len(files), what, SEVERAL[what])} ({files[0]}{', ...' if len(files) > 1 else ''})"


def _in_a_line(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _first_repeated(files: list[str]) -> str:
    return next(file for file, count in Counter(files).items() if count > 1)
