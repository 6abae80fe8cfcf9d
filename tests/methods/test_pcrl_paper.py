"""``--model pcrl_paper``: its step against a literal one, its third target, and runs from the command line."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import scatter_gather
from torch.utils.data import default_collate

from benchmarks.literal.step import LiteralStep, gate, head
from datasets.registry import DATASETS
from datasets.transforms.spatial import SpatialTransform
from export import export
from methods import METHODS
from methods.pcrl import PCRLConfig, PCRLDraws
from methods.pcrl_paper import PaperNetwork, PCRLPaper
from models.build import build_unet
from models.unet import published_state
from options import Options
from tests.checkpoints import save_checkpoint
from tests.conftest import rows, run_main, write_pairs, write_xrays
from tests.methods.test_data_parallel import Chunks, Joined, Replicas

SHAPES = {2: (3, 32, 32), 3: (1, 16, 16, 8)}
TERMS = ("nce", "nce_hybrid", "rec", "rec_momentum", "rec_hybrid")
N_DATA, TOLERANCE = 5, 1e-9
FLAGS = ("--model", "pcrl_paper", "--b", 2, "--moco_k", 8, "--ratio", 1.0, "--workers", 0, "--gpus", ",")


def make_method(dims: int, norm: str = "bn") -> PCRLPaper:
    torch.manual_seed(0)
    channels = SHAPES[dims][0]
    unet = build_unet(dims, channels, channels, norm, "sigmoid" if dims == 3 else "none", narrow=8)
    return PCRLPaper(PaperNetwork(unet), PCRLConfig(N_DATA, queue_size=16)).double().train()


def make_batch(dims: int, size: int, step: int = 0) -> dict[str, Tensor]:
    rng = np.random.default_rng([step, size])
    batch = {
        name: torch.from_numpy(rng.random((size, *SHAPES[dims])))
        for name in ("input1", "input2", "mask1", "mask2", "mask3")
    }
    codes = np.eye(dims + 4)
    return batch | {name: torch.from_numpy(codes[rng.integers(0, dims + 4, size)]) for name in ("aug1", "aug2", "aug3")}


def make_draws(size: int, step: int = 0) -> PCRLDraws:
    rng = np.random.default_rng(step)
    return PCRLDraws(0.3 + step / 10, 0.0, 0.0, torch.from_numpy(rng.permutation(size)), torch.arange(size))


class LiteralPaper(LiteralStep):
    """The paper's step, one thing after the other."""

    def losses(self, batch: dict[str, Tensor], draws: PCRLDraws) -> list[Tensor]:
        student, alpha = self.student, max(draws.alpha1, 1 - draws.alpha1)
        key, momentum = self.teach(batch["input2"], draws.shuffle)
        ordinary = self.encode(student, batch["input1"])
        hybrid = [alpha * o + (1 - alpha) * m for o, m in zip(ordinary, momentum, strict=True)]
        restored = []
        for features, code in ((ordinary, "aug1"), (momentum, "aug2"), (hybrid, "aug3")):
            restored.append(self.decode(student, [*features[:-1], gate(student, features[-1], batch[code])]))
        query = head(student, ordinary[-1])
        with torch.no_grad():
            hybrid_key = head(student, hybrid[-1])
        contrasts = [self.contrast(query, key), self.contrast(query, hybrid_key)]
        targets = (batch["mask1"], batch["mask2"], batch["mask3"])
        return contrasts + [F.mse_loss(one, target) for one, target in zip(restored, targets, strict=True)]


