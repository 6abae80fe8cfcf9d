"""The published commands, as processes on files: what they leave behind, and how they answer bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tests.conftest import FULL, ROOT, rows, run_main, write_pairs, write_xrays

TERMS = ("nce", "nce_mixup", "nce_mixed_key", "rec", "rec_mixup", "rec_mixed", "rec_mixup_mixed")
# The commands of the README but for paths, batch and epochs.
COMMON = "--phase pretask --model pcrl --lr 1e-3 --optimizer sgd --gpus 0,1,2,3 --ratio 1.0"
CHEST = f"{COMMON} --outchannel 3 --n chest --d 2 --inchannel 3"
LUNA = f"{COMMON} --outchannel 1 --n luna --d 3 --inchannel 1"


def assert_run(output: Path, name: str, steps: int) -> dict:
    """What every finished run leaves in its folder; -> the checkpoint."""
    checkpoint = torch.load(output / name, weights_only=True)
    assert isinstance(checkpoint["opt"], dict)
    assert {"state_dict", "contrast", "optimizer", "epoch", "model_ema", "opt", "model"} <= set(checkpoint)
    table = rows(output)
    assert [row["step"] for row in table][-1] == steps
    for row in table:
        assert all(np.isfinite(row[term]) for term in TERMS)
        nce, rec = [row[t] for t in TERMS[:3]], [row[t] for t in TERMS[3:]]
        assert row["loss"] == pytest.approx(sum(nce) / 3 + sum(rec) / 4, rel=1e-5)
    record = json.loads((output / "run.json").read_text())
    assert record["options"] == checkpoint["opt"]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    logged = {"similarity_positive", "queue_spread", "gate_mean", "images_per_s", "data_wait", "memory_gb"}
    assert logged <= set(table[0])
    (events,) = (output / "tensorboard").glob("events*")
    words = set(re.findall(rb"[a-z_]{4,}", events.read_bytes()))
    assert {b"contrast", b"pictures", b"hparams", *(name.encode() for name in logged)} <= words
    for picture in (output / "curves.png", *(output / "reconstructions").glob("epoch_*.png")):
        assert np.asarray(Image.open(picture).convert("L")).std() > 10, picture
    assert list((output / "reconstructions").glob("epoch_*.png"))
    assert not list(output.rglob(".*.tmp"))
    return checkpoint


def test_luna_command_with_a_last_batch_of_one(pairs: Path, tmp_path: Path) -> None:
    more = ("--epochs", 2, "--output", "out", "--workers", 1, "--log_every", 1, "--report")
    run = run_main("--data", pairs, "--b", 5, *more, *LUNA.split(), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "device: CPU" in run.stdout
    assert re.search(r"^data: .*, 2 steps an epoch, 4 steps in all; ", run.stdout, re.M)
    assert run.stderr.count("warning") == 1, run.stderr
    assert "no GPU 0, 1, 2, 3" in run.stderr
    assert "\x1b" not in run.stdout + run.stderr
    assert "\r" not in run.stdout + run.stderr
    checkpoint = assert_run(tmp_path / "out", "pcrl_luna_pretask_1.0_2.pt", steps=4)
    assert ["feature_spread" in row for row in rows(tmp_path / "out")] == [True, False] * 2, "one sample has no spread"
    for epoch in (1, 2):  # where there is no terminal, a line for each
        assert len(re.findall(rf"^epoch {epoch}/2: loss .* images/s(, 0:\d\d:\d\d left)?$", run.stdout, re.M)) == 1
    assert run.stdout.splitlines()[-3:] == [
        "report: out/report.html",
        "the queue is 0 % full; the contrast rises until it is full: this is normal (docs/LEARNING.md)",
        "finished: 2 epochs, as --epochs asks; out holds the run",
    ]
    assert "PCRL pre-training on CT or MR crops" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert checkpoint["epoch"] == 2
    assert len(checkpoint["state_dict"]) == 114
    assert checkpoint["contrast"]["pointer"] == 2 * 6 * 3
    assert checkpoint["optimizer"]["param_groups"][0]["lr"] == pytest.approx(5e-4)


def test_a_dry_run_tells_all_and_writes_nothing(pairs: Path, tmp_path: Path) -> None:
    run = run_main(
        "--data", pairs, "--b", 4, "--epochs", 120, "--output", "out", "--dry_run", *LUNA.split(), cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []
    for told in (
        "dry run: measuring 6 steps\n",
        f"data: 6 samples in {pairs}: 2 batches of 4 samples per epoch, the last batch has 2 samples\n",
        "the network reads images of 1 x 16 x 16 x 16 (channels first)\n",
        "trainable parameters: 0.3 million; precision: float32\n",
        "losses of the second step: loss ",
        " images/s; memory: ",
        " for 120 epochs, 0:",
        "disk: 50 MB, for up to 4 checkpoints of 13 MB; ",
        "at the end pcrl_luna_pretask_1.0_120.pt",
        "a new run would start: out holds no run",
        " --epochs 120 --output out --dry_run --phase pretask",
        "dry run: nothing was written to out",
    ):
        assert told in run.stdout, told


def test_chest_command(xrays: Path, tmp_path: Path) -> None:
    run = run_main(
        "--data", xrays, "--b", 2, "--epochs", 1, "--output", tmp_path / "out", "--workers", 0, *FULL, *CHEST.split()
    )
    assert run.returncode == 0, run.stderr
    checkpoint = assert_run(tmp_path / "out", "pcrl_chest_pretask_1.0_1.pt", steps=1)
    result = torchvision.models.resnet18().load_state_dict(checkpoint["state_dict"], strict=False)
    assert result.unexpected_keys == []
    assert set(result.missing_keys) == {"fc.weight", "fc.bias"}
    assert "blocks.0.conv1.0.weight" in checkpoint["decoder_state_dict"]
    # and on from it, with one grey channel instead of three: all but the first and the last layer fits
    weight = tmp_path / "out" / "pcrl_chest_pretask_1.0_1.pt"
    grey = "--n chest --size 64 --inchannel 1 --b 2 --workers 0 --ratio 1.0 --amp native --epochs 2"
    speed = "--warmup_epochs 1 --accumulate 2 --channels_last off --image_every 1 --moco_k 20 --moco_m 0"
    again = run_main(
        "--data", xrays, "--output", tmp_path / "grey", "--weight", weight, *FULL, *grey.split(), *speed.split()
    )
    assert again.returncode == 0, again.stderr
    reshaped = "3 of another shape, so initialised randomly (model.encoder.conv1.weight, "
    assert f"187 tensors used; {reshaped}" in again.stdout
    preprocessing = "images with other preprocessing: --size 224, not 64; give --size 224"
    assert f"{weight} was trained on {preprocessing}" in again.stderr
    assert "bfloat16" in again.stdout
    checkpoint = assert_run(tmp_path / "grey", "pcrl_chest_pretask_1.0_2.pt", steps=2)
    pictures = sorted(path.name for path in (tmp_path / "grey" / "reconstructions").iterdir())
    assert pictures == ["epoch_0002.png", "step_00000001.png", "step_00000002.png"]
    assert checkpoint["contrast"]["pointer"] == 2 * 2 * 3, "each micro-batch of one pushes its keys"
    assert checkpoint["contrast"]["memory"].shape == (20, 128)
    conv = "model.encoder.layer4.1.conv2.weight"
    assert torch.equal(checkpoint["model_ema"][conv], checkpoint["model"][conv]), "without momentum the teacher follows"
    assert checkpoint["optimizer"]["param_groups"][0]["lr"] == 1e-3, "the cosine starts after the warm-up"


def test_same_seed_same_weights_whatever_the_workers(pairs: Path, tmp_path: Path) -> None:
    states = []
    for name, workers in (("a", 0), ("b", 2)):
        run = run_main(
            "--data",
            pairs,
            "--b",
            4,
            "--epochs",
            1,
            "--output",
            tmp_path / name,
            "--workers",
            workers,
            "--prefetch",
            1 + workers,
            "--seed",
            3,
            "--ratio",
            "1.0",
        )
        assert run.returncode == 0, run.stderr
        states.append(torch.load(tmp_path / name / "pcrl_luna_pretask_1.0_1.pt", weights_only=True)["model"])
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def assert_refused(run: subprocess.CompletedProcess[str], *words: str) -> None:
    assert run.returncode == 2, run.stdout + run.stderr
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, run.stderr
    assert "Traceback" not in run.stderr
    for word in words:
        assert word in errors[0]


def test_bad_data_is_refused_before_anything_is_written(pairs: Path, xrays: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_refused(run_main("--data", tmp_path / "nowhere", "--output", out), "nowhere")
    assert_refused(run_main("--data", empty, "--output", out), "empty")
    assert_refused(run_main("--data", empty, "--n", "chest", "--output", out), "empty")
    assert_refused(run_main("--data", pairs, "--b", 7, "--ratio", 1, "--output", out), "--b 7", "6 training samples")
    names = [f"{i:08d}_000.png" for i in range(1, 8)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    run = run_main(
        "--data", xrays, "--n", "chest", "--train_list", tmp_path / "list.txt", "--ratio", 1, "--output", out
    )
    assert_refused(run, "5 of the 7", *names[2:5], "--train_list")
    assert not out.exists()


def test_damaged_samples_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    chest = write_xrays(tmp_path / "chest", count=3)
    image = chest / "images" / "00000002_000.png"
    image.write_bytes(image.read_bytes()[:200])
    small = "--n chest --size 64 --b 3 --ratio 1 --workers 1 --epochs 1"
    run = run_main("--data", chest, *small.split(), "--output", out)
    assert_refused(run, "00000002_000.png")
    luna = write_pairs(tmp_path / "luna")
    np.save(luna / "subset1" / "1.2.1_img_0.npy", np.zeros((2, 16, 16, 8), np.float32))
    run = run_main("--data", luna, "--b", 6, "--ratio", 1, "--output", out, "--workers", 1, "--epochs", 1)
    assert_refused(run, "1.2.1_img_0.npy", "(2, 16, 16, 8)")
    assert not list(out.glob("*.pt"))


def test_output_that_cannot_be_written_is_refused(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    run = run_main("--data", pairs, "--b", 2, "--output", tmp_path / "file" / "out")
    assert_refused(run, "--output", "file")
    run = run_main("--data", pairs, "--b", 2, "--output", tmp_path / "file")
    assert_refused(run, f"--output {tmp_path / 'file'}: this is a file, not a folder; give another name")
    if Path("/proc").exists():  # a folder that even root cannot write to
        assert_refused(run_main("--data", pairs, "--b", 2, "--output", "/proc/out"), "--output /proc/out")


def test_too_little_main_memory_is_one_line(pairs: Path, tmp_path: Path) -> None:
    argv = ("--data", pairs, "--ratio", 1, "--b", 2, "--workers", 0, "--gpus", "", "--output", tmp_path / "out")
    run = run_main(*argv, "--moco_k", 10**12)  # keys that no machine has room for
    assert_refused(run, "--b 2: it does not fit into main memory", "--accumulate 2 or more", "smaller crops")


def test_help_is_grouped_and_fits_a_terminal() -> None:
    run = run_main("--help")
    assert run.returncode == 0
    assert max(map(len, run.stdout.splitlines())) <= 100
    for flag in ("--data", "--gpus", "--moco_t", "--train_list"):
        assert flag in run.stdout


def test_project_never_needs_its_own_location(xrays: Path, tmp_path: Path) -> None:
    """A copy elsewhere, without tests and data beside it, runs: nothing points back here."""
    copy = tmp_path / "copy"
    ignore = shutil.ignore_patterns(".venv", ".git", ".coverage*", "tests", "__pycache__", "*_output")
    shutil.copytree(ROOT, copy, ignore=ignore)
    words = f"--data {xrays} --n chest --size 64 --b 2 --epochs 1 --ratio 1 --narrow 8 --workers 0 --image_every 0"
    run = subprocess.run(
        [sys.executable, str(copy / "main.py"), *words.split()],
        cwd=tmp_path,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},  # a copy would compile its kernels anew
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "pcrl_output" / "pcrl_chest_pretask_1.0_1.pt").exists()
