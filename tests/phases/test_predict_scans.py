"""Masks of a segmenter: of its test part and of new scans."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from datasets.layout import STAMPS
from tests.conftest import run_main
from tests.phases.segmenter import CLASSES, SIZE, case, predict, straightened, train, write_scan
from utils.errors import Unfinished, UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained segmenter in ``out0``, and in ``new`` the scans of its test part."""
    folder = tmp_path_factory.mktemp("segmenter")
    train(folder)
    for number in (3, 4):
        write_scan(folder / "new" / f"case_{number}.nii.gz", case(number)[0])
    return folder


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_the_masks_of_the_test_part_have_the_reported_dice(folder: Path) -> None:
    results = json.loads((folder / "out0" / "metrics.json").read_text())
    assert 0.3 < results["mean_dice"] < 1, "a mask of nothing or of everything would prove nothing"
    for number in (3, 4):
        path = folder / "out0" / "masks" / f"case_{number}.nii.gz"
        np.testing.assert_allclose(nibabel.load(path).affine, straightened(), atol=1e-4)
        for label, name in enumerate(CLASSES, 1):
            expected = results["by_volume"][f"case_{number}"][name]
            assert dice(voxels(path) == label, case(number)[1] == label) == pytest.approx(expected, abs=1e-4)
    pixels = np.asarray(Image.open(folder / "out0" / "cases.png").convert("RGB")).astype(int)
    assert (abs(pixels[..., 0] - pixels[..., 2]) > 60).sum() > 100, "outlines have colours"


