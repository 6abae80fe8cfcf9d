"""DICOM pixels in JPEG Lossless, which pydicom has no decoder for by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from datasets import gdcm
from datasets.xray.images import read_image

VALUES = np.random.default_rng(0).integers(0, 4096, (90, 80)).astype(np.uint16)


@pytest.mark.parametrize("shown", ["MONOCHROME1", "MONOCHROME2"])
def test_the_values_are_those_of_the_file_without_compression(shown: str, tmp_path: Path) -> None:
    """However they are to be shown; so an X-ray looks the same, and CT keeps its numbers."""
    path, plain = tmp_path / "compressed.dcm", tmp_path / "plain.dcm"
    writer = sitk.ImageFileWriter()
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    writer.SetFileName(str(path))
    writer.Execute(sitk.GetImageFromArray(VALUES[None]))
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = shown
    dataset.save_as(path)
    assert dataset.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    np.testing.assert_array_equal(gdcm.stored_values(dataset)[0], VALUES)
    assert dataset.PhotometricInterpretation == shown
    dataset.PixelData = VALUES.tobytes()
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OW", False
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(plain)
    image = read_image(path)
    np.testing.assert_array_equal(image, read_image(plain))
    assert (np.corrcoef(image.ravel(), VALUES.ravel())[0, 1] > 0) == (shown == "MONOCHROME2")
