"""The model card of exported weights: what they are, what made them, how to load them. Markdown."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from datasets.ct.crop_records import UNKNOWN, with_scans
from exporting.inputs import input_in_words, segmentation_of
from options import SEGMENTATION, telling
from utils.text import counted

PHASES = {"pretask": "pre-training", "finetune": "fine-tuning", "linear": "training of a head alone"}
DATA = {  # what they are, and what is said where the list is not known
    "chest": ("chest X-rays", "ChestX-ray14 or images in its place"),
    "luna": ("CT or MR crops", "LUNA16 or scans in its place"),
}
TERMS = {  # of public data, which a run can have used
    "chest": " (if they are of ChestX-ray14: those of the NIH Clinical Center)",
    "luna": " (if they are of LUNA16: CC BY 4.0)",
    "nodules": " (if they are of LUNA16: CC BY 4.0)",
}
TEMPLATE = """---
library_name: {library}
tags: [{tags}]
---

# {architecture}, {title}

{content}

## Loading

```python
{code}
```
{commands}
Input: {input}

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
- {left_out}

## Licence

The code is under the MIT licence. The licence of the weights is for those who trained them to choose, within the terms
of the images{terms}.

Method: {citation}.
"""


@dataclass(frozen=True)
class CardFacts:
    """What a card tells beyond the run's options.

    ``content``: a sentence on the weights. ``decoder``: whether they have one. ``code``: five lines that load them.
    ``commands``: Markdown on other ways to use them, or "".
    ``files``: (name, bytes, SHA-256). ``source``: (name, SHA-256) of the checkpoint. ``title``: of the card.
    ``method``, ``citation``, ``training_only``: what the method of the pre-training says of itself
    (methods/spec.py); no ``method`` where there was no pre-training, or none is known. ``z_normalised``: whether the
    network's images are to be normalised to mean 0 and deviation 1.
    """

    architecture: str
    library: str
    dims: int
    in_channels: int
    content: str
    decoder: bool
    code: str
    commands: str
    files: list[tuple[str, int, str]]
    source: tuple[str, str]
    title: str
    method: str
    citation: str
    training_only: str
    z_normalised: bool


def model_card(facts: CardFacts, checkpoint: Mapping[str, Any], options: dict[str, Any], record: dict[str, Any]) -> str:
    """The card.

    ``checkpoint``: its epoch, step, list hash and ``run`` are read. ``record``: of
    ``training.reporting.run_record.read_run_record``, for what a checkpoint of an earlier version does not have itself.
    """
    phase = options.get("phase", "pretask")
    run = run_facts(checkpoint, record)
    source, source_hash = facts.source
    made = {
        "method": f"{facts.method or 'supervised'}, phase {phase}",
        "data": _data(checkpoint, options, run),
        "length": _length(checkpoint, options, run),
        **_origin(run),
        "started": _started(run),
        "precision": run.get("precision") or record.get("precision") or UNKNOWN,
        "commit": record.get("commit") or UNKNOWN,
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()) or UNKNOWN,
        "exported": datetime.now(timezone.utc).date().isoformat(),
        "checkpoint": f"`{source}`, SHA-256 `{source_hash}`",
    }
    return TEMPLATE.format(
        library=facts.library,
        tags=", ".join(filter(None, ("medical-imaging", f"{facts.dims}d", facts.method, phase))),
        architecture=facts.architecture,
        title=facts.title,
        content=facts.content,
        code=facts.code,
        commands=facts.commands,
        input=input_in_words(facts.dims, facts.in_channels, options, run, PHASES.get(phase, phase), facts.z_normalised),
        citation=facts.citation,
        facts="\n".join(f"| {name} | {value} |" for name, value in made.items()),
        flags=_flags(options, run) or UNKNOWN,
        left_out=_left_out(facts, options),
        terms=TERMS.get(str(options.get("n")), ""),
        files="\n".join(f"| `{name}` | {size} | `{digest}` |" for name, size, digest in facts.files),
    )


def _flags(options: dict[str, Any], run: Mapping[str, Any]) -> str:
    """As on a command line; of paths the last part alone, since a card is for others to read.

    Hounsfield units are left out where no channel is CT.
    """
    words = []
    segmentation = segmentation_of(options, run)
    no_ct = options.get("modality") == "mr" or (segmentation and not any(segmentation["windows"]))
    for name, value in telling(options).items():
        if no_ct and name in ("hu_min", "hu_max"):
            continue
        text = str(value).rstrip("/").rpartition("/")[2]
        if isinstance(value, bool):
            words += [f"--{name}"] * value
        elif value is not None and text:
            words.append(f"--{name} {shlex.quote(text)}")
    return " ".join(words)


def run_facts(checkpoint: Mapping[str, Any], record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Times, data and preparation of the run, as its checkpoint has them, else as ``run.json`` does."""
    run = checkpoint.get("run")
    return run if isinstance(run, Mapping) and run else {**record, **record.get("data", {})}


