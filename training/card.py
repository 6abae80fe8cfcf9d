"""The model card of exported weights: what they are, what made them, how to load them. Markdown."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

UNKNOWN = "not recorded"
PHASES = {"pretask": "pre-training"}
DATA = {
    "chest": "chest X-rays (ChestX-ray14 or images in its place)",
    "luna": "CT crops (LUNA16 or scans in its place)",
}
INPUT = {
    2: "X-rays, {channels}, sizes multiples of 32 (pre-training: {size} x {size}), values 0..1, then {normal}",
    3: "CT volumes, {channels}, axes x, y, z, resampled to 1 mm, sizes multiples of 8 (pre-training: "
    "64 x 64 x 32), clipped to -1000..1000 HU and scaled to 0..1. These are `preprocess/luna_pre.py`'s defaults: "
    "weights that were trained on crops of other --hu_min, --hu_max or --percentiles want those",
}
NORMAL = {
    1: "less 0.449, divided by 0.226 (the averages of ImageNet's means and standard deviations)",
    3: "ImageNet's normalisation: less (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)",
}
TEMPLATE = """---
library_name: {library}
tags: [medical-imaging, {dims}d, {method}, {phase}]
---

# {architecture}, {title}

{content}

## Loading

```python
{code}
```

Input: {input}.

## What made them

| | |
|---|---|
{facts}

Flags (of paths the last part):

```
{flags}
```

## Files

| file | bytes | SHA-256 |
|---|---|---|
{files}

## Limits

- A starting point for training, not a finished tool. Nothing here was validated for diagnosis, and nothing here is a
  medical device.
- The features follow the modality, body part, scanners and patients of the images above; check before you rely on them
  elsewhere.
- What only the training needs (contrast head, gate, queue, optimizer) is left out.

## Licence

The code is under the MIT licence. The licence of the weights is for those who trained them to choose, within the terms
of the images: LUNA16's are CC BY 4.0; for ChestX-ray14 see the NIH Clinical Center's; your own are yours.

Method: Zhou et al., "Preservational Learning Improves Self-supervised Medical Image Models by Reconstructing Diverse
Contexts", ICCV 2021, arXiv 2109.04379.
"""


@dataclass(frozen=True)
class CardFacts:
    """What a card tells beyond the run's options.

    ``content``: a sentence on the weights. ``code``: five lines that load them. ``files``: (name, bytes, SHA-256).
    ``source``: (name, SHA-256) of the checkpoint.
    """

    architecture: str
    library: str
    dims: int
    in_channels: int
    content: str
    code: str
    files: list[tuple[str, int, str]]
    source: tuple[str, str]


def read_run_record(folder: Path, list_sha256: str | None) -> dict[str, Any]:
    """``run.json`` in the checkpoint's folder; empty if there is none, or if it is of a run on other samples."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    of_this_run = isinstance(record, dict) and record.get("data", {}).get("list_sha256") == list_sha256
    return record if of_this_run and list_sha256 else {}


def model_card(facts: CardFacts, checkpoint: Mapping[str, Any], options: dict[str, Any], record: dict[str, Any]) -> str:
    """The card. ``checkpoint``: its epoch, step and list hash are read; ``record``: as :func:`read_run_record`."""
    method, phase = options.get("model", "pcrl"), options.get("phase", "pretask")
    source, source_hash = facts.source
    channels = f"{facts.in_channels} channel" + ("s" if facts.in_channels > 1 else "")
    made = {
        "method": f"{method}, phase {phase}",
        "data": _data(checkpoint, options, record),
        "length": _length(checkpoint, options, record),
        "started": record.get("started", UNKNOWN),
        "commit": record.get("commit") or UNKNOWN,
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()) or UNKNOWN,
        "exported": datetime.now(timezone.utc).date().isoformat(),
        "checkpoint": f"`{source}`, SHA-256 `{source_hash}`",
    }
    return TEMPLATE.format(
        library=facts.library,
        dims=facts.dims,
        method=method,
        phase=phase,
        architecture=facts.architecture,
        title=f"{method.upper()} {PHASES.get(phase, phase)}",
        content=facts.content,
        code=facts.code,
        input=INPUT[facts.dims].format(
            channels=channels, size=options.get("size", 224), normal=NORMAL.get(facts.in_channels, UNKNOWN)
        ),
        facts="\n".join(f"| {name} | {value} |" for name, value in made.items()),
        flags=_flags(options) or UNKNOWN,
        files="\n".join(f"| `{name}` | {size} | `{digest}` |" for name, size, digest in facts.files),
    )


def _flags(options: dict[str, Any]) -> str:
    """As on a command line; of paths the last part alone, since a card is for others to read."""
    values = {name: str(value).rstrip("/").rpartition("/")[2] for name, value in options.items() if value is not None}
    return " ".join(f"--{name} {shlex.quote(value)}" for name, value in values.items() if value)


def _data(checkpoint: Mapping[str, Any], options: dict[str, Any], record: dict[str, Any]) -> str:
    name = options.get("n")
    samples = record.get("data", {}).get("samples")
    return "; ".join(
        (
            f"`--n {name}`: {DATA[name]}" if name in DATA else f"`--n {name}`" if name else UNKNOWN,
            f"{samples} training samples" if samples else f"number of training samples {UNKNOWN}",
            f"SHA-256 of their names `{checkpoint.get('list_sha256') or UNKNOWN}`",
        )
    )


def _length(checkpoint: Mapping[str, Any], options: dict[str, Any], record: dict[str, Any]) -> str:
    epoch, samples, batch = checkpoint.get("epoch"), record.get("data", {}).get("samples"), options.get("b")
    if epoch is None:
        return UNKNOWN
    completed = "epochs completed" if "list_sha256" in checkpoint else "is the epoch that its file names,"  # not ours
    text = f"{epoch} {completed} of {options.get('epochs', UNKNOWN)}"
    step = checkpoint.get("step", 0)
    if not samples or not batch:
        return text
    steps = math.ceil(samples / batch)
    return f"{text}, {steps} steps each; {epoch * steps + step} steps in all"
