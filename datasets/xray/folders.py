"""The files below a folder of X-rays, and which of them are X-rays: by their names, DICOM by its first bytes too."""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from pathlib import Path

from datasets.layout import not_the_users
from datasets.xray.dicom_objects import HEAD, has_no_image, is_dicom, is_slice, sop_class
from datasets.xray.images import DICOM_SUFFIXES, PICTURES, RECONSTRUCTIONS, SUFFIXES

OTHER_SUFFIXES = (".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".heic")  # of images that are not read
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
MASKS = {"mask", "masks", "seg", "segs", "segmentation", "segmentations"}
FOLDERS_OF_MASKS = {*MASKS, "labels", "groundtruth"}

LOOKED_AT = 2000  # files beside the folders of images
BESIDE = "image outside of images/"
IMAGE, SLICE, NOTHING = "image", "slice of CT, MR or PET", ""
MASK, OBJECT, OTHER = "mask", "DICOM file without an image of the body", "image of a kind that is not read"
SEVERAL = {
    MASK: "masks",
    OBJECT: "DICOM files without an image of the body",
    OTHER: "images of kinds that are not read",
    SLICE: "slices of CT, MR or PET",
    BESIDE: "images outside of images/",
}


def roots(data: Path) -> list[Path]:
    """The folders of images: ``images``, or all ``images_*/images``, or else ``data`` itself."""
    if (data / "images").is_dir():
        return [data / "images"]
    return sorted(folder for folder in data.glob("images_*/images") if folder.is_dir()) or [data]


def files_below(data: Path) -> dict[str, str]:
    """The files in the folders of images and below: path below that folder -> path. OSError if one cannot be read.

    Where two of these folders have a file of the same path, all paths are those below ``data``.
    """
    seen: set[str] = set()
    found = {root: _collect(str(root), seen) for root in roots(data)}
    files = {path: file for each in found.values() for path, file in each.items()}
    if len(files) < sum(map(len, found.values())):
        return {f"{root.relative_to(data)}/{path}": file for root, each in found.items() for path, file in each.items()}
    return files


def files_beside(data: Path) -> tuple[list[str], bool]:
    """Images below ``data`` that are in no folder of images, where there are such folders; and whether these are all.

    Not all files are looked at where there are very many. OSError as above.
    """
    own = roots(data)
    if own == [data]:
        return [], True
    seen = {os.path.realpath(root) for root in own}
    files = _collect(str(data), seen, LOOKED_AT)
    return sorted(file for path, file in files.items() if kind(path, file) in (IMAGE, SLICE)), len(files) < LOOKED_AT


def _collect(root: str, seen: set[str], most: int = sys.maxsize) -> dict[str, str]:
    """The files of one folder of images. Hidden ones do not count, nor what is neither a file nor a folder.

    Symbolic links to folders are followed, after all folders proper, and each folder is read once: ``seen`` has the
    real paths of those that were. It ends with the folder that has the ``most``-th file. Links with the suffix of an
    image are images; whether they lead somewhere, their reader will find.
    """
    files: dict[str, str] = {}
    folders, links = [(root, os.path.realpath(root), "")], list[tuple[str, str, str]]()
    while (folders or links) and len(files) < most:
        if not folders:
            links.sort(reverse=True)
            folders.append(links.pop())
        folder, real, prefix = folders.pop()
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if not_the_users(name):
                    continue
                path = prefix + name
                if not entry.is_symlink():
                    if entry.is_dir():
                        folders.append((entry.path, os.path.join(real, name), f"{path}/"))
                    elif entry.is_file():
                        files[path] = entry.path
                elif name.lower().endswith(SUFFIXES) or os.path.isfile(entry.path):
                    files[path] = entry.path
                elif os.path.isdir(entry.path):
                    links.append((entry.path, os.path.realpath(entry.path), f"{path}/"))
    return files


def kind(path: str, file: str) -> str:
    """IMAGE or SLICE; or what is passed over: MASK, OBJECT or OTHER; or NOTHING, of what needs no word.

    ``path``: below the folder of images. Only DICOM files are opened, and those whose suffix says nothing.
    """
    name = path.rpartition("/")[2]
    suffix = name.lower().endswith
    if name in PICTURES or RECONSTRUCTIONS.fullmatch(path):
        return NOTHING
    if suffix((*SUFFIXES, *OTHER_SUFFIXES)) and shows_a_mask(path):
        return MASK
    if suffix(OTHER_SUFFIXES):
        return OTHER
    if suffix(SUFFIXES) and not suffix(DICOM_SUFFIXES):
        return IMAGE
    try:
        with open(file, "rb") as opened:
            head = opened.read(HEAD)
    except OSError:  # an image that cannot be read is named when its turn comes
        head = b""
    if not is_dicom(head):
        return IMAGE if suffix(DICOM_SUFFIXES) else NOTHING
    uid = sop_class(head)
    if name == "DICOMDIR" or has_no_image(uid):
        return OBJECT
    return MASK if shows_a_mask(path) else SLICE if is_slice(uid) else IMAGE


def shows_a_mask(path: str) -> bool:
    """Whether a path names a mask: by a folder in it (``masks``, ``ManualMask``), or at its end (``a_mask.png``)."""
    folder, _, name = path.rpartition("/")
    words = _words(name.rpartition(".")[0] or name)
    return (len(words) > 1 and words[-1] in MASKS) or _is_of_masks(folder)


@lru_cache(maxsize=100_000)
def _is_of_masks(folder: str) -> bool:
    words = [_words(part) for part in folder.split("/")]
    return any(not FOLDERS_OF_MASKS.isdisjoint(each) or each == ["ground", "truth"] for each in words)


def _words(name: str) -> list[str]:
    return [word.lower() for word in WORD.findall(name)]
