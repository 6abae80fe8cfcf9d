"""DICOM: which object a file holds, where its slices lie, and the numbers of its voxels. Free of torch.

A slice is a file of a classic series or a frame of a multi-frame file; both are told apart nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from datasets import gdcm
from datasets.ct.errors import ScanError

STORAGE = "1.2.840.10008.5.1.4.1.1"
NO_IMAGE = {  # objects that hold no image of the body, by their SOP class or its beginning
    "1.2.840.10008.1.3.10": "DICOMDIR",
    f"{STORAGE}.66.4": "SEG",
    f"{STORAGE}.66.5": "SEG",
    f"{STORAGE}.66.7": "SEG",
    f"{STORAGE}.66": "registration or raw data",
    f"{STORAGE}.481.2": "RTDOSE",
    f"{STORAGE}.481.3": "RTSTRUCT",
    f"{STORAGE}.481": "RT object",
    f"{STORAGE}.88": "SR",
    f"{STORAGE}.11": "PR",
    f"{STORAGE}.9": "waveform",
    f"{STORAGE}.104": "document",
    f"{STORAGE}.4.2": "spectroscopy",
    f"{STORAGE}.67": "value map",
}
MODALITIES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG"}  # the same where the SOP class is missing
FIRST_ELEMENTS = (b"\x02\x00", b"\x08\x00")  # the groups that a file without preamble begins with, little endian
LONGEST = 200  # characters of what a reader says
SPACE = 0.01  # of the pixels' size and the cosines of directions: what differs less is the same
CORNERS = ("ImagePositionPatient", "ImageOrientationPatient")
CT_CLASSES = (f"{STORAGE}.2", f"{STORAGE}.2.1", f"{STORAGE}.2.2")
TIMES = {"FrameTime", "FrameTimeVector"}  # what the frames of a cine loop differ in
VIEWS = (  # what the frames of a scan by a gamma camera may differ in, beside their place
    *("EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector", "RRIntervalVector", "TimeSlotVector"),
    *("AngularViewVector", "TimeSliceVector"),
)


@dataclass(frozen=True)
class Slice:
    """One slice. What its file does not say is None.

    ``size``: columns, rows. ``spacing``: mm between columns, between rows. ``position``: of its first pixel, mm.
    ``orientation``: cosines of a row's direction, then a column's. ``number``: InstanceNumber, or the frame's.
    ``distance``: mm to the next slice. ``rescale``: slope and intercept. ``time``: the number of its time point.
    """

    file: Path
    frame: int
    size: tuple[int, int]
    spacing: tuple[float, ...] | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    number: float | None
    location: float | None
    distance: float | None
    rescale: tuple[float, float] | None
    is_localizer: bool
    time: float | None = None


@dataclass(frozen=True)
class DicomFile:
    """``series``: the SeriesInstanceUID. ``other``: what the file holds if it holds no image of the body."""

    path: Path
    series: str
    other: str
    slices: tuple[Slice, ...] = ()


Given = ParamSpec("Given")
Result = TypeVar("Result")


def _quietly(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Without pydicom's warnings, of which values that break the standard's rules have one each."""

    @wraps(function)
    def call(*given: Given.args, **named: Given.kwargs) -> Result:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*given, **named)

    return call


@_quietly
def is_dicom(file: Path) -> bool:
    """Whether a file looks like DICOM: by its preamble, or by its first elements where it has none; OSError."""
    with file.open("rb") as stream:
        head = stream.read(132)
    if head[128:] == b"DICM":
        return True
    if head[:2] not in FIRST_ELEMENTS or len(head) < 132:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    length = int.from_bytes(head[6:8] if explicit else head[4:8], "little")
    if length > 1024:  # of the first element, which is short
        return False
    try:
        return "SOPClassUID" in pydicom.dcmread(
            file, force=True, specific_tags=["SOPClassUID"], stop_before_pixels=True
        )
    except Exception:  # whatever a file that is no DICOM leads to
        return False


@_quietly
def read_dicom_file(path: Path) -> DicomFile:
    """What a DICOM file says of itself, pixels left aside; ScanError if it cannot be read or is cut short."""
    try:
        with path.open("rb") as stream:
            dataset = _parsed(path, stream, stop_before_pixels=True)
            return _described(path, dataset, stream.tell())
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, NotImplementedError) as error:
        raise _unreadable(path, error) from None


def _described(path: Path, dataset: Dataset, pixels_at: int) -> DicomFile:
    other = _other(dataset)
    if other or not dataset.get("Rows"):
        name = UID(str(dataset.get("SOPClassUID") or "")).name
        if not other and (not name or name.endswith("Image Storage")):
            raise ScanError(f"{path.name} cannot be read: it has no size of an image (Rows)")
        return DicomFile(path, "", other or "object without pixels")
    _check_length(path, dataset, pixels_at)
    if what := _no_slices(dataset):
        return DicomFile(path, "", what)
    slices = tuple(_slices(path, dataset))
    unscaled = any(slice_.rescale is None for slice_ in slices)
    if unscaled and dataset.get("SOPClassUID") in CT_CLASSES and not dataset.get("PixelRepresentation"):
        raise ScanError(f"{path.name} is CT and does not say how its values become HU (RescaleSlope, RescaleIntercept)")
    return DicomFile(path, str(dataset.get("SeriesInstanceUID") or ""), "", slices)


