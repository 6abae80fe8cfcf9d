"""The probe with several processes: the first one computes, and all train as they would without."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.conftest import rows, run_main, write_xrays


def test_two_processes_train_as_they_would_without(tmp_path: Path) -> None:
    data = write_xrays(tmp_path / "data", count=8, size=64)
    lines = "".join(f"{n + 1:08d}_000.png,{n % 2}\n" for n in range(8))
    (data / "probe.csv").write_text("image,ill\n" + lines)
    common = ("--data", data, "--parallel", "ddp", "--processes", 2, "--gpus", "", "--n", "chest", "--size", 64)
    common += ("--train_list", "none", "--ratio", 1, "--epochs", 1, "--b", 8, "--workers", 0, "--moco_k", 32)
    common += ("--image_every", 0)
    probed = ("--probe_list", data / "probe.csv", "--probe_every", 1, "--keep", "best-probe")
    for name, more in (("plain", ()), ("probed", probed)):
        done = run_main(*common, *more, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert done.stdout.count(": probe on labels knn ") == 2
    assert [row["epoch"] for row in rows(tmp_path / "probed") if "probe_knn" in row] == [0, 1]
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("plain", "probed"))
    for key in ("model", "model_ema"):
        assert all(torch.equal(one[key][name], other[key][name]) for name in one[key])
    assert other["best_epoch"] == 1
