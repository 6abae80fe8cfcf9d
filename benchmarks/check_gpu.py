"""Does this GPU compute what the CPU computes, and how fast? About 2 minutes: ``bash scripts/check_gpu.sh``.

    python -m benchmarks.check_gpu [--device cpu] [--quick] [--no-speed]

Prints ``ok``, ``BAD`` or ``skipped`` for each check, and by how much or why, then a table to paste into a report. Exit
status 1 if something is bad.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not deterministic; before CUDA starts

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_agreement import Answer, Check, parallel, precisions
from benchmarks.gpu_step import QUICK, SHAPES, tables
from datasets.transforms import batched, xray_batched
from datasets.transforms.crops import sample_pair
from datasets.transforms.xray import XRayParams, view
from methods.pcrl import PCRLDraws
from methods.pcrlv2 import PCRLv2Draws
from tests.golden import methods as golden_methods
from tests.golden import rules
from training.devices import check_gpus
from utils.errors import UserError

NCE_AND_MSE = ("nce", "nce_mixup", "nce_mixed_key", "rec", "rec_mixup", "rec_mixed", "rec_mixup_mixed")
OF_V2 = {"restoration": "restoration", "comparison": "comparison", "local": "local", "deep": "deep_restoration"}
SCHEDULE = 240  # epochs of the published beta
SMALLEST = 1e-3  # of a term, for a relative difference: a comparison may be near 0
SLOW_CUDNN = range(90800, 91500)  # at 3D convolutions in half precision


def versions(device: torch.device, quick: bool) -> Iterator[Check]:
    """What runs here, and combinations known to be bad."""
    cudnn = torch.backends.cudnn.version() or 0
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}")
    if device.type != "cuda":
        return
    numbers = range(torch.cuda.device_count())
    for number in numbers:
        facts = torch.cuda.get_device_properties(number)
        print(f"GPU {number}: {facts.name}, {facts.major}.{facts.minor}, {facts.total_memory / 2**30:.0f} GiB")

    def usable() -> Answer:
        try:
            check_gpus(numbers)
        except UserError as error:
            return Answer(False, str(error))
        return Answer(True)

    yield "torch, driver and GPUs fit", usable
    yield "torch is not 2.9", lambda: Answer(not torch.__version__.startswith("2.9."), torch.__version__)
    yield "cuDNN is not slow at 3D (9.8 to 9.14)", lambda: Answer(cudnn not in SLOW_CUDNN, str(cudnn))
    half = [torch.cuda.get_device_capability(number) >= (8, 0) for number in numbers]
    yield "all GPUs compute bf16, or none", lambda: Answer(len(set(half)) == 1, f"bf16: {half}")


def golden(device: torch.device, quick: bool) -> Iterator[Check]:
    """The published implementations' numbers, in float64."""
    for name, worst_of in (("pcrl", _worst_of_pcrl), ("pcrlv2", _worst_of_pcrlv2)):
        for case in golden_methods.cases(name)[: 1 if quick else None]:

            def compare(case: dict[str, Any] = case, worst_of: Callable[..., float] = worst_of) -> Answer:
                worst = worst_of(case, device, case["steps"][: 1 if quick else None])
                return Answer(worst < 1e-9, f"{worst:.1e} apart")

            yield f"published numbers, {name}, {case['case']}", compare


def _worst_of_pcrl(case: dict[str, Any], device: torch.device, records: list[dict[str, Any]]) -> float:
    method, worst = golden_methods.pcrl(case).to(device), 0.0
    optimizer = _golden_sgd(method, case)
    for record in records:
        own = record["draws"]
        orders = (torch.tensor(own[name]) for name in ("shuffle", "index"))
        batch = _moved(rules.batch(case, record["step"]), device)
        terms = _step(method, optimizer, batch, PCRLDraws(own["alpha1"], own["lam"], own["alpha2"], *orders))
        found = sorted(terms[name].item() for name in NCE_AND_MSE)
        wanted = sorted([*record["nce"], *record["mse"]])
        worst = max([worst, *(abs(a - b) / abs(b) for a, b in zip(found, wanted, strict=True))])
    return worst