def test_predicting_gives_the_masks_of_the_test_part_and_nothing_twice(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    predict(folder / "out0" / "best.pt", folder / "new", out)
    assert "--n msd, of" in (said := capsys.readouterr().out)
    assert "classes: front, back" in said
    masks = sorted((out / "masks").iterdir())
    assert [path.name for path in masks] == ["case_3.nii.gz", "case_4.nii.gz"]
    for path in masks:
        assert path.read_bytes() == (folder / "out0" / "masks" / path.name).read_bytes()
    written = [path.stat().st_mtime_ns for path in masks]
    masks[1].unlink()
    predict(folder / "out0" / "best.pt", folder / "new", out)
    assert "1 of 2 scans have their mask" in capsys.readouterr().out
    assert masks[0].stat().st_mtime_ns == written[0]
    assert masks[1].read_bytes() == (folder / "out0" / "masks" / masks[1].name).read_bytes()


def test_the_output_may_be_the_folder_of_the_scans(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "new", tmp_path / "data")
    for _ in range(2):
        predict(folder / "out0" / "best.pt", tmp_path / "data", tmp_path / "data", save_probabilities=True)
    names = sorted(str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*.nii.gz"))
    assert len(names) == 2 + 2 + 4
    assert names[:2] == ["case_3.nii.gz", "case_4.nii.gz"]
    assert {"masks/case_3.nii.gz", "masks/case_4.nii.gz"} < set(names)


def test_a_mask_of_another_scan_of_the_name_is_made_anew(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_scan(data / "a.nii.gz", case(3)[0])
    predict(folder / "out0" / "best.pt", data, out, save_probabilities=True)
    first = voxels(out / "masks" / "a.nii.gz")
    write_scan(data / "a.nii.gz", case(4)[0])
    predict(folder / "out0" / "best.pt", data, out)
    assert "1 scan changed since the last prediction (a)" in capsys.readouterr().out
    assert (voxels(out / "masks" / "a.nii.gz") != first).any()
    assert not list((out / "probabilities").iterdir()), "they were of the other scan"
    write_scan(data / "a.nii.gz", case(4)[0][:16])
    (out / STAMPS).unlink()  # as an earlier version left it
    predict(folder / "out0" / "best.pt", data, out)
    assert voxels(out / "masks" / "a.nii.gz").shape == (16, *SIZE[1:])


def test_probabilities_make_the_mask_and_mirror_images_change_them(folder: Path, tmp_path: Path) -> None:
    found = {}
    for name, tta in (("plain", False), ("mirrored", True)):
        predict(folder / "out0" / "best.pt", folder / "new", tmp_path / name, save_probabilities=True, tta=tta)
        parts = [voxels(tmp_path / name / "probabilities" / f"case_3_{number}.nii.gz") for number in (1, 2)]
        found[name] = np.stack([1 - sum(parts), *parts])
        mask = voxels(tmp_path / name / "masks" / "case_3.nii.gz")
        assert (found[name].argmax(0) == mask).mean() > 0.999, "but for probabilities that are equal in half precision"
    assert np.abs(found["plain"] - found["mirrored"]).max() > 1e-3
    with pytest.raises(UserError, match="holds predictions with another --tta; give another folder"):
        predict(folder / "out0" / "best.pt", folder / "new", tmp_path / "plain", tta=True)


def test_mirror_images_that_the_training_did_not_see_are_warned_of(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = torch.load(folder / "out0" / "best.pt", weights_only=True)
    torch.save({**best, "opt": {**best["opt"], "mirror": "off"}}, tmp_path / "upright.pt")
    predict(tmp_path / "upright.pt", folder / "new", tmp_path / "out", tta=True)
    words = f"warning: --tta has no effect: {tmp_path / 'upright.pt'} was trained without mirroring\n"
    assert capsys.readouterr().err == words
    for path in (tmp_path / "out" / "masks").iterdir():
        assert path.read_bytes() == (folder / "out0" / "masks" / path.name).read_bytes()


def test_folds_are_averaged_though_their_grids_differ(folder: Path, tmp_path: Path) -> None:
    other = train(folder, seed=1, epochs=2)
    weights = [folder / "out0" / "best.pt", other / "best.pt"]
    for name, weight in (("0", weights[0]), ("1", weights[1]), ("both", ",".join(map(str, weights)))):
        predict(weight, folder / "new", tmp_path / name, save_probabilities=True)
    for number in (1, 2):
        one, two, both = (
            voxels(tmp_path / name / "probabilities" / f"case_4_{number}.nii.gz") for name in ("0", "1", "both")
        )
        np.testing.assert_allclose(both, (one + two) / 2, atol=2e-3)
        assert np.abs(one - two).max() > 0.05
    for others in (weights[0], ",".join(map(str, [weights[0], *weights]))):
        with pytest.raises(UserError, match="holds predictions with other weights; give another folder"):
            predict(others, folder / "new", tmp_path / "both")


def test_every_kind_of_file_and_broken_ones_are_named_at_the_end(folder: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    image = case(3)[0]
    write_scan(data / "sub" / "a_0000.nii.gz", image)
    write_scan(data / "labelsTr" / "a.nii.gz", case(3)[1])
    write_scan(data / "two.nii.gz", np.stack([image, image], -1))
    nibabel.save(nibabel.Nifti1Image(image, np.diag([900.0, 1, 1, 1])), data / "wide.nii.gz")
    stored = sitk.ReadImage(str(data / "sub" / "a_0000.nii.gz"))
    sitk.WriteImage(stored, str(data / "b.nrrd"))
    (data / "broken.nii.gz").write_bytes((data / "sub" / "a_0000.nii.gz").read_bytes()[:3000])
    argv = f"--phase predict --weight {folder / 'out0/best.pt'} --data {data} --output {out} --gpus , --size 64"
    ended = run_main(*argv.split(), "--workers", 0)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    assert "warning: --size has no effect in predict" in said
    assert f"passed over in {data}: 1 label map" in said
    assert "warning: broken: broken.nii.gz is cut short" in said
    assert "warning: two: it has 2 channels, and the network reads 1" in said
    assert "warning: wide: it would measure 18000 x " in said
    assert said.rstrip().splitlines()[-1] == "error: 3 of 5 scans could not be read; see above"
    assert "Traceback" not in said
    found = sorted(str(path.relative_to(out / "masks")) for path in (out / "masks").rglob("*.nii.gz"))
    assert found == ["b.nii.gz", "sub/a.nii.gz"]
    for name in found:
        assert (voxels(out / "masks" / name) == voxels(folder / "out0" / "masks" / "case_3.nii.gz")).mean() > 0.999


def test_two_processes_share_the_scans(folder: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    shutil.copytree(folder / "new", data)
    (data / "broken.nii").write_bytes(b"nothing")
    flags = ["--workers", 0, "--gpus", ",", "--parallel", "ddp", "--processes", 2]
    ended = run_main("--phase", "predict", "--weight", folder / "out0/best.pt", "--data", data, "--output", out, *flags)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    assert said.count("broken: ") == 1
    assert "1 of 3 scans could not be read" in said
    assert "failed" not in said
    for path in (out / "masks").iterdir():
        assert path.read_bytes() == (folder / "out0" / "masks" / path.name).read_bytes()
    assert len(list((out / "masks").iterdir())) == 2


def test_what_a_killed_run_left_is_swept_and_done_anew(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "masks" / "sub").mkdir(parents=True)
    predicted = out / "masks" / "sub" / ".a.nii.gz.123.tmp"
    data = tmp_path / "data"
    write_scan(data / "sub" / "a.nii.gz", case(3)[0])
    with pytest.raises(UserError, match=r"holds predictions without a predict\.json"):
        predict(folder / "out0" / "best.pt", data, out)
    shutil.rmtree(out)
    predict(folder / "out0" / "best.pt", data, out)
    os.replace(out / "masks" / "sub" / "a.nii.gz", predicted)
    predict(folder / "out0" / "best.pt", data, out)
    assert [path.name for path in (out / "masks" / "sub").iterdir()] == ["a.nii.gz"]


def test_checkpoints_that_cannot_predict_say_how_to_get_one(folder: Path, tmp_path: Path) -> None:
    best = torch.load(folder / "out0" / "best.pt", weights_only=True)
    cases = {
        "pretask": ({**best, "opt": {**best["opt"], "phase": "pretask"}}, "comes from pre-training, .* fine-tune it"),
        "old": ({**best, "run": {}}, "does not contain its classes: an earlier version"),
        "foreign": ({"state_dict": best["model"]}, "not a fine-tuning checkpoint of this project; give the best.pt"),
        "narrow": ({**best, "opt": {**best["opt"], "narrow": 4}}, "the tensors do not fit the network"),
    }
    for name, (content, message) in cases.items():
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(UserError, match=message):
            predict(tmp_path / f"{name}.pt", folder / "new", tmp_path / "out")
    changed = {**best["run"], "segmentation": {**best["run"]["segmentation"], "classes": ["front", "rear"]}}
    torch.save({**best, "run": changed}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other.pt has the classes front, rear, and .*best.pt front, back; "):
        predict(f"{folder / 'out0/best.pt'},{tmp_path / 'other.pt'}", folder / "new", tmp_path / "out")
    with pytest.raises(UserError, match=r"--n chest: .* was trained with --n msd; remove --n"):
        predict(folder / "out0" / "best.pt", folder / "new", tmp_path / "out", n="chest")
    with pytest.raises(UserError, match="holds a training run"):
        predict(folder / "out0" / "best.pt", folder / "new", folder / "out0")
    assert not (tmp_path / "out" / "masks").exists()


def test_a_folder_of_which_nothing_can_be_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="holds no scans"):
        predict(folder / "out0" / "best.pt", tmp_path / "data", tmp_path / "out")
    (tmp_path / "data" / "a.nii").write_bytes(b"")
    with pytest.raises(Unfinished, match="1 of 1 scan could not be read"):
        predict(folder / "out0" / "best.pt", tmp_path / "data", tmp_path / "out2")
