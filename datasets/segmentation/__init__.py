"""Volumes with masks, as in the Medical Segmentation Decathlon and nnU-Net."""
