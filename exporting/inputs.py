"""What a model card says of the images that a network wants: sizes, intensities, orientation, classes. Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets.ct.crop_records import SPACING_MM, UNKNOWN, window_in_words
from datasets.segmentation.files import ORIENTATION
from options import SEGMENTATION
from utils.text import counted

INPUT = {
    2: "X-rays, {channels}, sizes multiples of 32 ({phase}: {size}), values 0..1, then {normal}",
    3: "CT or MR volumes, {channels}, axes x, y, z, sizes multiples of 8 ({phase}: {size}), {prepared}",
}
WINDOW_UNKNOWN = (
    "resampled and scaled to 0..1 in the same way as the training crops, which is not recorded "
    "(default of `preprocess/luna_pre.py`: to 1 mm, clipped to -1000..1000 HU)"
)
NORMAL = {
    1: "minus 0.449, divided by 0.226 (the averages of ImageNet's means and standard deviations)",
    3: "ImageNet's normalisation: minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)",
}
WHOLE_XRAY = "; the whole image is resized until its longer side has that size, and centred on black"
NODULES = "; crops of that size, centred on the candidate position"
Z_NORMAL = ", then each channel of each image minus its mean, divided by its standard deviation (unbiased)"
AXES = "x from the patient's right to left, y from front to back, z from feet to head"
PREDICTED = (
    "softmax in windows of {patch} voxels that overlap by {overlap:g} of their length, averaged with Gaussian weights "
    "(MONAI's `sliding_window_inference`); resized linearly to the file's grid; the largest class of each voxel"
)


def input_in_words(
    dims: int,
    channels: int,
    options: Mapping[str, Any],
    run: Mapping[str, Any],
    words: str,
    z_normalised: bool = False,
) -> str:
    """What the network wants to be given. ``run``: what a checkpoint tells of its run. ``words``: the phase's name.

    ``z_normalised``: whether images in 0..1 are then normalised to mean 0 and deviation 1.
    """
    phase, n = options.get("phase", "pretask"), options.get("n")
    if n == SEGMENTATION and phase != "pretask":
        return _segmentation(channels, options, run)
    size = " x ".join(map(str, run.get("shape", ()))) or UNKNOWN
    if dims == 2:
        size = f"{options.get('size', 224)} x {options.get('size', 224)}"
    prepared = _prepared(run.get("recipes", [])) if phase == "pretask" else _crops(run.get("windows", []))
    text = INPUT[dims].format(
        channels=counted(channels, "channel"),
        size=size,
        normal=NORMAL.get(channels, UNKNOWN),
        phase=words,
        prepared=prepared,
    )
    text += Z_NORMAL * z_normalised
    if phase != "pretask":
        text += WHOLE_XRAY if dims == 2 else NODULES
    classes = f" It was trained to tell: {', '.join(run['classes'])}." if run.get("classes") else ""
    return f"{text}.{classes}"


def segmentation_of(options: Mapping[str, Any], run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How the volumes of a segmenter were prepared (tasks/msd.py); None if the checkpoint does not tell."""
    known = run.get("segmentation")
    return known if options.get("n") == SEGMENTATION and isinstance(known, Mapping) else None


def _segmentation(channels: int, options: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """A table: all that turns a file into what the network sees, and its outputs into a mask."""
    known = segmentation_of(options, run)
    if known is None:
        return (
            f"CT or MR volumes, {counted(channels, 'channel')}, sizes multiples of 8, in the orientation {ORIENTATION} "
            f"({AXES}), values 0..1. Spacing, intensity windows and classes are {UNKNOWN}: the checkpoint is of an "
            "earlier version. The same `main.py` command with `--resume auto` and a higher `--epochs` records them."
        )
    names = ["background", *known["classes"]]
    rows = {
        **{
            f"channel {number}" if channels > 1 else "modality": _intensity(window, known["percentiles"])
            for number, window in enumerate(known["windows"])
        },
        "orientation": f"{known['orientation']}: {AXES}",
        "spacing": " x ".join(f"{mm:g}" for mm in known["spacing_mm"]) + " mm (x, y, z), linear interpolation",
        "patch": " x ".join(map(str, known["patch"])) + " voxels; sizes are multiples of 8",
        "classes": ", ".join(f"{number} {name}" for number, name in enumerate(names)),
        "prediction": PREDICTED.format(patch=" x ".join(map(str, known["patch"])), overlap=known["overlap"]),
        "Dice": "of each class, on the file's grid: twice the common voxels / the sum of both; 1 if both are empty",
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"volumes as the code above prepares them, {counted(channels, 'channel')}.\n\n| | |\n|---|---|\n{lines}"


def _intensity(window: Sequence[float] | None, percentiles: Sequence[float]) -> str:
    if window:
        return "CT: {:g}..{:g} HU become 0..1, what lies beyond is clipped".format(*window)
    return "MR: the percentiles {:g} and {:g} of the resampled volume become 0 and 1, the rest is clipped".format(
        *percentiles
    )


def _prepared(recipes: Sequence[Mapping[str, Any]]) -> str:
    """How pre-training's crops were resampled and scaled."""
    windows = []
    for recipe in recipes:
        if recipe.get("percentiles"):
            windows.append("the percentiles {:g}..{:g} of each scan".format(*recipe["percentiles"]))
        elif recipe.get("hu"):
            windows.append("{}..{} HU".format(*recipe["hu"]))
    if not windows:
        return WINDOW_UNKNOWN
    spacing = next(recipe["spacing_mm"] for recipe in recipes if "spacing_mm" in recipe)
    mixed = "; the crops were not all made alike, see below" if len(recipes) > 1 else ""
    return f"resampled to {spacing:g} mm, clipped to {' or '.join(dict.fromkeys(windows))} and scaled to 0..1{mixed}"


def _crops(windows: Sequence[Mapping[str, Any]]) -> str:
    """How the crops of a classifier were resampled and scaled."""
    known = list(filter(None, map(window_in_words, windows)))
    if not known:
        return WINDOW_UNKNOWN.replace("luna_pre", "nodule_crops")
    return f"resampled to {SPACING_MM:g} mm, clipped to {' or '.join(known)} and scaled to 0..1"
