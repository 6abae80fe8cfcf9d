"""Augmentations: parameters are sampled from a generator, then applied; nothing else is random."""
