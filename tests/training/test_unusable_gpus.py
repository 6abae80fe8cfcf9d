"""GPUs that are asked for and cannot be used are told in one line; those that can are asked one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, run_main
from training import devices
from training.devices import Devices, _Replica, has_code_for, nvidia_driver, processes_wanted
from training.precision import build_precision
from utils.errors import UserError

TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"


class Machine:
    """What torch.cuda says of a machine with GPUs of these compute capabilities; an error: its driver's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int], error: str = "") -> None:
        self.capabilities, self.error, self.current = capabilities, error, 0
        replies = {
            "device_count": lambda: len(capabilities),
            "get_device_capability": self.capability,
            "get_arch_list": lambda: ["sm_75", "sm_80", "sm_90", "compute_90"],
            "get_device_name": lambda number: f"GPU of the {number + 1}. slot",
            "set_device": self.set_device,
            "is_bf16_supported": lambda including_emulation=True: capabilities[self.current] >= (8, 0),
        }
        for name, reply in replies.items():
            monkeypatch.setattr(torch.cuda, name, reply)

    def capability(self, number: int) -> tuple[int, int]:
        if self.error:
            raise RuntimeError(self.error)
        return self.capabilities[number]

    def set_device(self, device: torch.device) -> None:
        self.current = device.index


@pytest.mark.parametrize(
    ("capability", "built_for", "expected"),
    [
        ((7, 0), ["sm_75", "sm_80", "compute_80"], False),
        ((8, 6), ["sm_75", "sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((12, 0), ["sm_90"], False),
        ((9, 0), ["sm_90a"], True),
        ((12, 0), ["sm_100", "sm_120"], True),
        ((9, 4), ["gfx942"], True),  # AMD's: nothing is known
        ((7, 0), [], True),
    ],
)
def test_whether_there_is_code_for_a_gpu(capability: tuple[int, int], built_for: list[str], expected: bool) -> None:
    assert has_code_for(capability, built_for) == expected


def test_an_old_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, (8, 0), error=f"{TOO_OLD}\nby downloading a new version")
    expected = r"^GPU 0 cannot be used by torch .*driver on your system is too old \(found version 11040\); docs/"
    for use in (lambda: Devices(None), lambda: processes_wanted("ddp", 0, None)):
        with pytest.raises(UserError, match=expected):
            use()


def test_a_gpu_that_torch_has_no_code_for_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, (8, 0), (7, 0))
    expected = r"^GPU 1 \(GPU of the 2\. slot, compute capability 7\.0\): torch .* does not support this GPU; docs/GPUS"
    with pytest.raises(UserError, match=expected):
        Devices(None)
    assert Devices("0").main == torch.device("cuda", 0)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize(("gpus", "name"), [("1,2", "float16"), ("2,1", "bfloat16"), ("0", "bfloat16")])
def test_the_first_gpu_to_use_is_asked_whether_it_has_bf16(
    gpus: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(monkeypatch, (8, 0), (7, 5), (9, 0))
    module = torch.nn.Linear(2, 2)
    precision = build_precision("auto", Devices(gpus).main, module, torch.optim.SGD(module.parameters(), 0.1))
    assert precision.name == name


def test_dataparallel_is_told_once_what_scales_better(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, (8, 0), (8, 0))
    assert "--parallel ddp" in Devices(None).advice
    assert not Devices("0").advice
    assert not Devices(None, local_rank=1).advice


def fake_driver(folder: Path) -> Path:
    """A folder for PATH with an nvidia-smi, as NVIDIA's driver installs it."""
    folder.mkdir()
    script = folder / "nvidia-smi"
    script.write_text("#!/bin/sh\nexit 9\n")
    script.chmod(0o755)
    return folder


def test_a_gpu_asked_for_where_only_its_driver_is_there_is_refused(tmp_path: Path) -> None:
    path = f"{fake_driver(tmp_path / 'bin')}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "main.py"), "--data", str(tmp_path), "--n", "luna", "--gpus", "0"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("error: --gpus 0: torch sees no GPU, but this machine has an NVIDIA driver (")
    assert "--gpus '' takes the CPU" in run.stderr
    assert run.stderr.count("\n") == 1


def test_which_signs_of_a_driver_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake_driver(tmp_path / "bin")))
    assert nvidia_driver() == str(tmp_path / "bin" / "nvidia-smi")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for cuda, why in ((None, "is built for the CPU; install one for CUDA"), ("13.0", "run nvidia-smi")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        with pytest.raises(UserError, match=why):
            Devices("0,1")
    assert Devices("").main.type == Devices(None).main.type == "cpu"


@pytest.mark.skipif(bool(nvidia_driver()), reason="this machine has an NVIDIA driver")
def test_a_gpu_asked_for_on_a_machine_without_any_is_warned_of(tmp_path: Path) -> None:
    run = run_main("--data", tmp_path, "--n", "luna", "--gpus", "0,1")
    assert "warning: --gpus: no GPU 0, 1 on this machine (0 GPUs here, and no NVIDIA driver)\n" in run.stderr
    assert "device: CPU" in run.stdout


@pytest.mark.parametrize("dims", [2, 3])
def test_replicas_see_images_in_the_memory_format_of_the_network(dims: int) -> None:
    """DataParallel's copies of the kernels are contiguous: the images decide then."""
    convolution = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2]
    channels_last = devices.MEMORY_FORMATS[dims + 2]
    image = torch.rand(2, 3, *[8] * dims)
    for wanted in (torch.contiguous_format, channels_last):
        network = torch.nn.Sequential(convolution(3, 4, 3), convolution(4, 4, 3)).to(memory_format=wanted)
        replica = _Replica(network, "cpu")
        for parameter in network.parameters():
            parameter.data = parameter.data.flatten().view(parameter.shape)  # as the broadcast leaves it
        assert replica(image).is_contiguous(memory_format=wanted)


def test_all_images_of_a_replica_are_in_its_memory_format() -> None:
    """Of PCRLv2, the second view and the local views (B, L, C, ...), which the network sees image by image."""
    seen = []

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

        def forward(self, view1: torch.Tensor, view2: torch.Tensor, local: torch.Tensor, scale: int) -> int:
            seen.extend([view1, view2, local.transpose(0, 1).flatten(0, 1)])
            return scale

    view, local = torch.rand(2, 3, 8, 8), torch.rand(2, 6, 3, 4, 4)
    assert _Replica(Network(), "cpu")(view, view.clone(), local, 1) == 1
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in seen)
    assert torch.equal(seen[2], local.transpose(0, 1).flatten(0, 1))
