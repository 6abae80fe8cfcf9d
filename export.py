"""Weights for use elsewhere, with a model card: ``python export.py --checkpoint FILE --save FOLDER``."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # before anything is imported that may be missing
    from utils.requirements import say_missing_packages

    say_missing_packages()

from exporting.snippets import CODE, code_for
from utils.cli import Parser
from utils.console import say
from utils.errors import UserError, reason, run_cli
from utils.files import atomic_folder, write_text
from utils.text import counted

if TYPE_CHECKING:  # torch takes seconds to import: --help and wrong flags are answered at once
    from exporting.portable import Portable

EXAMPLES = """example:
  python export.py --checkpoint my_run/last.pt --save weights
"""
DEFINITION, CARD = "unet3d.py", "README.md"
CHUNK = 1 << 20


def _parser() -> Parser:
    parser = Parser(
        prog="export.py",
        usage="export.py --checkpoint FILE --save FOLDER [flags]",
        description="Write a checkpoint's weights for use elsewhere, with a model card.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--checkpoint", metavar="FILE", help="needed: a checkpoint of this or of the published code")
    add("--save", metavar="FOLDER", help="needed: new folder for the weights and the card")
    target = "library to export for; smp: segmentation_models_pytorch (default: torchvision in 2D, unet3d in 3D)"
    add("--target", metavar="|".join(CODE), choices=list(CODE), help=target)
    add("--teacher", action="store_true", help="the teacher's weights (default: the student's)")
    return parser


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def export(checkpoint: Path, save: Path, target: str | None, teacher: bool) -> None:
    """Write ``save``: whole or not at all."""
    import safetensors.torch

    from exporting import standalone_unet3d
    from exporting.portable import TARGETS, make_portable
    from utils import torch_file

    content = torch_file.load(checkpoint)
    try:
        portable = make_portable(content, target, teacher)
    except UserError as error:
        raise UserError(f"--checkpoint {checkpoint}: {error}") from None
    safe = Path(portable.file).with_suffix(".safetensors").name
    try:
        with atomic_folder(save) as folder:
            torch_file.save(folder / portable.file, portable.state)
            tensors = {name: tensor.contiguous() for name, tensor in portable.state.items()}
            (folder / safe).write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))
            if portable.dims == 3:
                shutil.copyfile(standalone_unet3d.__file__, folder / DEFINITION)
            write_text(folder / CARD, _card(portable, content, checkpoint, folder, teacher))
    except OSError as error:
        raise UserError(f"--save {save}: cannot be written in {save.absolute().parent}: {reason(error)}") from None
    definition = [DEFINITION] if portable.dims == 3 else []
    what = f"{portable.file} ({counted(len(portable.state), 'tensor')}, for {TARGETS[portable.target][1]})"
    say(f"{save}: {', '.join((what, safe, *definition, CARD))}")


def _card(portable: Portable, content: Any, checkpoint: Path, folder: Path, teacher: bool) -> str:
    from exporting.card import CardFacts, model_card, run_facts
    from exporting.inputs import segmentation_of
    from exporting.portable import TARGETS, checkpoint_options
    from methods import METHODS
    from models.weights import is_z_normalised
    from training.reporting.run_record import read_run_record

    known = content if isinstance(content, Mapping) else {}
    options, record = checkpoint_options(content), read_run_record(checkpoint.parent, known.get("list_sha256"))
    whose = "student" if options.get("phase", "pretask") == "pretask" else "trained network"
    whose = "teacher (the moving average)" if teacher else whose
    part = "encoder and decoder" if portable.decoder else "encoder"
    run = run_facts(known, record)
    pretrained = options if options.get("phase", "pretask") == "pretask" else run.get("weight", {}).get("opt", options)
    spec = METHODS.get(pretrained.get("model", "pcrl"))
    z_normalised = is_z_normalised(content, portable.dims)
    facts = CardFacts(
        architecture=portable.architecture,
        library=TARGETS[portable.target][1],
        dims=portable.dims,
        in_channels=portable.in_channels,
        content=f"The {part} of the {whose}: {len(portable.state)} tensors.",
        decoder=portable.decoder,
        code=code_for(portable, segmentation_of(options, run), z_normalised),
        files=[(path.name, path.stat().st_size, sha256(path)) for path in sorted(folder.iterdir())],
        source=(checkpoint.name, sha256(checkpoint)),
        title=spec.title if spec else Path(pretrained["model"]).stem,
        citation=spec.citation if spec else f"`{Path(pretrained['model']).name}`, a file outside of this project",
        training_only=spec.training_only if spec else "optimizer, and what else the method has",
        z_normalised=z_normalised,
    )
    return model_card(facts, known, options, record)


def main() -> None:
    """Parse the command line and export."""
    flags = _parser().parse()
    for name, what in (("checkpoint", "a file"), ("save", "a new folder")):
        if getattr(flags, name) is None:
            raise UserError(f"--{name} is missing: it names {what}")
    if not os.path.exists(flags.checkpoint):
        raise UserError(f"--checkpoint {flags.checkpoint}: no such file")
    export(Path(flags.checkpoint), Path(flags.save), flags.target, flags.teacher)


if __name__ == "__main__":
    run_cli(main)
