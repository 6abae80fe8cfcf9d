"""--weight: what fits is used, by name and shape, whoever wrote the file; the rest is named."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
import torchvision

from models.pcrl import PCRLNetwork, build_network, published_state
from models.weights import load_weights
from utils.errors import UserError


def network(dims: int) -> PCRLNetwork:
    return build_network(dims, 3, 3, "bn", "none") if dims == 2 else build_network(dims, 1, 1, "bn", "sigmoid")


def save(tmp_path: Path, payload: object) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(payload, path)
    return path


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_published_3d_file(tmp_path: Path, wrapper: str) -> None:
    source, target = network(3), network(3)
    state = {wrapper + name: tensor for name, tensor in published_state(source).items()}
    # as the published code saves: options in an argparse.Namespace, beside the optimizer's state
    path = save(tmp_path, {"opt": argparse.Namespace(b=16), "state_dict": state, "optimizer": {}, "epoch": 60})
    report = load_weights(target, path)
    assert (len(report.used), report.missing, report.unexpected) == (114, [], [])
    for name, tensor in published_state(target).items():
        assert torch.equal(tensor, published_state(source)[name]), name


def test_torchvision_encoder_alone(tmp_path: Path) -> None:
    resnet, target = torchvision.models.resnet18(), network(2)
    report = load_weights(target, save(tmp_path, resnet.state_dict()))
    assert len(report.used) == 120
    assert report.unexpected == ["fc.weight", "fc.bias"]
    assert len(report.missing) == 190 - 120
    assert torch.equal(target.unet.encoder.layer4[1].conv2.weight, resnet.layer4[1].conv2.weight)


def test_published_2d_file_with_its_decoder(tmp_path: Path) -> None:
    source, target = network(2), network(2)
    parts = {
        "state_dict": {f"module.{k}": v for k, v in source.unet.encoder.state_dict().items()},
        "decoder_state_dict": source.unet.decoder.state_dict(),
    }
    report = load_weights(target, save(tmp_path, parts))
    assert report.unexpected == []
    assert all(name.startswith(("model.segmentation_head", "fc", "aug_fc")) for name in report.missing)


def test_shapes_that_differ_are_not_used(tmp_path: Path) -> None:
    state = published_state(network(3))
    state["out_tr.final_conv.weight"] = torch.zeros(5, 64, 1, 1, 1)
    target = network(3)
    report = load_weights(target, save(tmp_path, {"state_dict": state}))
    assert report.unexpected == ["out_tr.final_conv.weight"]
    assert report.missing == ["out_tr.final_conv.weight"]
    assert "1 missing (out_tr.final_conv.weight)" in str(report)


@pytest.mark.parametrize("payload", [{}, {"state_dict": {"a": torch.zeros(3)}}, [1, 2], {"epoch": 3}])
def test_nothing_used_is_an_error(tmp_path: Path, payload: object) -> None:
    with pytest.raises(UserError, match="none of its"):
        load_weights(network(3), save(tmp_path, payload))