def _no_slices(dataset: Dataset) -> str:
    """What the frames of a file are if they do not lie behind one another; "" if they do."""
    if _frames(dataset) == 1 or dataset.get("PerFrameFunctionalGroupsSequence"):
        return ""
    ordered_by = {keyword_for_tag(tag) for tag in _words(dataset.get("FrameIncrementPointer"))}
    if TIMES & ordered_by and not dataset.get("SpacingBetweenSlices"):
        return "cine loop"
    views = [name for name in VIEWS if len(set(map(str, _words(dataset.get(name))))) > 1]
    return f"scan of several phases or views ({views[0]})" if views else ""


@_quietly
def read_stored(path: Path) -> np.ndarray:
    """The numbers in a file as they are stored, (frames, rows, columns), without slope and intercept."""
    dataset = _parsed(path, path)
    if dataset.get("SamplesPerPixel", 1) != 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise ScanError(f"not a 3D image with one number a voxel: {path.name} is in colour")
    if "ModalityLUTSequence" in dataset:
        raise ScanError(f"{path.name}: its values go through a table (ModalityLUTSequence), which is not supported")
    try:
        syntax = dataset.file_meta.TransferSyntaxUID
        values = gdcm.stored_values(dataset, _frames(dataset)) if syntax.is_encapsulated else dataset.pixel_array
        return values.reshape(-1, *values.shape[-2:])
    except Exception as error:  # pydicom and GDCM meet damaged pixels with exceptions of all kinds
        raise _unreadable(path, error, "the pixels of ") from None


def _unreadable(path: Path, error: Exception, what: str = "") -> ScanError:
    text = " ".join(str(error).split()).rpartition("ERROR: ")[2]
    return ScanError(f"{what}{path.name} cannot be read: {text[:LONGEST] or type(error).__name__}")


def _parsed(path: Path, source: Any, **more: Any) -> Dataset:
    """A data set whose transfer syntax is known."""
    try:
        dataset = pydicom.dcmread(source, force=True, **more)
        dataset.get("SOPClassUID"), dataset.get("Rows")
    except Exception as error:  # pydicom meets damaged files with exceptions of all kinds
        raise _unreadable(path, error) from None
    if "TransferSyntaxUID" not in dataset.file_meta:  # no meta header: implicit VR little endian is the default
        implicit = dataset.original_encoding[0] is not False
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


def _other(dataset: Dataset) -> str:
    uid = str(dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID") or "")
    modality = str(dataset.get("Modality") or "")
    fitting = [what for start, what in NO_IMAGE.items() if uid == start or uid.startswith(f"{start}.")]
    return next(iter(fitting), modality if modality in MODALITIES else "")


def _check_length(path: Path, dataset: Dataset, start: int) -> None:
    """ScanError if the pixels, from byte ``start`` on, are cut short; compressed ones show it when they are read."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed or syntax.is_deflated:
        return
    numbers = int(dataset.Rows) * int(dataset.Columns) * _frames(dataset) * int(dataset.get("SamplesPerPixel", 1))
    wanted, there = start + numbers * int(dataset.get("BitsAllocated", 16)) // 8, path.stat().st_size
    if there < wanted:
        raise ScanError(f"{path.name} is cut short: it has {there} of at least {wanted} bytes")


def _frames(dataset: Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _slices(path: Path, dataset: Dataset) -> Iterator[Slice]:
    frames, size = _frames(dataset), (int(dataset.Columns), int(dataset.Rows))
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if groups and len(groups) != frames:
        raise ValueError(f"it has {frames} frames, but positions of {len(groups)} (PerFrameFunctionalGroupsSequence)")
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    lone = {} if frames == 1 or groups else dict.fromkeys(CORNERS[:1])  # of several frames it would be the first one's
    for frame in range(frames):
        sources = [*_items(groups[frame] if groups else Dataset()), *_items(shared), dataset]
        pixel = _numbers(sources, "PixelSpacing", 2)
        slope, intercept = _number(sources, "RescaleSlope"), _number(sources, "RescaleIntercept")
        rescaled = slope is not None or intercept is not None
        gap = _number(sources, "SpacingBetweenSlices") or _number(sources, "SliceThickness")
        position, orientation = (
            None if name in lone else _numbers(sources, name, n) for name, n in zip(CORNERS, (3, 6), strict=True)
        )
        yield Slice(
            path,
            frame,
            size,
            pixel and pixel[::-1],
            position,
            orientation,
            _number([dataset], "InstanceNumber") if frames == 1 else float(frame),
            _number([dataset], "SliceLocation") if frames == 1 else None,
            None if gap is None else abs(gap),
            (1.0 if slope is None else slope, intercept or 0.0) if rescaled else None,
            "LOCALIZER" in [str(word).upper() for word in _words(dataset.get("ImageType"))],
            _number(sources, "TemporalPositionIndex") or _number(sources, "TemporalPositionIdentifier"),
        )


def _items(group: Dataset) -> list[Dataset]:
    """The macros of a functional group that say where and when a frame was taken and what its values are."""
    names = ("PlanePosition", "PlaneOrientation", "PixelMeasures", "PixelValueTransformation", "FrameContent")
    return [group[f"{name}Sequence"][0] for name in names if group.get(f"{name}Sequence")]


def _numbers(sources: list[Dataset], name: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers from the first of the data sets that has this element; None if none has."""
    for source in sources:
        value = source.get(name)
        if value is None or value == "":
            continue
        numbers = tuple(float(number) for number in (value if count > 1 else [value]))
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise ValueError(f"its {name} is {value}")
        return numbers
    return None


def _number(sources: list[Dataset], name: str) -> float | None:
    numbers = _numbers(sources, name, 1)
    return numbers[0] if numbers else None


def _words(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | MultiValue) else [value]
