"""What the model card of an export says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from export import export
from models.pcrl import build_network
from models.weights import load_weights
from options.command_line import parse_options
from tests.checkpoints import LIST_SHA256, save_checkpoint
from training.reporting.run_record import origin


def test_run_record_of_another_run_is_not_believed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "moved.pt", "luna")
    (tmp_path / "run.json").write_text(json.dumps({"commit": "0123abcd", "data": {"list_sha256": "another"}}))
    export(tmp_path / "moved.pt", tmp_path / "weights", None, teacher=False)
    assert "0123abcd" not in (tmp_path / "weights/README.md").read_text()


def carded(tmp_path: Path, run: dict[str, Any], n: str = "luna", **flags: Any) -> str:
    """The card of a checkpoint, of a 3D network unless ``n`` is another, that tells this of its run."""
    tmp_path.mkdir(exist_ok=True)
    save_checkpoint(tmp_path / "checkpoint.pt", n, run, **flags)
    export(tmp_path / "checkpoint.pt", tmp_path / "weights", None, teacher=False)
    return (tmp_path / "weights/README.md").read_text()


CUT = {"crop": [32, 32, 16], "box_mm": [64, 64, 32], "spacing_mm": 1.0, "scans": 2}


def test_card_tells_how_the_crops_were_cut_and_when(tmp_path: Path) -> None:
    times = {"started": "2025-01-01T00:00:00+00:00", "resumed": ["2025-02-02T00:00:00+00:00"]}
    recipes = [CUT | {"hu": [-150, 250]}]
    card = carded(tmp_path, times | {"samples": 20, "shape": [32, 32, 16], "recipes": recipes})
    for fact in (
        "(pre-training: 32 x 32 x 16)",
        "clipped to -150..250 HU and scaled",
        "window -150 to 250 HU, 32 x 32 x 16 voxels from boxes in proportion to 64 x 64 x 32 mm, scans at 1 mm",
        "(2 scans)",
        "20 training samples",
        "| started | 2025-01-01T00:00:00+00:00; resumed 2025-02-02T00:00:00+00:00 |",
    ):
        assert fact in card, fact
    assert "-1000" not in card


def test_card_credits_what_the_training_began_with(tmp_path: Path) -> None:
    """The method's flag has a default in fine-tuning, too."""
    started = {"samples": 8, "begun_with": "none"}
    for start, words in (
        ("none", "random values"),
        ("imagenet", "ImageNet weights"),
        ("runs/other{0}.pth", "`other{0}.pth`"),
    ):
        card = carded(
            tmp_path / Path(start).stem, started | {"begun_with": start}, "chest", phase="finetune", model="pcrl"
        )
        assert f"# resnet18, fine-tuning from {words}\n" in card
        assert f"Method: supervised training from {words}." in card
        assert "tags: [medical-imaging, 2d, finetune]" in card
        assert "| method | supervised, phase finetune |" in card
    made = {"opt": {"model": "pcrlv2", "phase": "pretask", "n": "chest"}, "run": {"samples": 60}, "file": "last.pt"}
    card = carded(tmp_path / "v2", started | {"weight": made}, "chest", phase="finetune", model="pcrl")
    assert "# resnet18, PCRLv2 fine-tuning\n" in card
    assert "tags: [medical-imaging, 2d, pcrlv2, finetune]" in card
    assert "| method | pcrlv2, phase finetune |" in card


def test_card_of_a_second_fine_tuning_credits_what_the_first_began_with(tmp_path: Path) -> None:
    """``made``: of the weights of a fine-tuning, which names a method by default; and of what that began with."""
    first: dict[str, Any] = {"opt": {"model": "pcrl", "phase": "finetune"}, "file": "best.pt"}
    made = first | {"run": {"begun_with": "imagenet"}}
    card = carded(tmp_path / "imagenet", {"weight": made}, "chest", phase="finetune", model="pcrl")
    assert "# resnet18, fine-tuning from ImageNet weights\n" in card
    assert "Method: supervised training from ImageNet weights." in card
    pretrained = {"opt": {"model": "pcrlv2", "phase": "pretask"}, "run": {}, "file": "last.pt"}
    made = first | {"run": {"begun_with": "last.pt", "weight": pretrained}}
    card = carded(tmp_path / "method", {"weight": made}, "chest", phase="finetune", model="pcrl")
    assert "# resnet18, PCRLv2 fine-tuning\n" in card


def test_card_counts_the_steps_that_were_taken(tmp_path: Path) -> None:
    taken = "3 of 5 epochs completed, 8 steps each; 25 steps in all"
    assert taken in carded(tmp_path / "told", {"samples": 16, "steps_per_epoch": 8}, b=8, epochs=5)
    nodules = carded(tmp_path / "nodules", {"samples": 16}, "nodules", phase="finetune", b=8, epochs=5)
    assert "| length | 3 of 5 epochs completed |" in nodules, "an epoch takes twice the rarer class"


