"""Exported weights give our features in other libraries; what the docs say works as it stands."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from export import export
from export import main as export_main
from exporting.standalone_unet3d import UNet3d as StandaloneUNet3d
from models.pcrl import PCRLNetwork, build_network
from models.unet import published_state
from tests.checkpoints import LIST_SHA256, save_checkpoint
from tests.conftest import ROOT
from tests.inprocess import run_captured
from utils.errors import UserError

DOCS = (ROOT / "docs/EXPORT.md").read_text()
Features = list[Tensor]


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PCRLNetwork]:
    path = tmp_path_factory.mktemp("chest run") / "pcrl_chest_pretask_1.0_3.pt"
    return path, save_checkpoint(path, "chest")


@pytest.fixture(scope="module")
def luna(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PCRLNetwork]:
    path = tmp_path_factory.mktemp("luna run") / "pcrl_luna_pretask_1.0_3.pt"
    return path, save_checkpoint(path, "luna")


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def section(heading: str) -> str:
    """A section of docs/EXPORT.md."""
    return DOCS.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def run_block(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Run a block of code in an export's folder; -> its ``network``."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "unet3d", raising=False)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["network"].double().eval()


def image(channels: int = 3) -> Tensor:
    return torch.rand(2, channels, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def volume() -> Tensor:
    return torch.rand(1, 1, 16, 16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_resnet_layers(resnet: Any, x: Tensor) -> Features:
    """The five maps of a ResNet that speaks torchvision's names, wherever it is from."""
    maps: Features = []
    hooks = [
        getattr(resnet, name).register_forward_hook(lambda module, given, made: maps.append(made.clone()))
        for name in ("layer1", "layer2", "layer3", "layer4")
    ]
    resnet(x)
    for hook in hooks:
        hook.remove()
    return maps


def check_equal(ours: Features, theirs: Features) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.abs().max() > 1e-3, "maps of zeros prove nothing"
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


RESNET_SECTIONS = [
    ("torchvision", "torchvision", "torchvision"),
    ("timm", "timm", "timm"),
    ("MONAI", "torchvision", "monai"),
]


