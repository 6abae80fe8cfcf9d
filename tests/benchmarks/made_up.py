"""Made-up results of the evidence, for tests of its report, and a small folder of X-rays like NIH's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.evidence_cells import ranked
from benchmarks.evidence_data import JUDGED, write_truth
from benchmarks.evidence_protocol import ARMS, draws_of

CLASSES = ("male", "view_AP", "any_finding", "Infiltration", "Effusion", "Atelectasis", "Pneumonia")


def write_nih(folder: Path, patients: int, size: int = 64) -> Path:
    """One to three images of each patient, with labels."""
    (folder / "images_64").mkdir(parents=True)
    rng, lines = np.random.default_rng(0), []
    for patient in range(1, patients + 1):
        for number in range(1 + patient % 3):
            name = f"{patient:08d}_{number:03d}.png"
            Image.fromarray(rng.integers(0, 255, (size, size), np.uint8)).save(folder / "images_64" / name)
            lines.append(f"{name} {' '.join(map(str, rng.integers(0, 2, len(CLASSES))))}\n")
    (folder / "labels.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return folder


def write_results(folder: Path, gains: dict[str, float], counts: tuple[int, ...] = (25, 50, 100, 479)) -> None:
    """Fine-tunings and probes on 120 patients; ``gains``: how much an arm's scores tell more than those of random."""
    rng = np.random.default_rng(0)
    groups = [f"{patient:08d}" for patient in rng.integers(0, 120, 200)]
    labels = {name: rng.integers(0, 2, 200).tolist() for name in JUDGED}
    write_truth(folder, "nih", [f"image{number}" for number in range(200)], groups, labels)
    true = {"labels": labels}
    for arm, gain in gains.items():
        for seed in ARMS[arm].seeds or (0,):
            probed = {}
            for count in counts:
                signal = 0.25 * np.log10(count) + gain
                for draw in draws_of("nih", count):
                    noise = np.random.default_rng([seed, draw, count]).normal(size=(200, len(JUDGED)))
                    found = ranked(true, np.array([labels[name] for name in JUDGED]).T * signal + noise)
                    probed[f"{count}_{draw}"] = found
                    name = f"nih_{arm}_labels{count}_draw{draw}_seed{seed}"
                    facts = {"kind": "finetune", "task": "nih", "arm": arm, "seed": seed, "labels": count, "draw": draw}
                    (folder / f"{name}.json").write_text(json.dumps(facts | found | {"runs": []}))
            facts = {"kind": "probe", "task": "nih", "arm": arm, "seed": seed, "probed": probed, "runs": []}
            (folder / f"nih_{arm}_probe_seed{seed}.json").write_text(json.dumps(facts))
    rows = [{"step": step, "contrast": 10 - step / 1000, "feature_spread": 0.5} for step in range(1, 5000, 100)]
    facts = {"kind": "pretrain", "task": "nih", "arm": "pcrl", "rows": rows, "runs": []}
    (folder / "nih_pcrl_pretrain_seed0.json").write_text(json.dumps(facts))
