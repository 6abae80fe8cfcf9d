"""Small scans of known content, written to disk for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk


def chest(seed: int = 0, shape: tuple[int, int, int] = (52, 52, 40)) -> np.ndarray:
    """A body with two lungs and noise in HU, int16, axes (z, y, x) as SimpleITK has them."""
    x, y = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]))
    lungs = (np.abs(x) - 0.35) ** 2 / 0.3**2 + y**2 / 0.6**2 < 1
    body = x**2 + y**2 < 0.9
    plane = np.where(lungs, -850, np.where(body, 40, -1000))
    noise = np.random.default_rng(seed).normal(0, 30, (shape[2], shape[1], shape[0]))
    return (plane + noise).astype(np.int16)


def write(path: Path, voxels: np.ndarray, spacing: tuple[float, ...] = (5.0, 5.0, 5.0), compress: bool = False) -> Path:
    """Write (z, y, x) voxels in the format that the name asks for; 5 mm voxels keep the files small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), compress)
    return path


def write_dicom(folder: Path, voxels: np.ndarray, uid: str, step_mm: float = 5.0) -> list[Path]:
    """Write a CT series, one file a slice, and return the files from the lowest slice up."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    files = []
    for k, plane in enumerate(voxels):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((5.0, 5.0, step_mm))
        tags = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{k + 1}",
            "0020|000d": f"{uid}.0",
            "0020|000e": uid,
            "0020|0013": str(k + 1),
            "0020|0032": f"0\\0\\{k * step_mm}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "0",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        files.append(folder / f"{uid}-{len(voxels) - k}.dcm")  # names in the order opposite to positions
        writer.SetFileName(str(files[-1]))
        writer.Execute(image)
    return files


def cut_short(path: Path, part: float) -> None:
    """Keep this part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
