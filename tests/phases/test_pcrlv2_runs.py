"""``--model pcrlv2`` from the command line: pre-training, what follows from its weights, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from datasets.loader import batch_sizes, smallest_chunk
from models.unet import z_normal
from options.command_line import parse_options
from tests.conftest import FULL, ROOT, main_command, rows, run_main, write_pairs, write_xrays
from tests.crops_v2 import write_crops_v2
from tests.inprocess import run_script
from tests.test_flags_in_phases import nodules, volumes
from utils.errors import UserError

CPU = ("--workers", 0, "--gpus", ",", "--log_every", 1)
LUNA = ("--model", "pcrlv2", "--n", "luna", "--b", 2, "--epochs", 2, "--ratio", 1.0, *CPU)
CHEST = ("--model", "pcrlv2", "--n", "chest", "--b", 2, "--epochs", 2, "--ratio", 1.0, "--size", 64, *CPU)
FINAL_3D, FINAL_2D = "pcrlv2_luna_pretask_1.0_2.pt", "pcrlv2_chest_pretask_1.0_2.pt"


def run(folder: Path, *argv: object, script: str = "main.py", status: int = 0) -> str:
    """``python main.py ...`` in ``folder``, with a narrow network -> what it printed."""
    log = folder / "log.txt"
    words = main_command(*argv)[2:] if script == "main.py" else map(str, argv)
    found = run_script([str(ROOT / script), *words], folder, log)
    text = log.read_text()
    assert found == status, text
    assert "Traceback" not in text
    return text


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples to train on, two held out."""
    folder = write_crops_v2(tmp_path_factory.mktemp("crops"))
    return write_crops_v2(folder, scans=1, first_subset=7)


