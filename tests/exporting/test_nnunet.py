"""``--target nnunet``: features equal, names and shapes as nnU-Net's loader demands them, plans that it can follow."""

from __future__ import annotations

import importlib
import json
import pydoc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from export import export
from exporting.folder import write_definitions
from exporting.nnunet import network_weights, plans_fragment
from exporting.portable import Portable
from exporting.standalone_nnunet import PCRLUNet3d
from models.pcrl import build_network
from models.unet import UNet, z_normal
from models.unet2d import ResNetEncoder
from models.unet3d import UNet3d
from models.weights import load_weights
from tests.checkpoints import lively
from tests.published_v2 import published_v2
from utils.errors import UserError

Located = Callable[[Path], Any]


@pytest.fixture
def located(monkeypatch: pytest.MonkeyPatch) -> Located:
    """The class of an export, found by its name in plans.json with the export's folder on the path, as nnU-Net does."""

    def locate(folder: Path) -> Any:
        monkeypatch.syspath_prepend(str(folder))
        for name in ("pcrl_nnunet", "unet3d"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return pydoc.locate(architecture(folder)["network_class_name"])

    return locate


def architecture(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "plans.json").read_text())["configurations"]["3d_fullres"]["architecture"]


def loaded(network_class: Any, folder: Path, channels: int = 1) -> Any:
    """The network of the plans with three classes, and all in it that nnU-Net's -pretrained_weights demands."""
    kwargs = {"deep_supervision": True, **architecture(folder)["arch_kwargs"]}
    network = network_class(input_channels=channels, num_classes=3, **kwargs)
    network.apply(network.initialize)
    given = torch.load(folder / "nnunet.pth", weights_only=True)["network_weights"]
    own = network.state_dict()
    demanded = {name: tensor.shape for name, tensor in own.items() if ".seg_layers." not in name}
    assert {name: tensor.shape for name, tensor in given.items()} == demanded
    network.load_state_dict(own | given)
    return network.double().eval()


@pytest.fixture(scope="module")
def pcrl(tmp_path_factory: pytest.TempPathFactory) -> tuple[UNet, Path]:
    """A student's U-Net in float64, and the folder of its export for nnU-Net."""
    folder = tmp_path_factory.mktemp("pcrl")
    unet = UNet3d(final_act="none")
    lively(unet)
    torch.save({"state_dict": unet.state_dict(), "opt": {"n": "luna"}}, folder / "checkpoint.pt")
    export(folder / "checkpoint.pt", folder / "weights", "nnunet", teacher=False)
    return unet.double().eval(), folder / "weights"


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> tuple[UNet, Path]:
    """The same of a published file of PCRLv2."""
    folder, content = tmp_path_factory.mktemp("v2"), published_v2(3)
    torch.save(content | {"opt": {"model": "pcrlv2", "n": "luna"}}, folder / "checkpoint.pt")
    export(folder / "checkpoint.pt", folder / "weights", "nnunet", teacher=False)
    unet = UNet3d(skips=False)
    tensors = {name.removeprefix("module."): tensor for name, tensor in content["state_dict"].items()}
    unet.load_state_dict({name: tensors[name] for name in unet.state_dict()})
    return unet.double().eval(), folder / "weights"


