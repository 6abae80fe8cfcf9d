"""What a probe by labels costs beside the training: CPU time of both for an image, in one thread.

python -m benchmarks.probe_cost --data FOLDER --list FILE [--size 64] [--steps 6]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from options import Options
from phases.pretask import build_loader, build_method, build_student, view_shape
from phases.probe import build_probe
from training.devices import Devices
from training.loop import Trainer
from training.precision import Native
from training.schedule import build_optimizer
from utils.errors import run_cli
from utils.process_group import SINGLE


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Train some steps and probe once, with the images of one list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--list", required=True, help="of images and labels")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(1)
    common = {"data": args.data, "train_list": args.list, "probe_list": args.list, "size": args.size}
    options = Options(n="chest", ratio=1.0, workers=0, gpus="", **common)
    devices = Devices("", None)
    loader, files = build_loader(options, devices, SINGLE)
    network, _ = build_student(options, view_shape(loader))
    method = build_method(options, network, len(loader), devices, SINGLE)
    probe = build_probe(options, method, network, devices, SINGLE)
    assert probe is not None, "there is a list"
    precision = Native(devices.main, enabled=False)
    trainer = Trainer(method, build_optimizer("sgd", method.trainable(), 1e-3, 0.9, 1e-4), precision, 0, 10)
    batches = loader.epoch(0)

    def steps(count: int) -> None:
        for number in range(count):
            trainer.step(next(batches), number, options.b)

    method.train()
    probe(method, precision)  # imports, and compiles
    steps(1)
    training = cpu_seconds(lambda: steps(args.steps)) / (args.steps * options.b)
    probing = cpu_seconds(lambda: probe(method, precision)) / len(files)
    print(
        f"training: {1000 * training:.1f} ms an image; a probe: {1000 * probing:.1f} ms, {probing / training:.1%} of it"
    )
    share = probing / training / options.probe_every
    print(f"with as many images to probe by, every {options.probe_every} epochs: {share:.1%} of the training's time")


if __name__ == "__main__":
    run_cli(main)
