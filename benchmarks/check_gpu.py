"""Does this GPU compute what the CPU computes, and how fast? About 2 minutes: ``bash scripts/check_gpu.sh``.

    python -m benchmarks.check_gpu [--device cpu] [--quick] [--no-speed]

Prints ``ok`` or ``BAD`` for each check, then a table to paste into a report. Exit status 1 if something is bad.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_step import QUICK, SHAPES, make_trainer, tables
from benchmarks.step import Case, random_batch
from datasets.transforms import batched
from datasets.transforms.crops import sample_pair
from methods.pcrl import PCRL, PCRLConfig, PCRLDraws
from models.pcrl import PCRLNetwork
from models.unet import load_published_state, published_state
from models.unet2d import UNet2d
from models.unet3d import UNet3d
from tests.golden import rules

CPU = torch.device("cpu")
SMALL: dict[int, tuple[int, ...]] = {2: (64, 64), 3: (32, 32, 16)}
GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "pcrl_steps.json"
TERMS = ("nce", "nce_mixup", "nce_mixed_key", "rec", "rec_mixup", "rec_mixed", "rec_mixup_mixed")
BATCH, STEPS = 4, 3
bad: list[str] = []


def check(name: str, good: bool, detail: str = "") -> None:
    """Print a line, and keep what is bad."""
    print(f"{'ok ' if good else 'BAD'} {name} {detail}", flush=True)
    bad.extend([] if good else [name])


def versions(device: torch.device) -> None:
    """Versions, and combinations known to be bad."""
    cudnn = torch.backends.cudnn.version() or 0
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}")
    if device.type == "cuda":
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            print(f"GPU {number}: {facts.name}, {facts.major}.{facts.minor}, {facts.total_memory / 2**30:.0f} GiB")
        check("cuDNN is none that is slow at 3D convolutions (9.8 to 9.14)", not 90800 <= cudnn < 91500, str(cudnn))


def golden(device: torch.device, quick: bool) -> None:
    """The published implementation's numbers, in float64."""
    for case in json.loads(GOLDEN.read_text())[: 0 if quick else None]:
        unet = UNet2d() if case["dim"] == 2 else UNet3d(norm=case["norm"])
        network = PCRLNetwork(unet).double()
        load_published_state(network, {name: rules.weight(name, t) for name, t in published_state(network).items()})
        config = PCRLConfig(case["n_data"], case["temperature"], case["queue_size"], case["ema_momentum"])
        method = PCRL(network, config).double().train()
        method.queue.memory.copy_(rules.memory(case["queue_size"]))
        method.to(device)
        rates = {"momentum": case["momentum"], "weight_decay": case["weight_decay"]}
        optimizer = torch.optim.SGD(method.trainable(), case["lr"], **rates)
        worst = 0.0
        for record in case["steps"]:
            own = record["draws"]
            orders = (torch.tensor(own[name]) for name in ("shuffle", "index"))
            batch = {name: value.to(device) for name, value in rules.batch(case, record["step"]).items()}
            output = method(batch, PCRLDraws(own["alpha1"], own["lam"], own["alpha2"], *orders))
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            method.commit(output)
            found = sorted(output.terms[name].item() for name in TERMS)
            wanted = sorted([*record["nce"], *record["mse"]])
            worst = max([worst, *(abs(a - b) / abs(b) for a, b in zip(found, wanted, strict=True))])
        check(f"published numbers, {case['case']}", worst < 1e-9, f"{worst:.1e} apart")


def losses(
    dims: int, device: torch.device, amp: bool, channels_last: bool, graph: bool = False, narrow: int = 1
) -> list[float]:
    """Of each step the loss and its terms."""
    trainer = make_trainer(dims, device, graph, amp, channels_last, narrow)
    batch = random_batch(Case("ours", "", dims, BATCH, SMALL[dims], device.type), np.random.default_rng(0))
    found = []
    for number in range(STEPS):
        result = trainer.step(batch, number, BATCH)
        found += [result.loss, *(result.terms[name] for name in TERMS)]
    return found


def apart(found: list[float], wanted: list[float]) -> float:
    return max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(found, wanted, strict=True))


def precisions(device: torch.device, quick: bool) -> None:
    """Each precision and memory format against float32 on the CPU, and with a graph against without."""
    narrow = 16 if quick else 1
    for dims in (2, 3):
        wanted = losses(dims, CPU, False, False, narrow=narrow)
        for amp, channels_last in ((False, False), (False, True), (True, False), (True, True)):
            what = f"{dims}D {'bf16' if amp else 'float32'}, {'channels-last' if channels_last else 'contiguous'}"
            plain = losses(dims, device, amp, channels_last, narrow=narrow)
            check(f"{what} = CPU", apart(plain, wanted) < 0.05, f"{apart(plain, wanted):.1e} apart")
            replayed = losses(dims, device, amp, channels_last, True, narrow)
            tolerance = 2e-2 if amp else 2e-3
            off = apart(replayed, plain)
            check(f"{what}: graph = no graph", off < tolerance, f"{off:.1e} apart")
        torch.use_deterministic_algorithms(True, warn_only=True)
        tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
        plain, replayed = (losses(dims, device, False, False, graph, narrow) for graph in (False, True))
        check(f"{dims}D float32, deterministic: graph = no graph, to the bit", plain == replayed)
        torch.backends.cudnn.allow_tf32 = tf32
        torch.use_deterministic_algorithms(False)


def augmentation(device: torch.device, quick: bool) -> None:
    """``--augment device`` against the CPU: crops to rounding."""
    shape, rng = (32, 32, 16), np.random.default_rng(0)
    pairs = (sample_pair(shape, np.random.default_rng(seed)) for seed in range(4))
    own = [batched.parameters(each, shape) for pair in pairs for each in pair]
    stacked = {name: torch.from_numpy(np.stack([one[name] for one in own])) for name in own[0]}
    crops = torch.from_numpy(rng.random((len(own), *shape), dtype=np.float32))
    wanted = batched.augment(crops, stacked)
    found = batched.augment(crops.to(device), {name: value.to(device) for name, value in stacked.items()})
    largest = max((a.cpu() - b).abs().max().item() for a, b in zip(found, wanted, strict=True))
    check("--augment device, 3D = CPU", largest < 1e-4, f"{largest:.1e} apart")


def attempt(part: Callable[[], None], name: str) -> None:
    """A check that cannot even run is bad."""
    started = time.time()
    try:
        part()
    except Exception as error:  # whatever it is, the other checks go on
        check(name, False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    print(f"    {name}: {time.time() - started:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--no-speed", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here that torch can use; --device cpu tries the program itself", file=sys.stderr)
        return 2
    attempt(lambda: versions(device), "versions")
    for part in (golden, precisions, augmentation):
        attempt(lambda part=part: part(device, options.quick), part.__name__)  # type: ignore[misc]
    if not options.no_speed:
        shapes = QUICK if options.quick else SHAPES[:2]
        attempt(lambda: tables(device, 2 if options.quick else 5, options.quick, shapes), "speed")
    print("all right" if not bad else f"{len(bad)} BAD: {'; '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