@pytest.fixture(scope="module")
def trained(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3D run in ``out``, in one go."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder, "--data", crops, *LUNA, "--save_every", 1, "--val_every", 1, "--output", "out")
    return folder / "out"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a full network after one step."""
    folder = tmp_path_factory.mktemp("full")
    data = write_crops_v2(folder / "crops", scans=1)
    run(folder, "--data", data, *LUNA, *FULL, "--epochs", 1, "--val_every", 0, "--image_every", 0, "--output", "out")
    return folder / "out" / "last.pt"


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def test_3d_trains_judges_and_resumes_bit_for_bit(crops: Path, trained: Path, tmp_path: Path) -> None:
    table = rows(trained)
    assert {"loss", "restoration", "comparison", "local", "deep"} <= table[0].keys()
    assert [row["epoch"] for row in table if "val_loss" in row] == [1, 2]
    assert (trained / "reconstructions" / "epoch_0002.png").exists()
    final = torch.load(trained / FINAL_3D, weights_only=True)
    assert final["inputs"] == "z-normal"

    first = trained / FINAL_3D.replace("_2.pt", "_1.pt")
    text = run(tmp_path, "--data", crops, *LUNA, "--val_every", 1, "--output", "out", "--resume", first)
    assert "going on at epoch 2" in text
    resumed = torch.load(tmp_path / "out" / FINAL_3D, weights_only=True)
    assert same(final["model"], resumed["model"])


def test_2d_starts_from_imagenet_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_xrays(tmp_path / "xrays", count=4, size=64)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    places = tmp_path / "hub" / "hub" / "checkpoints"
    places.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), places / "resnet18-f37072fd.pth")  # as torch.hub keeps it
    found = run_main("--data", data, *CHEST, *FULL, "--dry_run", cwd=tmp_path)  # a process: it reads TORCH_HOME
    assert "weights of imagenet: 120 tensors used" in found.stdout, found.stderr
    from_none = run(tmp_path, "--data", data, *CHEST, "--weight", "none", "--image_every", 0, "--output", "out")
    assert "weights of" not in from_none
    final = torch.load(tmp_path / "out" / FINAL_2D, weights_only=True)
    assert "inputs" not in final
    assert {"conv1.weight", "layer4.1.bn2.running_var"} <= final["state_dict"].keys()


def test_without_a_connection_the_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_xrays(tmp_path / "xrays", count=4, size=64)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    found = run_main("--data", data, *CHEST, *FULL, cwd=tmp_path)
    assert found.returncode == 2
    assert "cannot be downloaded" in found.stderr
    assert "--weight FILE, or start from random values, --weight none" in found.stderr
    assert "Traceback" not in found.stderr


def test_ranks_and_micro_batches_get_two_samples_each(crops: Path, tmp_path: Path) -> None:
    flags = ("--data", crops, *LUNA, "--epochs", 1, "--image_every", 0)
    two = ("--parallel", "ddp", "--processes", 2)
    found = run_main(*flags, "--b", 4, *two, "--output", "ranks", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    buffers = torch.load(tmp_path / "ranks" / "pcrlv2_luna_pretask_1.0_1.pt", weights_only=True)["rank_buffers"]
    assert len(buffers) == 2
    run(tmp_path, *flags, "--b", 4, "--accumulate", 2, "--output", "parts")
    for more, words in (
        (
            ("--b", 2, "--accumulate", 2),
            "only 1 of the 2 samples of a batch at a time; --model pcrlv2 needs at least 2; give another --b",
        ),
        (("--b", 3, *two), "the smallest batch has only 1 for 2 processes that need 2 each"),
        (("--b", 1), "the smallest batch has only 1 for 1 process that need 2 each; give --b 4 or more"),
    ):
        if "ddp" in more:
            found = run_main(*flags, *more, "--output", "no", cwd=tmp_path)
            assert (found.returncode, "Traceback" in found.stderr) == (2, False)
            assert words in found.stderr
        else:
            assert words in run(tmp_path, *flags, *more, "--output", "no", status=2)
    assert not (tmp_path / "no").exists()


def test_dataparallel_deals_chunks() -> None:
    for samples in range(1, 40):
        for gpus in range(1, 9):
            chunks = torch.zeros(samples).chunk(gpus)
            assert smallest_chunk(samples, gpus) == min(map(len, chunks))


def test_a_last_batch_of_fewer_samples_than_processes() -> None:
    assert batch_sizes(20, 7, 3, min_samples=2) == [7, 7, 6]
    for samples in (8, 16):
        with pytest.raises(UserError, match="for 3 processes that need 2 each; give --b 12 or more"):
            batch_sizes(samples, 7, 3, min_samples=2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--norm", "gn"), "--norm gn: --model pcrlv2 knows only bn here"),
        (("--loss", "l1"), "--loss l1: --model pcrlv2 knows only mse here"),
        (("--final_act", "none"), "--final_act none: --model pcrlv2 knows only sigmoid here"),
    ],
)
def test_flags_that_it_does_not_have_are_refused(crops: Path, tmp_path: Path, flags: Any, words: str) -> None:
    assert words in run(tmp_path, "--data", crops, *LUNA, *flags, status=2)


def test_views_made_on_the_device_train_alike(crops: Path, trained: Path, tmp_path: Path) -> None:
    flags = ("--data", crops, *LUNA, "--epochs", 1, "--image_every", 0, "--output", "out", "--augment", "device")
    run(tmp_path, *flags)
    first, by_workers = rows(tmp_path / "out")[0], rows(trained)[0]
    for name in ("loss", "restoration", "comparison", "local", "deep"):
        assert first[name] == pytest.approx(by_workers[name], rel=1e-3, abs=1e-4), name


def test_another_methods_flags_are_warned_of_and_its_crops_refused(crops: Path, tmp_path: Path) -> None:
    text = run(tmp_path, "--data", crops, *LUNA, "--moco_k", 64, "--preview", 1, "--output", "look")
    assert "warning: --moco_k has no effect with --model pcrlv2" in text
    assert (tmp_path / "look" / "views.png").exists()
    others = write_pairs(tmp_path / "pairs")
    assert "python preprocess/luna_pre.py --recipe pcrlv2 --data" in run(tmp_path, "--data", others, *LUNA, status=2)
    text = run(tmp_path, "--data", crops, *LUNA, "--model", "pcrl", status=2)
    assert "_global_<k>.npy, not <uid>_img_<k>.npy); make these: python preprocess/luna_pre.py --data" in text


def test_the_published_commands() -> None:
    flags = "--data path_to_chest14 --model pcrlv2 --b 64 --epochs 240 --lr 1e-2 --output saved_dir --n chest --d 2"
    options, warnings = parse_options([*flags.split(), *["--gpus", "0,1,2,3", "--ratio", "1.0", "--amp"]])
    assert (options.amp, options.weight, options.inchannel, warnings) == ("native", "imagenet", 3, [])
    flags = "--data path_to_processedLUNA --model pcrlv2 --b 32 --epochs 240 --lr 1e-3 --output saved_dir --n luna"
    options, warnings = parse_options([*flags.split(), *["--d", "3", "--gpus", "0,1,2,3", "--ratio", "1.0", "--amp"]])
    assert (options.amp, options.weight, options.final_act, warnings) == ("native", "", "sigmoid", [])
    assert parse_options(["--data", "d", "--amp", "off"])[0].amp == "off"


def test_networks_that_begin_with_3d_weights_normalise_their_inputs(trained: Path, tmp_path: Path) -> None:
    data = nodules(tmp_path / "nodules")
    rng = np.random.default_rng(0)
    for path in data.glob("*.npy"):
        np.save(path, rng.random((16, 16, 16), dtype=np.float32))
    flags = ("--data", data, "--n", "nodules", "--b", 2, *CPU)
    said = "images are normalised to mean 0 and deviation 1"
    text = run(tmp_path, *flags, "--phase", "finetune", "--epochs", 1, "--weight", trained / FINAL_3D, "--output", "a")
    assert said in text
    assert torch.load(tmp_path / "a" / "best.pt", weights_only=True)["inputs"] == "z-normal"
    assert said in run(tmp_path, *flags, "--phase", "knn", "--weight", "a/best.pt", "--output", "b"), "it is inherited"

    features = []
    for scale in (1, 0.5):  # contrast that the normalisation takes out
        pairs = write_pairs(tmp_path / f"pairs_{scale}", scans=1, pairs=1)
        for path in pairs.glob("subset*/*.npy"):
            np.save(path, scale * np.load(path))
        embed = ("--data", pairs, "--n", "luna", "--phase", "embed", "--b", 2, *CPU[:4], "--output", f"f{scale}")
        run(tmp_path, *embed, "--weight", trained / FINAL_3D)
        features.append(np.load(tmp_path / f"f{scale}" / "features.npy"))
    np.testing.assert_allclose(features[0], features[1], rtol=1e-3, atol=1e-4)


def test_a_segmenter_takes_the_encoder_alone_and_its_card_normalises(full: Path, tmp_path: Path) -> None:
    flags = ("--data", volumes(tmp_path / "msd"), "--n", "msd", "--phase", "finetune", "--b", 2, "--epochs", 1, *CPU)
    small = ("--folds", 3, "--patch", "8,8,8", "--patches", 2)
    text = run(tmp_path, *flags, *small, *FULL, "--weight", full, "--output", "out")
    assert "56 tensors used" in text
    assert "decoder of another network, so initialised randomly" in text
    assert "images are normalised to mean 0 and deviation 1" in text
    run(tmp_path, "--checkpoint", "out/best.pt", "--save", "weights", script="export.py")
    card = (tmp_path / "weights" / "README.md").read_text()
    assert "network(normal(patch)).softmax(1)" in card
    assert "def normal(patch):" in card
    assert "arXiv 2301.00772" in card, "of the pre-training"


def test_pcrl_is_told_that_such_weights_saw_other_values(trained: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    flags = ("--data", pairs, "--n", "luna", "--b", 2, "--ratio", 1.0, "--moco_k", 8, *CPU, "--dry_run")
    text = run(tmp_path, *flags, "--weight", trained / FINAL_3D, "--output", "out")
    assert "values of mean 0 and deviation 1, not 0 .. 1, which --model pcrl has" in text


def test_normalised_images_have_mean_0_and_deviation_1() -> None:
    images = torch.rand(2, 3, 8, 8, 8) * torch.tensor([1, 0.1, 0]).view(1, 3, 1, 1, 1)
    normal = z_normal(images)
    assert normal.mean((2, 3, 4)).abs().max() < 1e-5
    torch.testing.assert_close(normal[:, :2].std((2, 3, 4)), torch.ones(2, 2))
    assert normal[:, 2].abs().max() == 0, "a constant image is no error here"


def test_its_encoder_alone_goes_elsewhere_with_its_own_paper(full: Path, tmp_path: Path) -> None:
    saved = torch.load(full, weights_only=True)["model"]
    assert saved["up_tr256.predictor_head.0.weight"].shape == (512, 256)
    run(tmp_path, "--checkpoint", full, "--save", "weights", script="export.py")
    weights = torch.load(tmp_path / "weights" / "unet3d.pt", weights_only=True)
    assert all(name.startswith("down_tr") for name in weights)
    card = (tmp_path / "weights" / "README.md").read_text()
    for fact in ("PCRLv2", "Unified Visual Information Preservation", "arXiv 2301.00772", "divided by its standard"):
        assert fact in card, fact
    assert "Preservational Learning" not in card
    assert "contrast head" not in card
