"""What files are, by their names alone: whoever finds others' data can say which command they are for. No torch."""

from __future__ import annotations

import re

PAIR = re.compile(r"(?P<uid>[^.].*)_img_(?P<number>\d+)\.npy")  # of preprocess/luna_pre.py
CROP = re.compile(r"(?P<uid>[^.].*)_crop_(?P<number>\d+)\.npy")  # of preprocess/nodule_crops.py
SCANS = (".mhd", ".mha", ".nrrd", ".nii", ".nii.gz")  # what preprocess/luna_pre.py reads, beside DICOM
