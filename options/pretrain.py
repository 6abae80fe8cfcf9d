"""Options of pre-training."""

from __future__ import annotations

from dataclasses import dataclass

from options.flags import AS_PHASE, PRETRAINING, flag, positive
from options.training import Training
from utils.errors import UserError

PROBE_EVERY = 5  # epochs, where there is something to probe by
OF_PCRL = ("pcrl", "pcrl_paper")  # the methods with a teacher and a queue
PARTS = frozenset({"contrast", "reconstruction", "mixup", "gate"})  # of the method, that --without may name


@dataclass(frozen=True)
class Pretraining(Training):
    """What pre-training has."""

    augment: str = flag(
        "workers",
        "data",
        "where the last steps of the augmentation run: in the worker processes, or on the training device, by batches",
        choices=["workers", "device"],
        phases=PRETRAINING,
    )
    outchannel: int = flag(0, "network", "output channels (default: as inchannel)", type=positive, phases=PRETRAINING)
    final_act: str = flag(
        "",
        "network",
        "activation of the reconstruction (default: sigmoid in 3D, none in 2D)",
        choices=["sigmoid", "none"],
        phases=PRETRAINING,
    )
    loss: str = flag(
        "mse", "optimisation", "reconstruction loss", choices=["mse", "l1"], phases=PRETRAINING, models=OF_PCRL
    )
    without: str = flag(
        "",
        "optimisation",
        "leave out parts of the method, comma-separated, for ablations: contrast, reconstruction, mixup, gate "
        "(default: nothing)",
        metavar="PARTS",
        phases=PRETRAINING,
        models=("pcrl",),
    )
    continue_with: str = flag(
        "",
        "network",
        "also take over from the run of --weight: teacher, queue or teacher,queue (default: neither; see "
        "docs/CONTINUE.md)",
        metavar="PARTS",
        phases=PRETRAINING,
    )
    moco_t: float = flag(0.2, "optimisation", "temperature T of the contrast", phases=PRETRAINING, models=OF_PCRL)
    moco_k: int = flag(
        16384,
        "optimisation",
        "size of the queue (number of keys); use less only for few samples and thousands of steps",
        phases=PRETRAINING,
        models=OF_PCRL,
        at_least=1,
    )
    moco_m: float = flag(
        0.999,
        "optimisation",
        "momentum of the teacher (EMA); with a smaller value the teacher follows too fast, and features may collapse",
        phases=PRETRAINING,
        models=OF_PCRL,
    )
    shuffle_bn: str = flag(
        "full",
        "machine",
        "several processes, --norm bn: full: shuffle images across them for the teacher; off: less traffic "
        "(docs/GPUS.md)",
        choices=["full", "off"],
        phases=PRETRAINING,
        models=OF_PCRL,
    )
    cuda_graph: str = flag(
        "auto",
        "machine",
        "one GPU: run each step as one CUDA graph. The first steps compare it with normal steps; if numbers differ, "
        "auto continues without the graph, and on stops the run",
        choices=["auto", "on", "off"],
        phases=PRETRAINING,
    )
    preview: int = flag(
        0,
        "output",
        "draw the views of N training samples to views.png in --output and exit, without training",
        type=positive,
        phases=PRETRAINING,
    )
    image_every: int = flag(
        1000,
        "output",
        "steps between pictures of the reconstructions; 0: pictures only with numbered checkpoints",
        phases=PRETRAINING,
        at_least=0,
    )

    probe_every: int = flag(
        AS_PHASE,
        "output",
        "epochs between probes by labels (docs/LEARNING.md); 0: none (default: 5 with --probe_list or --probe_data)",
        phases=PRETRAINING,
        at_least=0,
    )
    probe_list: str = flag(
        "",
        "output",
        "list or CSV table of X-rays in --data with their labels, for the probes; same formats as for fine-tuning",
        metavar="FILE",
        phases=PRETRAINING,
        data=("chest",),
    )
    probe_data: str = flag(
        "",
        "output",
        "folder of labelled crops from preprocess/nodule_crops.py, for the probes",
        metavar="FOLDER",
        phases=PRETRAINING,
        data=("luna",),
    )
    keep: str = flag(
        "best-loss",
        "output",
        "what selects best.pt and counts for --patience: loss on held-out data, or result of the linear probe",
        choices=["best-loss", "best-probe"],
        phases=PRETRAINING,
    )

    def _check_probe(self) -> None:
        if self.phase not in PRETRAINING:
            self._set("probe_every", 0)
            self._set("keep", "best-loss")
            return
        flag_of = "probe_list" if self.dims == 2 else "probe_data"
        source = getattr(self, flag_of)
        if self.probe_every == AS_PHASE:
            self._set("probe_every", PROBE_EVERY if source else 0)
        if self.probe_every and not source:
            raise UserError(f"--probe_every {self.probe_every}: probes need labels; give --{flag_of}")
        if source and not self.probe_every:
            raise UserError(f"--{flag_of} {source}: --probe_every 0 switches probes off; remove one of the two")
        if self.keep == "best-probe" and not self.probe_every:
            raise UserError(f"--keep best-probe: the run has no probe; give --{flag_of}")

    def _check_pretraining(self) -> None:
        self._check_probe()
        if self.phase not in PRETRAINING or not self.outchannel:
            self._set("outchannel", self.inchannel)
        if self.outchannel != self.inchannel:
            raise UserError(
                f"--outchannel {self.outchannel}: the target of the reconstruction is the input's transform, "
                f"so it must equal --inchannel {self.inchannel}"
            )
        if not self.final_act and self.n:
            self._set("final_act", "sigmoid" if self.dims == 3 else "none")
        if not self.moco_t > 0:
            raise UserError(f"--moco_t {self.moco_t}: must be above 0")
        if not 0 <= self.moco_m < 1:
            raise UserError(f"--moco_m {self.moco_m}: must be at least 0 and below 1")
        if self.preview and self.phase not in PRETRAINING:
            raise UserError(f"--preview {self.preview}: works only with --phase pretask, not --phase {self.phase}")
        if self.dry_run and self.preview:
            raise UserError("--dry_run and --preview cannot be combined; give one of them")
        if self.continue_with and self.phase in PRETRAINING and self.weight in ("", "none", "imagenet"):
            raise UserError(f"--continue_with {self.continue_with}: --weight must be the last.pt of the former run")
        unknown = self.left_out - PARTS
        if unknown:
            raise UserError(f"--without {min(unknown)} is not known; choose from {', '.join(sorted(PARTS))}")
        if {"contrast", "reconstruction"} <= self.left_out:
            raise UserError("--without contrast,reconstruction: nothing is left to learn")

    @property
    def left_out(self) -> frozenset[str]:
        """The parts of the method that ``--without`` names."""
        return frozenset(name.strip() for name in self.without.split(",") if name.strip())
