"""Weights for use elsewhere, with a model card: ``python export.py --checkpoint FILE --save FOLDER``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # before anything is imported that may be missing
    from utils.requirements import say_missing_packages

    say_missing_packages()

from exporting.snippets import CODE, COMMANDS, code_for
from utils.cli import Parser
from utils.console import say, warn
from utils.errors import UserError, reason, run_cli
from utils.files import atomic_folder, write_text
from utils.text import counted

if TYPE_CHECKING:  # torch takes seconds to import: --help and wrong flags are answered at once
    from exporting.portable import Portable

EXAMPLES = """examples:
  python export.py --checkpoint my_run/last.pt --save weights
  python export.py --checkpoint my_run/last.pt --save weights_nnunet --target nnunet
"""
CARD = "README.md"
SUPERVISED = "supervised training from"
STARTS = {"none": "random values", "imagenet": "ImageNet weights"}  # of --weight, if it names no file
NEW_DECODER = (
    "The checkpoint has no decoder of this form (PCRLv2's has no skip connections, a classifier none): its {} "
    "tensors are new, random by He et al., the same each time."
)
UNKNOWN_WINDOW = (
    "the checkpoint does not tell the intensity window of its images; plans.json has the published one, -1000 to 1000 "
    "HU; put yours there (foreground_intensity_properties_per_channel), if it was another"
)
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
    target = "library; 2D: torchvision (default), timm, smp (segmentation_models_pytorch); 3D: unet3d (default), nnunet"
    add("--target", metavar="|".join(CODE), choices=list(CODE), help=target)
    add("--inchannel", metavar="N", type=int, help="nnunet: channels of your images (default: the weights')")
    add("--onnx", action="store_true", help="also write the encoder as ONNX (needs the packages onnx, onnxruntime)")
    add("--teacher", action="store_true", help="the teacher's weights (default: the student's)")
    return parser


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def export(
    checkpoint: Path, save: Path, target: str | None, teacher: bool, onnx: bool = False, inchannel: int | None = None
) -> None:
    """Write ``save``: whole or not at all."""
    from exporting.folder import write_definitions, write_weights
    from exporting.nnunet import window_is_known
    from exporting.onnx_encoder import check_packages, in_words, write_encoder
    from exporting.portable import NNUNET, TARGETS, make_portable
    from models.weight_files import check_finite
    from models.weights import is_z_normalised
    from utils import torch_file

    if onnx and target == NNUNET:
        raise UserError("--onnx: nnU-Net reads no ONNX; --target unet3d writes the same encoder")
    if inchannel is not None and target != NNUNET:
        raise UserError(f"--inchannel is for --target {NNUNET}; the other targets keep the channels of the checkpoint")
    if onnx:
        check_packages()
    content = torch_file.load(checkpoint)
    try:
        portable = make_portable(content, target, teacher, inchannel)
    except UserError as error:
        raise UserError(f"--checkpoint {checkpoint}: {error}") from None
    check_finite(checkpoint, portable.state)
    origin = _Origin(checkpoint, content, is_z_normalised(content, portable.dims))
    notes, commands = [NEW_DECODER.format(portable.new)] * bool(portable.new), COMMANDS.get(portable.target, "")
    try:
        with atomic_folder(save) as folder:
            write_weights(portable, folder, origin.z_normalised)
            write_definitions(portable, folder, origin.options, origin.run, origin.z_normalised)
            if onnx:
                encoder = f"{portable.architecture}_encoder.onnx"
                notes.append(f"{encoder}: {write_encoder(portable, folder / encoder)}")
                commands += in_words(portable, encoder)
            files = sorted(path.name for path in folder.iterdir() if path.name != portable.file)
            write_text(folder / CARD, _card(portable, origin, folder, teacher, commands))
    except OSError as error:
        raise UserError(f"--save {save}: cannot be written in {save.absolute().parent}: {reason(error)}") from None
    what = f"{portable.file} ({counted(len(portable.state), 'tensor')}, for {TARGETS[portable.target][1]})"
    say(f"{save}: {', '.join((what, *files, CARD))}")
    for note in notes:
        say(note)
    if portable.target == NNUNET and not window_is_known(origin.options, origin.run):
        warn(UNKNOWN_WINDOW)


class _Origin:
    """What a checkpoint and the run.json beside it tell."""

    def __init__(self, checkpoint: Path, content: Any, z_normalised: bool) -> None:
        from exporting.card import run_facts
        from exporting.portable import checkpoint_options
        from training.reporting.run_record import read_run_record

        self.checkpoint, self.z_normalised = checkpoint, z_normalised
        self.known: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
        self.options = checkpoint_options(content)
        self.record = read_run_record(checkpoint.parent, self.known.get("list_sha256"))
        self.run = run_facts(self.known, self.record)


def _card(portable: Portable, origin: _Origin, folder: Path, teacher: bool, commands: str) -> str:
    from exporting.card import CardFacts, model_card
    from exporting.inputs import segmentation_of
    from exporting.portable import TARGETS

    options, run = origin.options, origin.run
    whose = "student" if options.get("phase", "pretask") == "pretask" else "trained network"
    whose = "teacher (the moving average)" if teacher else whose
    part = "encoder and decoder" if portable.decoder else "encoder"
    content = f"The {part} of the {whose}: {len(portable.state) - portable.new} tensors."
    if portable.new:
        content += f" {NEW_DECODER.format(portable.new)}"
    facts = CardFacts(
        architecture=portable.architecture,
        library=TARGETS[portable.target][1],
        dims=portable.dims,
        in_channels=portable.in_channels,
        content=content,
        decoder=portable.decoder,
        code=code_for(portable, segmentation_of(options, run), origin.z_normalised),
        commands=commands,
        files=[(path.name, path.stat().st_size, sha256(path)) for path in sorted(folder.iterdir())],
        source=(origin.checkpoint.name, sha256(origin.checkpoint)),
        **_credits(options, run),
        z_normalised=origin.z_normalised,
    )
    return model_card(facts, origin.known, options, origin.record)


def _credits(options: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, str]:
    """What a card says of the method: that of the pre-training; else with what weights the training began."""
    from exporting.card import PHASES
    from methods import METHODS

    phase = str(options.get("phase", "pretask"))
    work = PHASES.get(phase, phase)
    of = options
    while (of.get("phase") or "pretask") != "pretask":  # a fine-tuning may have begun with a fine-tuning's weights
        made = run.get("weight") or {}
        if not (before := made.get("opt")):
            break
        of, options, run = before, before, made.get("run") or {}
    if (of.get("phase") or "pretask") != "pretask":
        given = str(run.get("begun_with") or options.get("weight") or "none")
        start = STARTS.get(given, f"`{Path(given).name}`")
        return {"title": f"{work} from {start}", "method": "", "citation": f"{SUPERVISED} {start}", "training_only": ""}
    method = str(of.get("model") or "pcrl")
    if spec := METHODS.get(method):
        about = {"method": method, "citation": spec.citation, "training_only": spec.training_only}
        return {"title": f"{spec.title} {work}", **about}
    file = Path(method)
    return {
        "title": f"{file.stem} {work}",
        "method": file.name,
        "citation": f"`{file.name}`, a file outside of this project",
        "training_only": "optimizer, and what else the method has",
    }


def main() -> None:
    """Parse the command line and export."""
    flags = _parser().parse()
    for name, what in (("checkpoint", "a file"), ("save", "a new folder")):
        if getattr(flags, name) is None:
            raise UserError(f"--{name} is missing: it names {what}")
    if not os.path.exists(flags.checkpoint):
        raise UserError(f"--checkpoint {flags.checkpoint}: no such file")
    if flags.inchannel is not None and flags.inchannel < 1:
        raise UserError(f"--inchannel {flags.inchannel}: give the number of channels of your images, 1 or more")
    export(Path(flags.checkpoint), Path(flags.save), flags.target, flags.teacher, flags.onnx, flags.inchannel)


if __name__ == "__main__":
    run_cli(main)
