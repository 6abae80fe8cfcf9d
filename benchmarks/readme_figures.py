"""The README's figures: the method as a drawing, and what a run reconstructs.

    python benchmarks/readme_figures.py [--checkpoint FILE --data FOLDER]

Without ``--checkpoint`` the drawing alone. ``--data``: the X-rays that the run was trained on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.registry import NORMALISED
from datasets.xray.chest import ChestPairs
from datasets.xray.files import ALL_IMAGES, find_chest
from methods import method_spec
from methods.pcrl import PCRL, PCRLDraws
from utils import torch_file
from utils.files import write_text
from utils.image_grid import Picture, draw_sheet
from utils.process_group import SINGLE
from utils.seeding import generator

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
BATCH, ROWS, SHARE = 16, 3, 0.75  # SHARE: of the first image in a mixup
COLUMNS = {
    "view 1": "view 1: input",
    "reconstruction": "view 1: reconstruction",
    "mixed-up input": "mixup: input",
    "its target": "mixup: target",
    "reconstruction ": "mixup: reconstruction",
}
THEMES = {  # ink, paper, line, and the fills of images, networks and losses
    "light": ("#1c2024", "#ffffff", "#5f6a75", "#eef2f6", "#d8e8f7", "#fbe6d4"),
    "dark": ("#e7ebef", "#0d1117", "#9aa6b2", "#222a33", "#1c3a57", "#57351a"),
}
BOXES = (  # x, y, width, fill, lines
    (10, 125, 110, "image", ("an image", "without labels")),
    (170, 45, 110, "image", ("view 1", "cropped, distorted")),
    (170, 205, 110, "image", ("view 2", "cropped, distorted")),
    (335, 45, 120, "net", ("student", "encoder")),
    (335, 205, 120, "net", ("teacher", "mean of the student")),
    (520, 45, 150, "net", ("decoder", "gate: which turn?")),
    (520, 205, 150, "image", ("queue of keys", "of former images")),
    (735, 10, 215, "loss", ("reconstruct view 1", "turned as the gate is told")),
    (735, 85, 215, "loss", ("reconstruct both views' mix", "from mixed features")),
    (735, 205, 215, "loss", ("contrast", "find the key of view 2 in the queue")),
)
ARROWS = (
    "M120 140 C145 140 145 70 168 70", "M120 160 C145 160 145 230 168 230", "M280 70H333", "M280 230H333",
    "M455 70H518",
    "M670 62 C700 62 700 35 733 35", "M670 78 C700 78 700 110 733 110", "M455 230H518", "M670 230H733",
    "M440 97 C470 150 640 195 733 215", "M430 203 C450 160 500 130 545 97",
)  # fmt: skip


def drawing(theme: str) -> str:
    """The method as SVG."""
    ink, paper, line, image, net, loss = THEMES[theme]
    fills = {"image": image, "net": net, "loss": loss}
    parts = [f'<rect width="960" height="300" fill="{paper}"/>']
    for path in ARROWS:
        parts.append(f'<path d="{path}" fill="none" stroke="{line}" stroke-width="1.6" marker-end="url(#tip)"/>')
    for x, y, width, fill, (title, words) in BOXES:
        parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="52" rx="8" fill="{fills[fill]}" stroke="{line}"/>')
        middle = x + width / 2
        parts.append(f'<text x="{middle}" y="{y + 22}" font-weight="600">{title}</text>')
        parts.append(f'<text x="{middle}" y="{y + 40}" font-size="11.5">{words}</text>')
    note = "All of it again on mixed-up images: both views blended with those of another image, targets undistorted."
    parts.append(f'<text x="480" y="287" font-size="13">{note}</text>')
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    head = f'<defs>{tip}<path d="M0 0L8 4L0 8z" fill="{line}"/></marker></defs>'
    style = f'font-family="Helvetica, Arial, sans-serif" font-size="14" text-anchor="middle" fill="{ink}"'
    title = "<title>PCRL: two views of an image; a student reconstructs and finds the key of a teacher</title>"
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 300" {style}>\n{title}\n{head}\n{body}\n</svg>\n'


def step_images(checkpoint: Path, data: Path) -> dict[str, Tensor]:
    """What a step of training with these weights gives for pictures, turned upright."""
    saved = torch_file.load(checkpoint)
    options, files = saved["opt"], find_chest(data, ALL_IMAGES)
    spec = method_spec(options["model"])
    method = spec.build(spec.network(options), options, 1, lambda network: network, SINGLE)
    assert isinstance(method, PCRL)
    method.restore(saved)
    chosen = generator(0, "figure").choice(len(files), BATCH, replace=False)
    dataset = ChestPairs([files[i] for i in chosen], 1, options["inchannel"], options["size"])
    samples = [dataset[0, i] for i in range(BATCH)]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    draws = PCRLDraws.sample(SINGLE.shares(BATCH), np.random.default_rng(0))
    draws = replace(draws, lam=SHARE, index=torch.roll(torch.arange(BATCH), 1))
    with torch.no_grad():
        return dict(method.drawn(method.train()(batch, draws).images))


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="of pre-training in 2D")
    parser.add_argument("--data", type=Path, help="the folder of its X-rays")
    options = parser.parse_args()
    for theme in THEMES:
        write_text(IMAGES / f"method_{theme}.svg", drawing(theme))
    if options.checkpoint:
        images = step_images(options.checkpoint, options.data)
        rows = [
            [Picture(images[name][row][0].numpy(), title="" if row else title) for title, name in COLUMNS.items()]
            for row in range(ROWS)
        ]
        draw_sheet(rows, NORMALISED.others, "", IMAGES / "reconstructions.png")


if __name__ == "__main__":
    main()
