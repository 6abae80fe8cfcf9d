"""Whether a volume's own header says that it holds labels, not an image. Free of torch."""

from __future__ import annotations

import zlib
from pathlib import Path

from datasets.ct.errors import ScanError
from datasets.ct.itk import is_nifti
from datasets.ct.nifti import read_nifti_intent

LABEL_INTENTS = (1002, 1003)  # NIfTI's codes of labels: NIFTI_INTENT_LABEL, NIFTI_INTENT_NEURONAME
SEGMENT = b"\nSegment0_"  # how 3D Slicer begins the fields of a segmentation's parts, in .nrrd
NRRD_HEADER = 2**14  # bytes in which they begin


def header_says_labels(file: Path) -> bool:
    """Whether it does; False of a file that cannot be read, which its reader will name."""
    try:
        if is_nifti(file):
            return read_nifti_intent(file) in LABEL_INTENTS
        if file.name.lower().endswith(".nrrd"):
            with file.open("rb") as stream:
                return SEGMENT in stream.read(NRRD_HEADER).partition(b"\n\n")[0].replace(b"\r", b"")
    except (ScanError, OSError, zlib.error):
        pass
    return False
