"""A run that version 0.1 began goes on here, and starts others: what its files lack has a meaning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from tests.conftest import run_main
from utils import torch_file

OPTIONS = {  # of version 0.1
    *("accumulate", "amp", "augment", "b", "backbone", "cache", "channels_last", "d", "data", "dry_run", "epochs"),
    *("final_act", "fold", "folds", "gpus", "hu_max", "hu_min", "image_every", "inchannel", "log_every", "loss", "lr"),
    *("max_bad_steps", "mirror", "moco_k", "moco_m", "moco_t", "modality", "model", "momentum", "n", "norm"),
    *("on_bad_sample", "optimizer", "outchannel", "output", "parallel", "patch", "patches", "patience", "phase"),
    *(
        "prefetch",
        "preview",
        "processes",
        "ratio",
        "resume",
        "save_every",
        "save_minutes",
        "seed",
        "shuffle_bn",
        "size",
    ),
    *("spacing_mm", "split", "train_cases", "train_list", "val_every", "warmup_epochs", "weight", "weight_decay"),
    *("without", "workers"),
    "narrow",  # which it had not: else the test would take minutes
}
KEYS = {  # of its checkpoints
    *("best", "best_epoch", "contrast", "cuda_rng", "decoder_state_dict", "epoch", "list_sha256", "model", "model_ema"),
    *("opt", "optimizer", "precision", "report", "run", "state_dict", "step", "torch_rng", "world_size"),
}
RECORD = {  # of its run.json
    *("command", "options", "data", "started", "resumed", "device", "precision", "world_size", "versions", "commit"),
    "machine",
}
RUN = {"started", "resumed", "samples", "list_sha256", "shape", "list", "precision"}  # of a checkpoint's "run"
LEAN = ("--n", "chest", "--size", 64, "--b", 2, "--ratio", 1, "--workers", 0, "--moco_k", 16, "--image_every", 0)


def make_former(output: Path) -> None:
    """Leave of a run's files what version 0.1 wrote."""
    checkpoint = torch.load(output / "last.pt", weights_only=True)
    former = {key: value for key, value in checkpoint.items() if key in KEYS}
    assert former.keys() == KEYS, "all of it is still written"
    former["opt"] = {name: value for name, value in checkpoint["opt"].items() if name in OPTIONS}
    assert former["opt"].keys() == OPTIONS
    former["run"] = {name: value for name, value in checkpoint["run"].items() if name in RUN}
    (output / "last.pt").unlink()
    torch_file.save(output / "last.pt", former)
    record = json.loads((output / "run.json").read_text())
    record = {key: value for key, value in record.items() if key in RECORD}
    record["options"] = {name: value for name, value in record["options"].items() if name in OPTIONS}
    (output / "run.json").write_text(json.dumps(record))


def test_a_run_of_the_former_version_goes_on_as_it_would_have(xrays: Path, tmp_path: Path) -> None:
    argv = ("--data", xrays, *LEAN)
    whole = run_main(*argv, "--epochs", 2, "--patience", 0, "--save_every", 1, "--output", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    shutil.copytree(tmp_path / "whole", tmp_path / "out")
    (tmp_path / "out" / "pcrl_chest_pretask_1.0_2.pt").unlink()
    first = next((tmp_path / "out").glob("*_1.pt"))
    (tmp_path / "out" / "last.pt").write_bytes(first.read_bytes())
    make_former(tmp_path / "out")
    again = run_main(*argv, "--epochs", 2, "--resume", "auto", "--output", tmp_path / "out")
    assert again.returncode == 0, again.stderr
    ours, expected = (
        torch.load(tmp_path / name / "pcrl_chest_pretask_1.0_2.pt", weights_only=True) for name in ("out", "whole")
    )
    for part in ("model", "model_ema", "contrast"):
        assert all(torch.equal(ours[part][name], value) for name, value in expected[part].items()), part
    started = run_main(
        *argv, "--epochs", 1, "--weight", tmp_path / "out" / "last.pt", "--output", tmp_path / "new", "--ratio", 1
    )
    assert started.returncode == 0, started.stderr
