"""Crops of CT and MR scans: files, records, and the samples made of them."""