def volume(channels: int = 1) -> Tensor:
    return torch.rand(1, channels, 16, 24, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def turned(x: Tensor) -> Tensor:
    """Axes x, y, z to nnU-Net's z, y, x, and back."""
    return x.permute(0, 1, 4, 3, 2)


def check_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.abs().max() > 1e-3, "maps of zeros prove nothing"
        torch.testing.assert_close(turned(b), a, rtol=1e-11, atol=1e-11)


CUT = {"crop": [32, 32, 16], "box_mm": [64, 64, 32], "spacing_mm": 1.0, "scans": 2}
RECIPES: list[dict[str, Any]] = [CUT | {"hu": [-1000, 400]}, {"scans": 1}]  # the second: of crops without a record


@pytest.mark.parametrize(("recipes", "known"), [(RECIPES, True), (RECIPES[::-1], True), ([], False)])
def test_a_window_that_is_not_known_is_said(recipes: Any, known: bool, tmp_path: Path, capsys: Any) -> None:
    content = {"state_dict": UNet3d().state_dict(), "opt": {"n": "luna"}, "run": {"samples": 1, "recipes": recipes}}
    torch.save(content, tmp_path / "checkpoint.pt")
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", "nnunet", teacher=False)
    assert ("does not tell the intensity window" in capsys.readouterr().err) is not known
    fragment = json.loads((tmp_path / "weights" / "plans.json").read_text())
    assert fragment["foreground_intensity_properties_per_channel"]["0"]["max"] == (400 if known else 1000)


def test_encoder_and_decoder_of_pcrl(pcrl: Any, located: Located) -> None:
    ours, folder = pcrl
    theirs = loaded(located(folder), folder)
    with torch.no_grad():
        features = ours.encode(volume())
        check_equal(features, theirs.encoder(turned(volume())))
        outputs = theirs(turned(volume()))
        assert [tuple(output.shape) for output in outputs] == [(1, 3, 8, 24, 16), (1, 3, 4, 12, 8), (1, 3, 2, 6, 4)]
        theirs.decoder.deep_supervision = False
        theirs.decoder.seg_layers[-1] = ours.output_layer().final_conv  # new there, and all the rest is ours
        check_equal([ours.decode(features)], [theirs(turned(volume()))])


@pytest.mark.parametrize("norm", ["gn", "in"])
def test_other_norms(norm: str) -> None:
    ours = UNet3d(norm=norm)
    lively(ours)
    with torch.device("meta"):
        theirs = PCRLUNet3d(1, 1, norm=norm)
    weights = network_weights(ours.state_dict(), 1, norm)
    missing, unexpected = theirs.load_state_dict(weights, strict=False, assign=True)
    assert not unexpected
    assert all(".seg_layers." in name for name in missing)
    with torch.no_grad():
        check_equal(ours.double().encode(volume()), theirs.double().encoder(turned(volume())))


def test_encoder_of_pcrlv2_normalises_patches_itself(v2: Any, located: Located) -> None:
    ours, folder = v2
    theirs = loaded(located(folder), folder)
    with torch.no_grad():
        check_equal(ours.encode(z_normal(volume())), theirs.encoder(turned(3 * volume() - 1)))


def test_the_new_decoder_of_pcrlv2(v2: Any) -> None:
    """PCRLv2's has no skip connections. Said, and the same each time."""
    ours, folder = v2
    given = load_file(folder / "nnunet.safetensors")
    encoder = {name: tensor for name, tensor in ours.state_dict().items() if name.startswith("down_")}
    again = network_weights(encoder, 1, "bn")
    assert all(torch.equal(given[name], again[name].to(given[name].dtype)) for name in given)
    deviation = float(given["decoder.levels.2.ops.0.conv1.weight"].std())
    assert deviation == pytest.approx((2 / (192 * 27)) ** 0.5, rel=0.05)  # He et al.: the inputs of a value
    assert not given["decoder.levels.2.ops.0.conv1.bias"].any()
    card = (folder / "README.md").read_text()
    assert "The encoder of the student: 56 tensors." in card
    assert "its 48 tensors are new, random by He et al." in card


def test_features_of_the_building_blocks_of_nnunet(pcrl: Any) -> None:
    """The package that nnU-Net's networks are made of has the encoder, though none of its networks takes it."""
    blocks = pytest.importorskip("dynamic_network_architectures.building_blocks.plain_conv_encoder")
    ours, folder = pcrl
    widths, strides = [32, 64, 64, 128, 128, 256, 256, 512], [1, 1, 2, 1, 2, 1, 2, 1]
    layers = {"conv_bias": True, "norm_op": nn.BatchNorm3d, "nonlin": nn.ReLU, "return_skips": True, "pool": "max"}
    encoder = blocks.PlainConvEncoder(1, 8, widths, nn.Conv3d, 3, strides, 1, **layers)
    weights = load_file(folder / "nnunet.safetensors")
    for stage, number in ((s, n) for s in range(4) for n in range(2)):
        block = encoder.stages[2 * stage + number][-1].convs[0]
        prefix = f"encoder.levels.{stage}.ops.{number}"
        for layer, name in ((block.conv, "conv1"), (block.norm, "bn1")):
            start = f"{prefix}.{name}."
            layer.load_state_dict({n.removeprefix(start): t for n, t in weights.items() if n.startswith(start)})
    with torch.no_grad():
        check_equal(ours.encode(volume()), encoder.double().eval()(turned(volume()))[1::2])


def test_features_in_nnunet_itself(pcrl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own functions make the network of the plans and load the weights."""
    pytest.importorskip("nnunetv2", reason="heavy: pip install nnunetv2")
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    ours, folder = pcrl
    written = plans_of(folder, PLANNED, tmp_path, monkeypatch)
    manager = PlansManager(written)
    configuration = manager.get_configuration("3d_fullres")
    network: Any = nnUNetTrainer.build_network_architecture(manager, configuration, 1, 3, enable_deep_supervision=True)
    load_pretrained_weights(network, folder / "nnunet.pth")
    with torch.no_grad():
        check_equal(ours.encode(volume()), network.double().eval().encoder(turned(volume())))
        assert len(network(turned(volume()))) == len(configuration.pool_op_kernel_sizes) - 1
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization

    values = manager.foreground_intensity_properties_per_channel["0"]
    scaled = CTNormalization(False, values).run(np.array([-2000.0, -1000, 0, 1000, 3000], np.float32))
    np.testing.assert_allclose(scaled, [0, 0, 0.5, 1, 1])


def test_channels_of_the_images() -> None:
    """A first convolution of one channel serves several: the same image in each gives the same maps."""
    ours = UNet3d()
    with torch.device("meta"):
        theirs = PCRLUNet3d(3, 1)
    theirs.load_state_dict(network_weights(ours.state_dict(), 3, "bn"), strict=False, assign=True)
    with torch.no_grad():
        grey = turned(volume()).expand(-1, 3, -1, -1, -1)
        for a, b in zip(ours.double().eval().encode(volume()), theirs.double().eval().encoder(grey), strict=True):
            torch.testing.assert_close(turned(b), a, rtol=1e-6, atol=1e-6)  # a third of a float32 is rounded


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_turned_kernels_are_no_weights_of_the_project(suffix: str, pcrl: Any) -> None:
    with pytest.raises(UserError, match=f"nnunet.{suffix}"):
        load_weights(build_network(3, 1, 1, "bn", "sigmoid"), pcrl[1] / f"nnunet.{suffix}")


PROPERTIES = {"mean": 99.0, "std": 392.0, "percentile_00_5": -1041.0, "percentile_99_5": 1071.0, "median": 101.0}
PLANNED = {  # as nnU-Net plans a CT of 5 mm along the second axis of its files
    "dataset_name": "Dataset004_X",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [5.0, 0.75, 0.5],
    "original_median_shape_after_transp": [20, 400, 512],
    "transpose_forward": [1, 0, 2],
    "transpose_backward": [1, 0, 2],
    "configurations": {
        "2d": {},
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "batch_size": 2,
            "patch_size": [16, 240, 320],
            "median_image_size_in_voxels": [20.0, 400.0, 512.0],
            "spacing": [5.0, 0.75, 0.5],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [True],
            "architecture": {"network_class_name": "a.PlainConvUNet", "arch_kwargs": {}, "_kw_requires_import": []},
        },
    },
    "image_reader_writer": "SimpleITKIO",
    "foreground_intensity_properties_per_channel": {"0": PROPERTIES},
}


def definitions(folder: Path, channels: int = 1) -> Path:
    """What lies beside the weights of an export."""
    folder.mkdir()
    write_definitions(Portable("nnunet", "unet3d", {}, channels), folder, {}, {}, z_normalised=False)
    return folder


def plans_of(folder: Path, planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the export's program makes of plans."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "pcrl_nnunet", raising=False)
    monkeypatch.delitem(sys.modules, "unet3d", raising=False)
    module = importlib.import_module("pcrl_nnunet")
    path = tmp_path / "preprocessed" / "nnUNetPlans.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(planned))
    module.main([str(path)])
    return json.loads((path.parent / "PCRLPlans.json").read_text())


def test_plans_have_the_input_of_the_pre_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    folder = definitions(tmp_path / "weights")
    plans = plans_of(folder, PLANNED, tmp_path, monkeypatch)
    assert "patch [128, 80, 128] (z, y, x), CTNormalization" in capsys.readouterr().out
    own = plans["configurations"].pop("3d_fullres")
    assert not plans["configurations"], "others would follow plans of other axes"
    assert (plans["plans_name"], own["data_identifier"]) == ("PCRLPlans", "PCRLPlans_3d_fullres")
    assert plans["transpose_forward"] == plans["transpose_backward"] == [0, 1, 2]
    assert plans["original_median_spacing_after_transp"] == [0.75, 5.0, 0.5]
    assert own["spacing"] == [1, 1, 1]
    assert own["patch_size"] == [128, 80, 128]  # 180, 80 and 160 mm, 128 voxels at most
    assert own["median_image_size_in_voxels"] == [300, 100, 256]
    assert (own["batch_size"], own["normalization_schemes"]) == (2, ["CTNormalization"])
    known = plans["foreground_intensity_properties_per_channel"]["0"]
    assert [known[name] for name in ("mean", "std", "percentile_00_5", "percentile_99_5")] == [-1000, 2000, -1000, 1000]
    with pytest.raises(SystemExit, match=r"PCRLPlans\.json: is there already"):
        plans_of(folder, PLANNED, tmp_path, monkeypatch)


def test_plans_of_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two channels, MR and CT, where one was pre-trained; the file's own spacing, if plans.json has none."""
    folder = definitions(tmp_path / "weights", channels=2)
    fragment = json.loads((folder / "plans.json").read_text())
    del fragment["configurations"]["3d_fullres"]["spacing"]
    fragment["foreground_intensity_properties_per_channel"] = {}  # as of MR
    (folder / "plans.json").write_text(json.dumps(fragment))
    planned = json.loads(json.dumps(PLANNED))
    planned["configurations"]["3d_fullres"]["normalization_schemes"] = ["ZScoreNormalization", "CTNormalization"]
    planned["foreground_intensity_properties_per_channel"]["1"] = PROPERTIES
    plans = plans_of(folder, planned, tmp_path, monkeypatch)
    own = plans["configurations"]["3d_fullres"]
    assert own["normalization_schemes"] == ["RescaleTo01Normalization", "CTNormalization"]
    assert (own["spacing"], own["patch_size"]) == ([0.75, 5.0, 0.5], [128, 32, 128])
    known = plans["foreground_intensity_properties_per_channel"]["1"]
    assert (known["mean"], known["std"], known["percentile_99_5"]) == (-1041, 2112, 1071)


@pytest.mark.parametrize(
    ("planned", "message"),
    [
        ({"configurations": {"2d": {}}}, "no plans of nnU-Net with a configuration 3d_fullres"),
        ({"configurations": {"3d_fullres": {"normalization_schemes": ["a", "b"]}}}, "export with --inchannel 2"),
    ],
)
def test_plans_that_do_not_fit(planned: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=message):
        plans_of(definitions(tmp_path / "weights"), planned, tmp_path, monkeypatch)
    assert [path.name for path in (tmp_path / "preprocessed").iterdir()] == ["nnUNetPlans.json"]


def test_plans_of_a_segmenter_have_its_own_input() -> None:
    known = {"windows": [(-100, 300), None], "spacing_mm": [0.5, 1, 2]}
    plans = plans_fragment(2, "bn", {"n": "msd", "phase": "finetune"}, {"segmentation": known}, z_normalised=False)
    own = plans["configurations"]["3d_fullres"]
    assert own["spacing"] == [2, 1, 0.5]
    assert own["normalization_schemes"] == ["CTNormalization", "RescaleTo01Normalization"]
    assert plans["foreground_intensity_properties_per_channel"]["0"]["mean"] == -100
    assert set(plans["foreground_intensity_properties_per_channel"]) == {"0"}


REFUSED: list[tuple[nn.Module, dict[str, Any], str]] = [
    (ResNetEncoder(3), {"target": "nnunet"}, "holds a 2D network, --target nnunet is 3D"),
    (nn.Identity(), {"target": "nnunet", "onnx": True}, "nnU-Net reads no ONNX; --target unet3d"),
    (nn.Identity(), {"target": "unet3d", "inchannel": 2}, "--inchannel is for --target nnunet"),
    (UNet3d(2), {"target": "nnunet", "inchannel": 3}, "reads 2 channels, of which --inchannel 3 cannot be made"),
]


@pytest.mark.parametrize(("network", "flags", "message"), REFUSED)
def test_refused(network: nn.Module, flags: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save({"state_dict": network.state_dict()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=message):
        export(tmp_path / "checkpoint.pt", tmp_path / "weights", teacher=False, **flags)
    assert not (tmp_path / "weights").exists()
