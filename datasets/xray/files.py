"""Which X-rays to train on: the images there are under ``--data``, and the list that names some of them.

Free of torch. Each folder is read once, and no file is opened or even looked up by itself: 112,120
listed images take 0.4 s.
"""

from __future__ import annotations

import os
from pathlib import Path

from datasets.layout import CROP, PAIR, SCANS
from datasets.xray.dicom_objects import is_dicom
from datasets.xray.images import PICTURES, SUFFIXES
from datasets.xray.lists import first_part, read_list
from datasets.xray.store import Store, is_store
from utils.errors import UserError, reason
from utils.text import counted

ALL_IMAGES = "none"  # --train_list none: no list
LISTS_IN_DATA = ("chest_train.txt", "train_val_list.txt")  # the second is NIH's own
REMEDY = "name your own list with --train_list FILE, or take all that are there with --train_list none"
PROJECT_LIST = Path(__file__).resolve().parents[2] / "train_val_txt" / "chest_train.txt"


def find_chest(data: Path, train_list: str | None = None, ratio: float = 1.0) -> list[str]:
    """The paths of the training images, in the order of their list, the first ``int(ratio * N)`` of its lines.

    ``data``: a folder with ``images/``, or with NIH's ``images_001/images`` and so on, or with the images
    themselves, in subfolders or not; or a store that ``preprocess/chest_store.py`` made of one of these. The
    list is ``train_list``; or, if that is None, ``chest_train.txt`` or ``train_val_list.txt`` in ``data``; or
    the project's own. ``"none"`` stands for all images there are, sorted by their path, without those that this
    project draws itself. A list has file names, or paths below the images' folder.

    Raises UserError if there are no images, if listed ones are missing, or if ``ratio`` leaves none.
    """
    images = Images(data)
    if train_list == ALL_IMAGES:
        paths = images.all()
        return paths[: first_part(len(paths), ratio, str(data))]
    path = training_list(data, train_list)
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
    return next((data / name for name in LISTS_IN_DATA if os.path.lexists(data / name)), PROJECT_LIST)


class Images:
    """The images of a folder: ``files`` has their paths, by their paths below the folder of images."""

    def __init__(self, data: Path) -> None:
        self.data = data
        if not data.is_dir():
            raise UserError(f"--data {data}: " + ("this is not a folder" if data.exists() else "no such folder"))
        self.stored = is_store(data)
        self.files: dict[str, str] = {}  # strings: to make 112,120 Path objects takes longer than all the rest
        try:
            if self.stored:
                self.files = {name: os.path.join(data, name) for name in Store(data).names}
            else:
                for root in _roots(data):
                    _collect(str(root), "", set(), self.files)
        except OSError as error:
            raise UserError(f"--data {data}: {error.filename} cannot be read: {reason(error)}") from error

    def all(self) -> list[str]:
        """All images, sorted by their path below the folder of images."""
        images = [file for path, file in sorted(self.files.items()) if self.stored or _is_image(path, file)]
        if not images or len(images) < self._others()[0]:  # among pairs of crops may lie a picture, their preview
            raise UserError(self._none())
        return images

    def named(self, names: list[str], source: Path, remedy: str = REMEDY) -> list[str]:
        """The images of these names or paths; ``source`` is the list they are from, for messages."""
        unknown = [name for name in names if name not in self.files]
        places = self._places(set(unknown))
        missing = [name for name in unknown if name not in places]
        if len(missing) == len(names):
            images = sum(path.lower().endswith(SUFFIXES) for path in self.files)
            if images <= self._others()[0]:
                raise UserError(self._none())
        if missing:
            raise UserError(
                f"{len(missing)} of the {counted(len(names), 'image')} that {source} names are not in {self.data}: "
                f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}; complete the images, "
                f"{remedy}"
            )
        for name, files in places.items():
            if len(files) > 1:
                raise UserError(f"{source}: {name} is there twice, as {files[0]} and {files[1]}; list it by its path")
        return [self.files[name] if name in self.files else places[name][0] for name in names]

    def _places(self, names: set[str]) -> dict[str, list[str]]:
        """The files in subfolders that have these names."""
        places: dict[str, list[str]] = {}
        for path, file in self.files.items() if names else ():
            name = path.rpartition("/")[2]
            if name in names:
                places.setdefault(name, []).append(file)
        return places

    def _others(self) -> tuple[int, str]:
        """How many files belong to another command, and what they are and which it is."""
        names = [path.rpartition("/")[2] for path in self.files]
        pairs, crops = ([name for name in names if kind.fullmatch(name)] for kind in (PAIR, CROP))
        scans = [name for name in names if name.lower().endswith(SCANS)]
        make = f"python preprocess/luna_pre.py --data {self.data} --save my_pairs"
        kinds = (
            (pairs, "pairs of CT or MR crops", "for these add --n luna"),
            (crops, "CT crops", "for these add --n nodules, with --phase finetune, linear or knn"),
            (scans, "CT or MR scans", f"make pairs of them, {make}, and train on those with --n luna"),
        )
        found, what, remedy = max(kinds, key=lambda kind: len(kind[0]))
        return len(found), f"{what} ({found[0]}): {remedy}" if found else ""

    def _none(self) -> str:
        if others := self._others()[1]:
            return f"--data {self.data} holds {others}"
        return (
            f"--data {self.data} holds no images ({', '.join(SUFFIXES)}), "
            "neither in images/ nor in images_001/images and so on, nor in itself"
        )


def _roots(data: Path) -> list[Path]:
    """The folders of images: ``images``, or all ``images_*/images``, or else ``data`` itself."""
    if (data / "images").is_dir():
        return [data / "images"]
    return sorted(folder for folder in data.glob("images_*/images") if folder.is_dir()) or [data]


def _collect(folder: str, prefix: str, above: set[str], files: dict[str, str]) -> None:
    """Add the files in a folder and those below: path below the root -> path. Hidden ones do not count.

    ``above``: the real paths of the folders on the way here, where a symbolic link may lead back.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if not name.lower().endswith(SUFFIXES) and entry.is_dir():
                _collect(entry.path, f"{prefix}{name}/", above | {real}, files)
            else:
                files[prefix + name] = entry.path


def _is_image(path: str, file: str) -> bool:
    """Whether a file is an image, by its suffix or, since DICOM files often have none, by its first bytes."""
    name = path.rpartition("/")[2]
    if name == "DICOMDIR" or name in PICTURES:  # the first is a table of contents, of the same format as images
        return False
    if path.lower().endswith(SUFFIXES):
        return True
    with open(file, "rb") as opened:
        return is_dicom(opened.read(132))