@pytest.mark.parametrize(("heading", "target", "library"), RESNET_SECTIONS)
def test_encoder_elsewhere(
    heading: str, target: str, library: str, chest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    path, ours = chest
    export(path, tmp_path / "weights", target, teacher=False)
    (documented,) = python_blocks(section(heading))
    codes = [documented]
    if library == target:
        codes += python_blocks((tmp_path / "weights/README.md").read_text())
    assert codes
    with torch.no_grad():
        expected = ours.unet.encode(image())[1:]
        for code in codes:
            network = run_block(code, tmp_path / "weights", monkeypatch)
            check_equal(expected, by_resnet_layers(network, image()))


def test_encoder_and_decoder_in_smp(chest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    path, ours = chest
    export(path, tmp_path / "weights", "smp", teacher=False)
    (documented,) = python_blocks(section("segmentation_models_pytorch"))
    (carded,) = python_blocks((tmp_path / "weights/README.md").read_text())
    with torch.no_grad():
        for code in (documented, carded):
            theirs: Any = run_block(code, tmp_path / "weights", monkeypatch)
            assert isinstance(theirs, smp.Unet)
            theirs.segmentation_head[0] = ours.unet.segmentation_head[0]  # new there, and all the rest is ours
            check_equal([ours.unet.decode(ours.unet.encode(image()))], [theirs(image())])


def test_one_channel_and_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grey.pt"
    save_checkpoint(path, "chest", inchannel=1, size=96)
    teacher = build_network(2, 1, 1, "bn", "none")
    teacher.unet.encoder.load_state_dict(
        {
            name.removeprefix("model.encoder."): tensor
            for name, tensor in torch.load(path, weights_only=True)["model_ema"].items()
            if name.startswith("model.encoder.")
        }
    )
    teacher = teacher.double().eval()
    for target in ("torchvision", "timm"):
        pytest.importorskip(target)
        export(path, tmp_path / target, target, teacher=True)
        card = (tmp_path / target / "README.md").read_text()
        assert "of the teacher" in card
        assert "0.449" in card
        assert "(pre-training: 96 x 96)" in card
        (code,) = python_blocks(card)
        with torch.no_grad():
            theirs = by_resnet_layers(run_block(code, tmp_path / target, monkeypatch), image(1))
            check_equal(teacher.unet.encode(image(1))[1:], theirs)


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_architecture_is_seen_in_the_file(name: str, tmp_path: Path) -> None:
    resnet = getattr(torchvision.models, name)()
    state = {f"module.{k}": v for k, v in resnet.state_dict().items() if not k.startswith("fc.")}
    torch.save({"state_dict": state, "opt": {"backbone": name, "n": "chest"}}, tmp_path / "checkpoint.pt")
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", None, teacher=False)
    exported = torch.load(tmp_path / f"weights/{name}.pt", weights_only=True)
    assert set(getattr(torchvision.models, name)().load_state_dict(exported, strict=False)[0]) == {
        "fc.weight",
        "fc.bias",
    }


def test_unet3d_alone_in_a_fresh_interpreter(luna: Any, tmp_path: Path) -> None:
    """The command line, and its folder: nothing of the project is needed there."""
    path, ours = luna
    folder = tmp_path / "weights"
    done: Any = run_captured([str(ROOT / "export.py"), "--checkpoint", str(path), "--save", str(folder)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(file.suffix for file in folder.iterdir()) == [".md", ".pt", ".py", ".safetensors"]
    check_card((folder / "README.md").read_text(), path, folder)

    torch.save(volume(), folder / "volume.pt")
    whole, for_segmentation = python_blocks(section("3D U-Net"))
    finish = """
network = network.double().eval()
with torch.no_grad():
    x = torch.load("volume.pt")
    torch.save([*network.encode(x), network(x)], "{}.pt")
"""
    # -I: of the folders to import from, none but the one put there by hand
    script = "import sys\nsys.path.insert(0, '.')\n" + "\n".join(
        code + finish.format(name) for name, code in (("whole", whole), ("segmentation", for_segmentation))
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = ours.unet.encode(volume())
        output = ours.unet.decode(expected)
    check_equal([*expected, output], torch.load(folder / "whole.pt", weights_only=True))
    *features, masks = torch.load(folder / "segmentation.pt", weights_only=True)
    check_equal(expected, features)
    assert masks.shape == (1, 4, 16, 16, 8)


def check_card(card: str, checkpoint: Path, folder: Path) -> None:
    def sha256(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    for fact in (
        LIST_SHA256,
        "10 training samples",
        "3 of 240 epochs completed, 3 steps each; 10 steps in all",  # 10 samples in batches of 4: 3; 3 x 3 + 1
        "2026-01-02T03:04:05+00:00",
        "torch 2.99.1",
        "0123abcd",
        "--b 4 ",
        "--norm bn ",
        "--data xrays ",
        "-1000..1000 HU",
        sha256(checkpoint),
        sha256(folder / "unet3d.pt"),
        sha256(folder / "unet3d.py"),
        "CT or MR crops (LUNA16 or scans in its place)",
        "What only the training needs",
        "| precision | not recorded |",
    ):
        assert fact in card, fact
    assert "/secret" not in card, "a card is for others; nobody's folders are in it"
    assert card.startswith("---\nlibrary_name: ")


@pytest.mark.parametrize("norm", ["gn", "in"])
def test_unet3d_with_other_norms(norm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = save_checkpoint(tmp_path / "checkpoint.pt", "luna", norm=norm, final_act="none")
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", "unet3d", teacher=False)
    (code,) = python_blocks((tmp_path / "weights/README.md").read_text())
    theirs = run_block(code, tmp_path / "weights", monkeypatch)
    assert type(theirs).__module__ == "unet3d"
    with torch.no_grad():
        features = ours.unet.encode(volume())
        check_equal([*features, ours.unet.decode(features)], [*theirs.encode(volume()), theirs(volume())])  # type: ignore[operator]


@pytest.mark.parametrize("dims", [2, 3])
def test_file_of_the_published_code(dims: int, tmp_path: Path) -> None:
    """Options in a Namespace, names with DataParallel's prefix, no run.json, no list hash, no ``model``."""
    network = build_network(dims, *((3, 3) if dims == 2 else (1, 1)), "bn", "none")
    checkpoint: dict[str, Any] = {"opt": Namespace(b=16, epochs=240, norm="bn", n="luna"), "epoch": 180}
    if dims == 2:
        unet: Any = network.unet
        checkpoint["state_dict"] = {f"module.{k}": v for k, v in unet.encoder.state_dict().items()}
        checkpoint["decoder_state_dict"] = unet.decoder.state_dict()
    else:
        checkpoint["state_dict"] = {f"module.{k}": v for k, v in published_state(network).items()}
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    target, file = ("smp", "unet_resnet18.pt") if dims == 2 else ("unet3d", "unet3d.pt")
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", target, teacher=False)
    exported = torch.load(tmp_path / "weights" / file, weights_only=True)
    own = {name.removeprefix("unet."): tensor for name, tensor in network.state_dict().items() if "fc" not in name}
    own = {name: tensor for name, tensor in own.items() if not name.startswith("segmentation_head")}
    assert exported.keys() == own.keys()
    assert all(torch.equal(exported[name], own[name]) for name in own)
    card = (tmp_path / "weights/README.md").read_text()
    for fact in ("180", "--b 16 ", "commit | not recorded", "SHA-256 of their names `not recorded`"):
        assert fact in card, fact


def test_fine_tuned_segmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outputs are logits, as many as it has classes, whatever ended the pre-training's reconstruction."""
    network = StandaloneUNet3d(out_channels=3, final_act="none")
    checkpoint = {"model": network.state_dict(), "opt": {"phase": "finetune", "final_act": "sigmoid"}}
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", None, teacher=False)
    (code,) = python_blocks((tmp_path / "weights/README.md").read_text())
    theirs = run_block(code, tmp_path / "weights", monkeypatch)
    with torch.no_grad():
        check_equal([network.double().eval()(volume())], [theirs(volume())])


def test_encoder_without_its_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fine-tuned classifier has an encoder, and layers that are nobody else's business."""
    network = StandaloneUNet3d()
    state = {f"encoder.{k}": v for k, v in network.state_dict().items() if k.startswith("down_")}
    torch.save({"model": state | {"fc.weight": torch.zeros(2, 512)}}, tmp_path / "checkpoint.pt")
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", None, teacher=False)
    (code,) = python_blocks((tmp_path / "weights/README.md").read_text())
    loaded = run_block(code, tmp_path / "weights", monkeypatch).float().state_dict()
    for name, tensor in state.items():
        assert torch.equal(loaded[name.removeprefix("encoder.")], tensor)


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ({"state_dict": {"a.weight": torch.zeros(3)}}, {}, "holds neither a ResNet nor the 3D U-Net"),
    ([1, 2], {}, "holds neither a ResNet nor the 3D U-Net"),
    ({"state_dict": torchvision.models.vgg11().features.state_dict()}, {}, "holds neither"),
    ({"state_dict": torchvision.models.resnet18().state_dict()}, {"target": "smp"}, "holds no decoder"),
    ({"state_dict": torchvision.models.resnet18().state_dict()}, {"target": "unet3d"}, "choose from torchvision, timm"),
    ({"state_dict": torchvision.models.resnet18().state_dict()}, {"teacher": True}, "no teacher"),
    ({"state_dict": torchvision.models.wide_resnet50_2().state_dict()}, {}, "none of resnet18, resnet34, resnet50"),
    ({"state_dict": StandaloneUNet3d(norm="gn").state_dict()}, {}, "do not say which"),
    ({"state_dict": StandaloneUNet3d().state_dict()}, {"target": "timm"}, "3D network, --target timm is 2D"),
]


@pytest.mark.parametrize(("content", "flags", "message"), REFUSED)
def test_refused(content: Any, flags: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(UserError, match=message) as error:
        export(tmp_path / "file.pt", tmp_path / "weights", **({"target": None, "teacher": False} | flags))
    assert "file.pt" in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file.pt"], "nothing is half-written"


def test_nothing_is_overwritten(chest: Any, tmp_path: Path) -> None:
    path, _ = chest
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        export(path, tmp_path, "torchvision", teacher=False)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(path, tmp_path / "empty", "torchvision", teacher=False)  # an empty one will do
    with pytest.raises(UserError, match=r"below: cannot be written in .*mine\.txt: Not a directory$"):
        export(path, tmp_path / "mine.txt" / "below", "torchvision", teacher=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["empty", "mine.txt"]


def test_a_checkpoint_that_is_not_there_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules['torch'] = None; import export; "
        f"from utils.errors import run_cli; run_cli(export.main)"
    )
    for argv, status in ((["--checkpoint", "gone.pt", "--save", "weights"], 2), (["--help"], 0)):
        command = [sys.executable, "-c", script, *argv]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == status, done.stderr
        assert done.stderr == ("error: --checkpoint gone.pt: no such file\n" if status else "")


@pytest.mark.parametrize(("argv", "missing"), [("", "--checkpoint"), ("--checkpoint x.pt", "--save")])
def test_a_missing_flag_is_named(argv: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["export.py", *argv.split()])
    with pytest.raises(UserError, match=f"^{missing} is missing: it names "):
        export_main()


def test_command_line_refuses_with_status_2(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    done = run_captured([str(ROOT / "export.py"), "--checkpoint", "note.txt", "--save", "weights"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: note.txt: ")
    assert done.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]
