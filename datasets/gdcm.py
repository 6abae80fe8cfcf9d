"""Compressed DICOM pixels by GDCM, which SimpleITK brings along: it knows more ways of compressing than pydicom."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture: no reader rescales its values
PIXEL_TAGS = [
    *("SamplesPerPixel", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelData"),
]


def stored_values(dataset: Dataset, frames: int = 1) -> np.ndarray:
    """The stored values (frames, rows, columns), from a copy of the data set that it has no slope or window of.

    Raises what pydicom or SimpleITK raise if the pixels are damaged.
    """
    copy = Dataset()
    for name in PIXEL_TAGS:
        if name in dataset:
            copy[name] = dataset[name]
    if shown := dataset.get("PhotometricInterpretation"):
        copy.PhotometricInterpretation = "MONOCHROME2" if shown == "MONOCHROME1" else shown  # else GDCM inverts
    copy.SOPClassUID, copy.SOPInstanceUID = UID(f"{CAPTURE}.3" if frames > 1 else CAPTURE), UID("1.2.3")
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    copy.file_meta.MediaStorageSOPClassUID = copy.SOPClassUID
    copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "pixels.dcm"))
        copy.save_as(file, enforce_file_format=True)
        return sitk.GetArrayFromImage(sitk.ReadImage(file, imageIO="GDCMImageIO"))