def test_card_tells_which_list_and_what_precision(tmp_path: Path) -> None:
    card = carded(tmp_path / "a", {"samples": 1, "list": "luna_train.txt", "precision": "bfloat16"}, epochs=1)
    for fact in (
        "CT or MR crops (of the list `luna_train.txt`); 1 training sample;",
        "| precision | bfloat16 |",
        "3 of 1 epoch completed, 1 step each; 4 steps in all",
    ):
        assert fact in card, fact
    assert "in its place" not in card
    assert "of the images (if they are of LUNA16: CC BY 4.0).\n" in card
    assert "ChestX-ray14" not in card
    assert "CT or MR crops (all that were there)" in carded(tmp_path / "b", {"list": "none"})
    assert "CT or MR crops (of the list `mine.txt`)" in carded(tmp_path / "c", {}, train_list="/secret/place/mine.txt")


def test_card_of_fine_tuned_weights_tells_of_the_pre_training(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "chest.pt", "chest")
    content = torch.load(tmp_path / "chest.pt", weights_only=True)
    before = {"samples": 300, "list": "train_val_txt/chest_train.txt", "list_sha256": LIST_SHA256}
    torch.save(content | {"run": before}, tmp_path / "pretrained.pt")
    assert origin("imagenet", {}) == origin("a.pt", {"opt": {}, "run": {}}) == {}, "not known"
    made = load_weights(build_network(2, 3, 3, "bn", "none"), tmp_path / "pretrained.pt").made
    run = {"samples": 20, "list": "mine.txt"} | origin("/secret/pretrained.pt", made)
    tuned = content | {"run": run, "opt": content["opt"] | {"phase": "finetune"}}
    torch.save(tuned, tmp_path / "tuned.pt")
    export(tmp_path / "tuned.pt", tmp_path / "weights", None, teacher=False)
    card = (tmp_path / "weights/README.md").read_text()
    for fact in (
        "chest X-rays (of the list `mine.txt`); 20 training samples",
        "| begun from | `pretrained.pt`, of pre-training |",
        "| data of the pre-training | `--n chest`: chest X-rays (of the list `train_val_txt/chest_train.txt`); 300 ",
        "| length of the pre-training | 3 of 240 epochs completed, 75 steps each; 226 steps in all |",
        "The trained classifier is left out",
    ):
        assert fact in card, fact
    assert "contrast head" not in card
    assert "/secret" not in card


def test_card_tells_of_percentiles_of_mixed_crops_and_of_what_is_not_known(tmp_path: Path) -> None:
    recipes = [CUT | {"percentiles": [0.5, 99.5]}, {"scans": 1}]
    card = carded(tmp_path, {"shape": [32, 32, 16], "recipes": recipes})
    assert "clipped to the percentiles 0.5..99.5 of each scan" in card
    assert "not all made alike" in card
    assert "window not recorded (no record beside the pairs) (1 scan)" in card
    assert "| started | not recorded |" in card


def test_card_has_the_flags_that_meant_something(tmp_path: Path) -> None:
    path = tmp_path / "luna.pt"
    save_checkpoint(path, "luna")
    export(path, tmp_path / "weights", None, teacher=False)
    card = (tmp_path / "weights/README.md").read_text()
    assert "(pre-training: not recorded)" in card, "an earlier version's checkpoint"
    flags = card.split("```\n--")[1].split("```")[0]
    for name in ("hu_min", "patch", "folds", "dry_run", "preview", "size", "backbone"):
        assert f"--{name} " not in f"--{flags} ", name
    parsed, warnings = parse_options(f"--{flags}".split())
    others = [warning for warning in warnings if not warning.startswith("--workers")]  # more than this machine's cores
    assert (parsed.b, parsed.epochs, others) == (4, 240, [])


def test_card_of_a_classifier_tells_what_its_inputs_are(tmp_path: Path) -> None:
    nodules = {"shape": [32, 32, 16], "classes": ["nodule"], "windows": [{"hu": [-1000, 400]}]}
    card = carded(tmp_path / "a", nodules, n="nodules", phase="finetune")
    for fact in (
        "fine-tuning: 32 x 32 x 16), resampled to 1 mm, clipped to -1000 to 400 HU and scaled to 0..1; crops of that",
        "It was trained to tell: nodule.",
    ):
        assert fact in card, fact
    card = carded(tmp_path / "b", {"classes": ["Mass", "Hernia"]}, n="chest", size=96, phase="finetune")
    assert "LUNA16" not in card
    for fact in (
        "96 x 96)",
        "resized until its longer side has that size, and centred on black",
        "trained to tell: Mass, Hernia.",
    ):
        assert fact in card, fact


def test_card_of_an_earlier_segmenter_says_what_it_does_not_know(tmp_path: Path) -> None:
    card = carded(tmp_path, {"shape": [16, 16, 16]}, n="msd", phase="finetune", modality="mr")
    for fact in ("in the orientation LPS", "Spacing, intensity windows and classes are not recorded", "logits = "):
        assert fact in card, fact
    assert "--hu_min" not in card, "it is MR"
