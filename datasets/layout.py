"""Every name that preprocessing writes and training reads, once; and what others' files are, by their names. No torch.

``FOLDER/subset<k>/<uid>_img_<j>.npy`` are pairs of crops (``preprocess/luna_pre.py``; of its recipe pcrlv2 they are
``<uid>_global_<j>.npy``, with ``<uid>_local_<j>.npy``), ``<uid>_crop_<j>.npy`` labelled crops
(``preprocess/nodule_crops.py``), each with the record of its scan, ``<uid>.json``, beside it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from pathlib import PurePath

PAIR = re.compile(r"(?P<uid>[^.].*)_img_(?P<number>\d+)\.npy", re.DOTALL)
GLOBAL = re.compile(r"(?P<uid>[^.].*)_global_(?P<number>\d+)\.npy", re.DOTALL)  # of the recipe pcrlv2
LOCAL = re.compile(r"(?P<uid>[^.].*)_local_(?P<number>\d+)\.npy", re.DOTALL)  # what goes with them
CROP = re.compile(r"(?P<uid>[^.].*)_crop_(?P<number>\d+)\.npy", re.DOTALL)
SUBSET = re.compile(r"subset(?P<number>\d)")  # LUNA16's folders, and ours
SCANS = (".mhd", ".mha", ".nrrd", ".nii", ".nii.gz")  # what preprocess/luna_pre.py reads, beside DICOM
LABEL_FOLDER = re.compile(  # the Decathlon and nnU-Net, TotalSegmentator, LUNA16, what many call theirs, predictions
    r"labels?(tr|ts|va|val)?|(gt_?|inferred_?)?segmentations?|seg-lungs-luna16|\w*masks?|probabilities", re.IGNORECASE
)
IMAGE_FOLDER = re.compile(r"(image|img|scan|volume)s?(tr|ts|va|val)?|ct|mri?", re.IGNORECASE)
LABELS_ALONE = re.compile(r"labels(tr|ts|va|val)|seg-lungs-luna16", re.IGNORECASE)  # whatever lies in them
LABEL_WORDS = {"label", "labels", "labelmap", "mask", "masks", "seg", "segmentation", "segmentations", "gt"}

SYSTEM_FOLDERS = {  # of network disks and of systems, in the midst of a user's; in lower case
    "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found", "__macosx"
}  # fmt: skip

TRAINING_SUBSETS, HELD_OUT_SUBSETS = range(7), range(7, 10)
TRAINING_LIST = "luna_train.txt"  # the scans to train on, a uid a line
LABELS = "labels.csv"  # all labelled crops
COORDINATES = ("coordX", "coordY", "coordZ")  # as LUNA16 calls them, mm
LABEL_COLUMNS = ("file", "seriesuid", "subset", "label", *COORDINATES)
RECORD = ".json"  # behind the uid
STAMPS = ".stamps.json"  # of the files that crops were cut from, or predictions made of

HEADER = ".mhd"  # published lists have it behind the uid
LONGEST_UID = 226  # bytes: file names end at 255, and writing <uid>_crop_<j>.npy needs a longer one for a moment
HASH_DIGITS = 12
BYTE_ORDER_MARK = "\ufeff"  # at a list's beginning it is no part of the first line


def not_the_users(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or one of the system: nothing that a user has put there."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def subset_folder(subset: int) -> str:
    """The folder of one of LUNA16's ten subsets."""
    return f"subset{subset}"


def pair_name(uid: str, number: int) -> str:
    """The file of one pair of crops."""
    return f"{uid}_img_{number}.npy"


def global_name(uid: str, number: int) -> str:
    """The file of one pair of the recipe pcrlv2."""
    return f"{uid}_global_{number}.npy"


def local_name(uid: str, number: int) -> str:
    """The file of the local crops of one such pair."""
    return f"{uid}_local_{number}.npy"


def crop_name(uid: str, number: int) -> str:
    """The file of one labelled crop."""
    return f"{uid}_crop_{number}.npy"


def record_name(uid: str) -> str:
    """The record of a scan's pairs or crops."""
    return uid + RECORD


def uid_of_record(file: str) -> str:
    """The uid of a record, by its name; "" if it is no record's."""
    return file.removesuffix(RECORD) if file.endswith(RECORD) and not file.startswith(".") else ""


def uid_on_disk(name: str) -> str:
    """The uid of a scan of this name: the name itself, if it can be a file's beginning and a list's line.

    Another one begins alike, without the characters that cannot, and ends with a hash of the whole name.
    """
    text = re.sub("[\n\r\ud800-\udfff]", "_", name)
    if text == name and name.strip() and name[0] not in (".", BYTE_ORDER_MARK) and _size(name) <= LONGEST_UID:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]
    begin = text.strip().lstrip("." + BYTE_ORDER_MARK).encode("utf-8")[: LONGEST_UID - HASH_DIGITS - 1]
    return f"{begin.decode('utf-8', 'ignore') or 'scan'}_{digest}"


def _size(name: str) -> int:
    return len(name.encode("utf-8"))


def uid_of_line(line: str, known: Container[str]) -> str:
    """The uid that a line of a list means: as it stands, else without blanks around it, else without ``.mhd``.

    The first of these that is ``known``; the last one if none is.
    """
    bare = line.strip()
    without = bare.removesuffix(HEADER)
    return next((uid for uid in (line, bare) if uid in known), without)


def scan_suffix(name: str) -> str:
    """The suffix of a scan's file name; "" if it has none of SCANS."""
    return next((suffix for suffix in SCANS if name.lower().endswith(suffix)), "")


def is_label_map(path: PurePath) -> bool:
    """Whether a scan's file, by its path below the data, holds labels or a mask: by a word in its name, or its folders.

    As in labelsTr/liver_0.nii.gz, s0001/segmentations/liver.nii.gz, case_1/segmentation.nii.gz, ManualMask.nrrd. Of
    folders the innermost counts that is known: segmentation/imagesTr/liver_0.nii.gz is none.
    """
    stem = path.name[: len(path.name) - len(scan_suffix(path.name))]
    if LABEL_WORDS & {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", stem)}:
        return True
    for folder in reversed(path.parts[:-1]):
        if IMAGE_FOLDER.fullmatch(folder):
            return False
        if LABEL_FOLDER.fullmatch(folder):
            return True
    return False