def _origin(run: Mapping[str, Any]) -> dict[str, str]:
    """Rows on the run whose weights this one began with, if that is known."""
    known = run.get("weight")
    if not known:
        return {}
    options, former = known["opt"], known["run"]
    phase = options.get("phase", "pretask")
    name = PHASES.get(phase, phase)
    return {
        "begun from": f"`{known['file']}`, of {name}",
        f"data of the {name}": _data(known, options, former),
        f"length of the {name}": _length(known, options, former),
    }


def _left_out(facts: CardFacts, options: Mapping[str, Any]) -> str:
    """A sentence on what the checkpoint has beside the weights."""
    if options.get("phase", "pretask") == "pretask":
        return f"What only the training needs ({facts.training_only}) is left out."
    if options.get("n") != SEGMENTATION:
        return "The trained classifier is left out: these weights give features, and need a new head."
    return "The optimizer is left out." if facts.decoder else "The trained decoder and output layer are left out."


def _started(run: Mapping[str, Any]) -> str:
    resumed = run.get("resumed", [])
    return (run.get("started") or UNKNOWN) + (f"; resumed {', '.join(resumed)}" if resumed else "")


def _data(checkpoint: Mapping[str, Any], options: dict[str, Any], run: Mapping[str, Any]) -> str:
    name, samples = options.get("n"), run.get("samples")
    listed = run.get("list") or str(options.get("train_list") or "").rpartition("/")[2]
    what, place = DATA.get(str(name), ("", ""))
    if listed:
        place = "all that were there" if listed == "none" else f"of the list `{listed}`"
    crops = [f"crops: {with_scans(run.get('recipes', [])) or UNKNOWN}"] if name == "luna" else []
    return "; ".join(
        (
            f"`--n {name}`: {what} ({place})" if what else f"`--n {name}`" if name else UNKNOWN,
            counted(samples, "training sample") if samples else f"number of training samples {UNKNOWN}",
            *crops,
            f"SHA-256 of their names `{checkpoint.get('list_sha256') or UNKNOWN}`",
        )
    )


def _length(checkpoint: Mapping[str, Any], options: dict[str, Any], run: Mapping[str, Any]) -> str:
    epoch, samples, batch = checkpoint.get("epoch"), run.get("samples"), options.get("b")
    if epoch is None:
        return UNKNOWN
    epochs = options.get("epochs")
    text = f"{epoch} of {counted(epochs, 'epoch') if epochs else f'{UNKNOWN} epochs'} completed"
    if "list_sha256" not in checkpoint:  # not ours
        text = f"{epoch} is the epoch that its file names, of {epochs or UNKNOWN}"
    step = checkpoint.get("step", 0)
    if not samples or not batch:
        return text
    # Of earlier versions' runs it follows from the samples, except where an epoch takes a part of a file, or many.
    each_once = options.get("n") not in (SEGMENTATION, "nodules")
    steps = run.get("steps_per_epoch") or (math.ceil(samples / batch) if each_once else 0)
    if not steps:
        return text
    return f"{text}, {counted(steps, 'step')} each; {counted(epoch * steps + step, 'step')} in all"