def _worst_of_pcrlv2(case: dict[str, Any], device: torch.device, records: list[dict[str, Any]]) -> float:
    method, worst = golden_methods.pcrlv2(case).to(device), 0.0
    optimizer = _golden_sgd(method, case)
    for record in records:
        optimizer.param_groups[0]["lr"] = record["lr"]
        method.begin(record["epoch"], SCHEDULE)
        batch = _moved(golden_methods.pcrlv2_batch(case, record["step"]), device)
        terms = _step(method, optimizer, batch, PCRLv2Draws(tuple(record["draws"]["scales"])))
        differences = {name: abs(terms[name].item() - record[key]) for name, key in OF_V2.items()}
        worst = max([worst, *(off / max(abs(record[OF_V2[name]]), SMALLEST) for name, off in differences.items())])
    return worst


def _golden_sgd(method: Any, case: dict[str, Any]) -> torch.optim.SGD:
    rates = {"momentum": case["momentum"], "weight_decay": case["weight_decay"]}
    return torch.optim.SGD(method.trainable(), case["lr"], **rates)


def _step(method: Any, optimizer: torch.optim.SGD, batch: dict[str, Tensor], draws: Any) -> dict[str, Tensor]:
    output = method(batch, draws)
    optimizer.zero_grad()
    output.loss.backward()
    optimizer.step()
    method.commit(output)
    return output.terms


def _moved(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def augmentation(device: torch.device, quick: bool) -> Iterator[Check]:
    """``--augment device`` against the CPU: crops to rounding, X-rays to the bit."""
    yield "--augment device, 2D = CPU", lambda: _xrays(device)
    yield "--augment device, 3D = CPU", lambda: _crops(device)


def _xrays(device: torch.device) -> Answer:
    size, image = 64, np.random.default_rng(0).integers(0, 256, (100, 90), np.uint8)
    params = [XRayParams.sample(100, 90, size, np.random.default_rng(seed)) for seed in range(8)]
    raw = [xray_batched.parameters(image, each, 3, size) for each in params]
    found = xray_batched.finish(
        {name: torch.from_numpy(np.stack([r[name] for r in raw])).to(device) for name in raw[0]}
    )
    wanted = [dict(zip(("input", "mask", "gt"), view(image, each, 3, size), strict=True)) for each in params]
    whole = {name: torch.from_numpy(np.stack([one[name] for one in wanted])) for name in wanted[0]}
    same = [torch.equal(found[name].cpu(), value) for name, value in whole.items()]
    return Answer(all(same), "the same bits are wanted")


def _crops(device: torch.device) -> Answer:
    shape, rng = (32, 32, 16), np.random.default_rng(0)
    pairs = (sample_pair(shape, np.random.default_rng(seed)) for seed in range(4))
    own = [batched.parameters(each, shape) for pair in pairs for each in pair]
    stacked = {name: torch.from_numpy(np.stack([one[name] for one in own])) for name in own[0]}
    crops = torch.from_numpy(rng.random((len(own), *shape), dtype=np.float32))
    wanted = batched.augment(crops, stacked)
    found = batched.augment(crops.to(device), _moved(stacked, device))
    largest = max((a.cpu() - b).abs().max().item() for a, b in zip(found, wanted, strict=True))
    return Answer(largest < 1e-4, f"{largest:.1e} apart")


def attempt(name: str, check: Callable[[], Answer], bad: list[str]) -> None:
    """Print the answer; what cannot even run is bad."""
    started = time.time()
    try:
        answer = check()
    except Exception as error:  # whatever it is, the other checks go on
        answer = Answer(False, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
    word = {True: "ok", False: "BAD", None: "skipped"}[answer.good]
    print(f"{word:7} {name}: {answer.detail} ({time.time() - started:.0f} s)", flush=True)
    bad.extend([name] if answer.good is False else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--no-speed", action="store_true", help="without the table")
    options = parser.parse_args()
    device, bad = torch.device(options.device), list[str]()
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here that torch can use; --device cpu tries the program itself", file=sys.stderr)
        return 2
    for part in (versions, golden, precisions, augmentation, parallel):
        for name, check in part(device, options.quick):
            attempt(name, check, bad)
    if not options.no_speed:
        tables(device, 2 if options.quick else 5, options.quick, QUICK if options.quick else SHAPES[:2])
    print("all right" if not bad else f"{len(bad)} BAD: {'; '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