@pytest.mark.parametrize("dims", [2, 3])
def test_equals_a_literal_step(dims: int) -> None:
    """Two steps of SGD: losses, gradients, running statistics, the queue and the teacher."""
    method = make_method(dims)
    literal = LiteralPaper(dims, published_state(method.student), method.queue.memory, N_DATA)
    ours = torch.optim.SGD(method.trainable(), 0.05)
    theirs = torch.optim.SGD([literal.student[name] for name in literal.parameters], 0.05)
    for step in range(2):
        batch, draws = make_batch(dims, 3, step), make_draws(3, step)
        output, losses = method(batch, draws), literal.losses(batch, draws)
        loss = torch.stack(losses[:2]).mean() + torch.stack(losses[2:]).mean()
        assert [output.terms[name].item() for name in TERMS] == pytest.approx([x.item() for x in losses], rel=TOLERANCE)
        assert output.loss.item() == pytest.approx(loss.item(), rel=TOLERANCE)
        for optimizer, value in ((ours, output.loss), (theirs, loss)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        method.commit(output)
        literal.update_teacher()
    for network, expected in ((method.student, literal.student), (method.teacher, literal.teacher)):
        for name, value in published_state(network).items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(value, expected[name].detach(), rtol=1e-8, atol=1e-10, msg=name)
    torch.testing.assert_close(method.queue.memory, literal.memory, rtol=1e-9, atol=1e-12)
    assert method.queue.pointer == literal.pointer == 12, "two pushes a step"


def test_data_parallel_equals_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """With group normalisation samples do not see each other. Five samples over two replicas are 3 and 2."""
    monkeypatch.setattr(scatter_gather, "Scatter", Chunks)
    monkeypatch.setattr(scatter_gather, "Gather", Joined)
    alone, replicas = make_method(3, "gn"), Replicas(2)
    method = PCRLPaper(copy.deepcopy(alone.student), alone.config, replicas.wrap).double().train()
    method.load_state_dict(alone.state_dict())
    replicas.watch(method.student)
    batch, draws = make_batch(3, 5), make_draws(5)
    expected, output = alone(batch, draws), method(batch, draws)
    assert replicas.calls == 2, "one call of the teacher, one of the student"
    for name in TERMS:
        torch.testing.assert_close(output.terms[name], expected.terms[name], rtol=TOLERANCE, atol=0)
    replicas.backward = True
    expected.loss.backward()
    output.loss.backward()
    for ours, theirs in zip(method.trainable(), alone.trainable(), strict=True):
        assert theirs.grad is not None, "no parameter is idle: ranks wait for each"
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("n", ["chest", "luna"])
def test_the_third_target_is_view_1_transformed_anew(n: str, tmp_path: Path) -> None:
    """Whoever makes it, a worker or the device; what PCRL has of a sample stays as it is."""
    make = {"chest": lambda: write_xrays(tmp_path, count=8, size=40), "luna": lambda: write_pairs(tmp_path, pairs=3)}
    data, views, of_pcrl = make[n](), DATASETS[n].views["pcrl_paper"], DATASETS[n].views["pcrl"]
    files = views.find(data, "none", 1.0)
    whole, raw, pairs = (
        default_collate([each.samples(files, 3, 1, 32, augmented)[2, i] for i in range(len(files))])
        for each, augmented in ((views, True), (views, False), (of_pcrl, True))
    )
    assert whole.keys() - pairs.keys() == {"mask3", "aug3"}
    assert all(torch.equal(values, whole[name]) for name, values in pairs.items())
    made = views.augment(raw)
    assert made.keys() == whole.keys()
    for name, values in whole.items():
        torch.testing.assert_close(made[name], values, rtol=0, atol=1e-6, msg=name)
    for view, target, code in zip(whole["input1"], whole["mask3"], whole["aug3"], strict=True):
        assert np.array_equal(SpatialTransform.from_code(code.numpy()).apply(view.numpy()), target)
    assert not torch.equal(whole["aug1"], whole["aug3"])
    again = views.samples(files, 3, 1, 32, True)[2, 0]
    assert torch.equal(again["aug3"], whole["aug3"][0])
    assert "mask3" not in raw


def run(folder: Path, *argv: object) -> str:
    found = run_main(*argv, cwd=folder)
    assert found.returncode == 0, found.stderr
    return found.stdout + found.stderr


def test_trains_and_resumes(pairs: Path, tmp_path: Path) -> None:
    flags = ("--data", pairs, *FLAGS, "--epochs", 2, "--without", "gate")
    text = run(tmp_path, *flags, "--output", "whole", "--save_every", 1)
    assert "--without has no effect with --model pcrl_paper" in text
    assert set(TERMS) <= rows(tmp_path / "whole")[0].keys()
    assert (tmp_path / "whole" / "curves.png").exists()
    assert list((tmp_path / "whole" / "reconstructions").iterdir())
    name = "pcrl_paper_luna_pretask_1.0_{}.pt"
    first = tmp_path / "whole" / name.format(1)
    resumed = run(tmp_path, *flags, "--output", "resumed", "--resume", first)
    assert "going on at epoch 2" in resumed
    a, b = (torch.load(tmp_path / out / name.format(2), weights_only=True)["model"] for out in ("whole", "resumed"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_is_exported_with_its_name_and_its_paper(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "full.pt", "luna", model="pcrl_paper")
    saved = torch.load(tmp_path / "full.pt", weights_only=True)["model"]
    export(tmp_path / "full.pt", tmp_path / "weights", None, teacher=False)
    weights = torch.load(tmp_path / "weights" / "unet3d.pt", weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in weights.items())
    card = (tmp_path / "weights" / "README.md").read_text()
    assert "PCRL (as in the paper)" in card
    assert "Preservational Learning" in card


def test_x_rays_on_the_device_and_a_preview(tmp_path: Path) -> None:
    data = write_xrays(tmp_path / "xrays", count=4, size=64)
    flags = ("--data", data, "--n", "chest", *FLAGS, "--epochs", 1, "--size", 64)
    run(tmp_path, *flags, "--output", "look", "--preview", 1)
    assert (tmp_path / "look" / "views.png").exists()
    run(tmp_path, *flags, "--output", "out", "--augment", "device")
    assert set(TERMS) <= rows(tmp_path / "out")[0].keys()


def test_its_network_has_the_names_and_shapes_of_pcrls() -> None:
    settings = Options(data="x", n="chest", narrow=8).plain()
    ours, theirs = (published_state(METHODS[name].network(settings)) for name in ("pcrl_paper", "pcrl"))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
