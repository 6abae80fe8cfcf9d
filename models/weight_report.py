"""What became of the tensors of a ``--weight`` file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from models.weight_files import part_of, some
from utils.text import counted

OURS = re.compile(r"^(model\.)?(encoder\.|decoder\.)?")  # what stands before the bare names in the published ones


def bare_name(name: str) -> str:
    """A published name without its prefix: ``model.encoder.conv1.weight`` -> ``conv1.weight``."""
    return OURS.sub("", name)


@dataclass
class WeightReport:
    """Names (published) that were ``used``, those of the network that were ``missing``, and what was ``unexpected``.

    ``reshaped``: tensors of the network that have another shape in the file. ``left``: tensors that would fit, but
    belong to a part that does not fit as a whole. ``unexpected``: tensors in the file that were not used.
    ``unneeded``: the unexpected tensors of pre-training parts that this network does not have. ``notes``: position of
    the weights in the file, if it is unusual. ``made``: facts about the run that wrote the file: ``opt``, ``run``,
    ``epoch``, ``step``, ``list_sha256`` (docs/CHECKPOINTS.md); empty for files of other programs.
    ``z_normalised``: whether the weights expect images of mean 0 and standard deviation 1 (models/unet.py).
    """

    used: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unneeded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)
    z_normalised: bool = False

    def __str__(self) -> str:
        def listed(names: list[str], what: str) -> str:
            return f"{len(names)} {what}" + (f" ({some(names, 3)})" if names else "")

        parts = [counted(len(self.used), "tensor") + " used", *self.notes]
        if self.missing or not (self.reshaped or self.left):
            parts.append(listed(self.missing, "missing"))
        if self.reshaped:
            parts.append(listed(self.reshaped, "of another shape, so initialised randomly"))
        if self.left:
            whose = " and ".join(sorted({part_of(bare_name(name)) for name in self.left}))
            parts.append(
                f"{whose} of another network, so initialised randomly ({counted(len(self.left), 'tensor')} would fit, "
                "but a part is loaded completely or not at all)"
            )
        if self.unneeded:
            decoder = {"decoder", "output layer"} & {part_of(name) for name in self.unneeded}
            heads = {"contrast head", "gate"} & {part_of(name) for name in self.unneeded}
            whose = " and ".join(["decoder"] * bool(decoder) + ["heads"] * bool(heads))
            parts.append(f"pre-training's {whose} ({counted(len(self.unneeded), 'tensor')}) not needed here")
        strange = [name for name in self.unexpected if name not in self.unneeded]
        if strange or not (self.unneeded or self.reshaped or self.left):
            parts.append(listed(strange, "unexpected"))
        return "; ".join(parts)
