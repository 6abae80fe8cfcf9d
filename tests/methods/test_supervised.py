"""Learning from labels as a method: what moves, what stays, and what a checkpoint holds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from datasets.loader import Loader
from methods.supervised import Supervised
from models.classifier import Classifier, Encoder
from models.pcrl import build_network
from models.unet import UNet, published_state
from tasks.class_scores import bce_loss
from tests.spawn import run_ranks
from training.loop import Trainer
from training.precision import Native
from training.predict import evaluating, predict
from utils.process_group import SINGLE, ProcessGroup

CPU = torch.device("cpu")


class Noise(torch.utils.data.Dataset):
    """Seven small images, each with the label that its number gives."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        rng = np.random.default_rng(key[1])
        image = rng.normal(size=(1, 16, 16, 8)).astype(np.float32)
        return {"image": torch.from_numpy(image), "label": torch.tensor([float(key[1] % 2), 1.0])}


def unet(dims: int, narrow: int = 8) -> UNet:
    torch.manual_seed(0)
    channels = 3 if dims == 2 else 1
    return build_network(dims, channels, channels, "bn", "none", narrow=narrow).unet


def supervised(frozen: bool, ranks: ProcessGroup = SINGLE) -> Supervised:
    network = Classifier(unet(3), classes=2)
    parts: Sequence[nn.Module] = [network.unet] if frozen else []
    return Supervised(network, bce_loss, parts, ranks=ranks)


def train_a_step(method: Supervised, ranks: ProcessGroup = SINGLE) -> None:
    loader = Loader(Noise(), 7, 0, 0, CPU, ranks=ranks)
    optimizer = torch.optim.SGD(method.trainable(), 0.5, momentum=0.9, weight_decay=0.1)
    trainer = Trainer(method, optimizer, Native(CPU, enabled=False), 0, 1, ranks)
    for number in range(2):
        for batch in loader.epoch(number):
            assert trainer.step(batch, number, 7).good


@pytest.mark.parametrize("frozen", [True, False])
def test_linear_leaves_every_bit_of_the_encoder(frozen: bool) -> None:
    method = supervised(frozen)
    before = copy.deepcopy(method.network.state_dict())
    train_a_step(method)
    after = method.network.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    encoder = {name for name in before if name.startswith("unet.")}
    assert same == (encoder if frozen else set())


def test_a_checkpoint_is_loaded_by_torchvision_and_by_the_method_itself() -> None:
    method = Supervised(Classifier(unet(2, narrow=1), classes=5), bce_loss)
    exported = method.export()
    resnet = torchvision.models.resnet18()
    result = resnet.load_state_dict(exported["state_dict"], strict=False)
    assert (result.unexpected_keys, set(result.missing_keys)) == ([], {"fc.weight", "fc.bias"})
    assert "decoder_state_dict" not in exported
    assert {"model.encoder.conv1.weight", "fc.weight"} <= set(exported["model"])
    other = Supervised(Classifier(unet(2, narrow=1), classes=5), bce_loss)
    for parameter in other.parameters():
        torch.nn.init.ones_(parameter)
    other.restore(exported)
    for name, tensor in published_state(other.network).items():
        assert torch.equal(tensor, exported["model"][name]), name
    image = torch.randn(2, 3, 64, 64)
    with evaluating(method), torch.no_grad():
        resnet.fc = torch.nn.Identity()
        features = resnet.eval()(image)
        torch.testing.assert_close(Encoder.forward(method.network, image), features)
        torch.testing.assert_close(method.predict(image), method.network.fc(features))


def test_a_class_map_has_its_decoder_in_the_checkpoint() -> None:
    whole = build_network(2, 3, 3, "bn", "none")
    assert "blocks.0.conv1.0.weight" in Supervised(whole, bce_loss).export()["decoder_state_dict"]


def outputs_of_a_rank(ranks: ProcessGroup) -> dict[str, Any]:
    method = supervised(False, ranks)
    train_a_step(method, ranks)
    loader = Loader(Noise(), 3, 0, 0, CPU, ranks=ranks, shuffled=False)
    with evaluating(method):
        outputs, labels = predict(method.predict, loader, Native(CPU, enabled=False))
        images = torch.stack([Noise()[(0, index)]["image"] for index in range(7)])
        with torch.no_grad():
            direct = method.predict(images)
    assert labels is not None
    statistics = torch.cat([b.flatten() for b in method.buffers() if b.is_floating_point()])
    return {"outputs": outputs, "labels": labels, "direct": direct.numpy(), "statistics": statistics.numpy()}


def test_ranks_predict_alike_and_in_order() -> None:
    for results in ([outputs_of_a_rank(SINGLE)], run_ranks(2, outputs_of_a_rank)):
        for result in results:
            np.testing.assert_allclose(result["outputs"], result["direct"], atol=1e-5)
            np.testing.assert_array_equal(result["labels"][:, 0], [0, 1, 0, 1, 0, 1, 0])
            np.testing.assert_array_equal(result["statistics"], results[0]["statistics"])
            np.testing.assert_array_equal(result["outputs"], results[0]["outputs"])


def test_outputs_in_16_bits_are_told_apart() -> None:
    """AUROC of equal outputs is a tie; bfloat16 has 128 numbers from 1 to 2."""
    network = Classifier(unet(2), classes=1).eval()
    network.fc.bias.data.fill_(1.5)
    images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        outputs = network(images)
    assert outputs.dtype == torch.float32
    assert len(outputs.unique()) == len(images)
