"""What a PCRL step is configured with."""

from __future__ import annotations

from dataclasses import dataclass

from methods.spec import Settings

PARTS = frozenset({"contrast", "reconstruction", "mixup", "gate"})


@dataclass(frozen=True)
class PCRLConfig:
    """``n_data``: batches per epoch, the last short one counted (the NCE's noise density is 1 / n_data).

    ``shuffle_bn``: the teacher encodes the batch in shuffled order (MoCo's ShuffleBN), so that on several devices no
    key shares its batch normalisation's statistics with its own query. False: in its own order.
    ``without``: those of PARTS that are left out, for ablations. "contrast": the NCE terms, "reconstruction": the
    MSE terms, "mixup": steps 3 and 4 and all their terms, "gate": the transformation-conditioned attention.
    """

    n_data: int
    temperature: float = 0.2
    queue_size: int = 16384
    ema_momentum: float = 0.999
    reconstruction_loss: str = "mse"
    shuffle_bn: bool = True
    without: frozenset[str] = frozenset()


def config_of(settings: Settings, n_data: int) -> PCRLConfig:
    """What the options say; ``n_data``: batches of an epoch."""
    return PCRLConfig(
        n_data=n_data,
        temperature=settings["moco_t"],
        queue_size=settings["moco_k"],
        ema_momentum=settings["moco_m"],
        reconstruction_loss=settings["loss"],
        shuffle_bn=settings["shuffle_bn"] == "full",
        without=frozenset(name.strip() for name in settings["without"].split(",") if name.strip()),
    )
