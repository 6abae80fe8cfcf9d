"""Starting from existing weights: our checkpoints, the published code's, or an encoder alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from models.pcrl import PCRLNetwork, load_published_state, published_state
from utils import torch_file
from utils.errors import UserError

# Prefixes under which the parts of a 2D network stand alone in files: bare torchvision names of an
# encoder, `blocks.` of a decoder (segmentation_models_pytorch).
PART_PREFIXES = ("", "model.encoder.", "model.decoder.", "model.", "encoder.", "decoder.")
WRAPPER = "module."  # of DataParallel


@dataclass(frozen=True)
class WeightReport:
    """Names (published) that were ``used``, those of the network that were ``missing``, and what was ``unexpected``."""

    used: list[str]
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        def some(names: list[str], what: str) -> str:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            return f"{len(names)} {what}" + (f" ({shown})" if names else "")

        return "; ".join(
            (
                f"{len(self.used)} tensors used",
                some(self.missing, "missing"),
                some(self.unexpected, "unexpected"),
            )
        )


def _tensors(checkpoint: Any) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, the fullest part first, without DataParallel's prefix."""
    if not isinstance(checkpoint, Mapping):
        return {}
    parts = [checkpoint[key] for key in ("model", "state_dict", "decoder_state_dict") if key in checkpoint]
    if isinstance(checkpoint.get("model"), Mapping):
        parts = [checkpoint["model"]]  # ours: the whole student
    tensors: dict[str, Tensor] = {}
    for part in parts or [checkpoint]:
        if isinstance(part, Mapping):
            tensors |= {str(k).removeprefix(WRAPPER): v for k, v in part.items() if isinstance(v, Tensor)}
    return tensors


def load_weights(network: PCRLNetwork, path: str | Path) -> WeightReport:
    """Copy into ``network`` what fits by name and shape; UserError if nothing does."""
    own = published_state(network)
    used: dict[str, Tensor] = {}
    unexpected = []
    for name, tensor in _tensors(torch_file.load(path)).items():
        candidates = (prefix + name for prefix in PART_PREFIXES)
        target = next((c for c in candidates if c in own and own[c].shape == tensor.shape), None)
        if target is None:
            unexpected.append(name)
        else:
            used[target] = tensor
    if not used:
        raise UserError(
            f"{path}: none of its {len(unexpected)} tensors fits this {network.dims}D network by name and shape"
        )
    load_published_state(network, own | used)
    return WeightReport(list(used), [name for name in own if name not in used], unexpected)
