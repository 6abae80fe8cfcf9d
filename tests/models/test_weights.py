"""--weight: what fits is used, by name and shape, whoever wrote the file; the rest is named."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from models.pcrl import PCRLNetwork, build_network
from models.segmenter import build_segmenter
from models.unet import published_state
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


def test_an_output_layer_of_another_shape_is_not_used(tmp_path: Path) -> None:
    state = published_state(network(3))
    state["out_tr.final_conv.weight"] = torch.zeros(5, 64, 1, 1, 1)
    target = network(3)
    report = load_weights(target, save(tmp_path, {"state_dict": state}))
    assert (report.missing, report.unexpected) == ([], [])
    assert (report.reshaped, report.left) == (["out_tr.final_conv.weight"], ["out_tr.final_conv.bias"])
    assert str(report) == (
        "112 tensors used; 1 of another shape, so initialised randomly (out_tr.final_conv.weight); output layer of "
        "another network, so initialised randomly (1 tensor would fit, but a part is loaded completely or not at all)"
    )


@pytest.mark.parametrize("payload", [{}, {"state_dict": {"a": torch.zeros(3)}}, [1, 2], {"epoch": 3}])
def test_nothing_used_is_an_error(tmp_path: Path, payload: object) -> None:
    with pytest.raises(UserError, match="none of its"):
        load_weights(network(3), save(tmp_path, payload))


def named_like_models_genesis() -> dict[str, torch.Tensor]:
    """Names and shapes of the 3D files of Models Genesis, written down from their layers: no heads, with `module.`."""
    state = {}
    widths = {"down_tr64": (1, 32, 64), "down_tr128": (64, 64, 128), "down_tr256": (128, 128, 256)}
    widths |= {"down_tr512": (256, 256, 512)}
    widths |= {"up_tr256": (512 + 256, 256, 256), "up_tr128": (256 + 128, 128, 128), "up_tr64": (128 + 64, 64, 64)}
    for block, (first, middle, last) in widths.items():
        for i, (inputs, outputs) in enumerate(((first, middle), (middle, last))):
            state[f"{block}.ops.{i}.conv1.weight"] = torch.rand(outputs, inputs, 3, 3, 3)
            state[f"{block}.ops.{i}.conv1.bias"] = torch.rand(outputs)
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[f"{block}.ops.{i}.bn1.{name}"] = torch.rand(outputs)
            state[f"{block}.ops.{i}.bn1.num_batches_tracked"] = torch.tensor(7)
        if block.startswith("up"):
            up = first - last  # the upsampled map keeps its channels
            state[f"{block}.up_conv.weight"] = torch.rand(up, up, 2, 2, 2)
            state[f"{block}.up_conv.bias"] = torch.rand(up)
    state |= {"out_tr.final_conv.weight": torch.rand(1, 64, 1, 1, 1), "out_tr.final_conv.bias": torch.rand(1)}
    return {f"module.{name}": tensor for name, tensor in state.items()}


def test_models_genesis_and_successors(tmp_path: Path) -> None:
    """3D files of others with the same U-Net: all of it is used, and what is theirs alone is named."""
    state = named_like_models_genesis()
    theirs = {"module.proj_head.0.weight": torch.rand(8, 8), "module.aug_fc1.weight": torch.rand(256, 6)}
    # numpy numbers among the rest, and the file format of old versions of torch
    payload = {"state_dict": state | theirs, "epoch": np.int64(3), "best_loss": np.float64(0.5), "optimizer": {}}
    path = tmp_path / "weights.pt"
    torch.save(payload, path, _use_new_zipfile_serialization=False)
    target = network(3)
    report = load_weights(target, path)
    assert len(report.used) == len(state) == 106
    assert (report.unexpected, report.reshaped) == (["proj_head.0.weight"], ["aug_fc1.weight"])
    heads = {f"{layer}.{name}" for layer in ("fc1", "fc2", "aug_fc1", "aug_fc2") for name in ("weight", "bias")}
    assert {*report.missing, *report.reshaped} == heads
    assert str(report) == (
        "106 tensors used; 7 missing (fc1.weight, fc1.bias, fc2.weight, ...); 1 of another shape, so "
        "initialised randomly (aug_fc1.weight); 1 unexpected (proj_head.0.weight)"
    )
    for name, tensor in published_state(target).items():
        assert name in heads or torch.equal(tensor, state[f"module.{name}"]), name


def test_network_inside_another_one(tmp_path: Path) -> None:
    source, target = network(3), network(3)
    state = published_state(source)
    encoder = {name: tensor for name, tensor in state.items() if name.startswith("down_")}
    wrapped = {f"module.encoder.{name}": tensor for name, tensor in encoder.items()}
    # two tensors of one bare name: that with the others is used, the other is not lost from the report
    wrapped["module.backbone.down_tr64.ops.0.conv1.bias"] = torch.zeros(32)
    report = load_weights(target, save(tmp_path, {"state_dict": wrapped | {"module.classifier.weight": torch.ones(2)}}))
    assert set(report.used) == set(encoder)
    assert report.unexpected == ["backbone.down_tr64.ops.0.conv1.bias", "classifier.weight"]
    assert torch.equal(target.unet.down_tr64.ops[0].conv1.bias, state["down_tr64.ops.0.conv1.bias"])


@pytest.mark.parametrize(("there", "here"), [(2, 3), (3, 2)])
def test_a_network_of_other_dimensions_is_named(tmp_path: Path, there: int, here: int) -> None:
    """Some tensors of the heads would fit."""
    path = save(tmp_path, {"model": published_state(network(there))})
    with pytest.raises(UserError, match=rf"weights.pt: holds a {there}D network, and this one is {here}D; give"):
        load_weights(network(here), path)


def test_heads_without_an_encoder_are_refused(tmp_path: Path) -> None:
    state = {name: value for name, value in published_state(network(3)).items() if name.startswith("fc")}
    with pytest.raises(UserError, match="none of its 4 tensors fits the encoder of this 3D"):
        load_weights(network(3), save(tmp_path, state))


def test_a_report_knows_the_run_that_made_a_file(tmp_path: Path) -> None:
    made = {"opt": {"size": 64}, "run": {"recipes": [{"hu": [-150, 250]}]}}
    state = {"state_dict": published_state(network(3))}
    assert load_weights(network(3), save(tmp_path, state | made)).made == made
    assert load_weights(network(3), save(tmp_path, state | {"opt": argparse.Namespace(size=1), "run": 3})).made == {}


def test_a_stem_of_one_channel_serves_several(tmp_path: Path) -> None:
    source, target = network(3), build_segmenter(4, 2, "bn", 0)
    report = load_weights(target, save(tmp_path, {"state_dict": published_state(source)}))
    assert all("out_tr" in name for name in report.reshaped), "but the output layer"
    assert "the first convolution repeated over 4 channels and divided by 4" in str(report)
    crop = torch.rand(1, 1, 16, 16, 16)
    ours, theirs = target.eval().unet.encode(crop.expand(1, 4, 16, 16, 16)), source.eval().unet.encode(crop)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))
