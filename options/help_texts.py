"""What ``--help`` says beside the flags: of all phases, or of the one that ``--phase`` names."""

from __future__ import annotations

from options.flags import PHASES, PREDICTION

DESCRIPTION = """Self-supervised pre-training of medical-image networks (PCRL, PCRLv2).
Flags of one phase and kind of data alone: --help --phase finetune --n chest
Settings for many or few images: docs/RECIPES.md"""
TITLES = {  # of each phase, and the page on it
    "pretask": "Pre-training of medical-image networks without labels (PCRL, PCRLv2).\nMore: docs/LEARNING.md",
    "finetune": "Fine-tuning: train the whole network with labels, best from pre-trained weights (--weight).\n"
    "More: docs/FINETUNING.md, docs/FINETUNING_3D.md, docs/LABELS.md",
    "linear": "Linear evaluation: train only a new head with labels; the encoder does not change.\n"
    "In segmentation, the decoder is trained, too.\n"
    "More: docs/FINETUNING.md, docs/FINETUNING_3D.md, docs/LABELS.md",
    "knn": "Classify each test image by its nearest training images, without training.\nMore: docs/FINETUNING.md",
    "embed": "Write the encoder's features of each image to a file.\nMore: docs/FINETUNING.md",
    "predict": "Apply a fine-tuned network to new images.\nMore: docs/PREDICT.md",
}
PHASES_IN_WORDS = """phases (--phase):
  pretask    pre-train without labels
  finetune   train the whole network with labels
  linear     train only a new head with labels; the encoder does not change
  knn        classify by nearest neighbours, without training
  embed      write the encoder's features of each image to a file
  predict    apply a fine-tuned network to new images

"""
KINDS = {
    "chest": "X-rays, 2D",
    "luna": "pairs of crops from CT or MR, 3D (preprocess/luna_pre.py)",
    "nodules": "crops from CT with labels, 3D (preprocess/nodule_crops.py)",
    "msd": "volumes with masks of segmentations, 3D",
}
EXAMPLES = """  look at what X-rays in my_xrays become, then pre-train on all of them:
    python main.py --data my_xrays --n chest --train_list none --ratio 1.0 --preview 4 --output look
    python main.py --data my_xrays --n chest --train_list none --ratio 1.0 --output my_run
  pre-train on pairs of CT crops from preprocess/luna_pre.py, or go on where that stopped:
    python main.py --data my_pairs --n luna --ratio 1.0 --output my_3d_run --resume auto
"""
OF_PREDICTION = """  apply a fine-tuned network to new images:
    python main.py --phase predict --weight finetuned/best.pt --data new_xrays --output predicted
"""
OTHER_HELP = """
to see only the flags that apply to one phase and one kind of data:
    python main.py --help --phase finetune --n msd
"""
EXAMPLES_OF = {
    "pretask": EXAMPLES,
    "finetune": """  X-rays whose labels are in a table, divided by patient:
    python main.py --phase finetune --data my_xrays --n chest --train_list labels.csv \\
      --split 70,10,20 --ratio 1.0 --weight my_run/last.pt --output finetuned
  masks of scans:
    python main.py --phase finetune --data Task04_Hippocampus --n msd --patch 32,32,16 \\
      --weight my_3d_run/last.pt --output segmenter
""",
    "linear": """  X-rays whose labels are in a table, divided by patient:
    python main.py --phase linear --data my_xrays --n chest --train_list labels.csv \\
      --split 70,10,20 --ratio 1.0 --weight my_run/last.pt --output linear
""",
    "knn": """  X-rays whose labels are in a table, divided by patient:
    python main.py --phase knn --data my_xrays --n chest --train_list labels.csv \\
      --split 70,10,20 --ratio 1.0 --weight my_run/last.pt --output neighbours
""",
    "embed": """  all X-rays of a folder:
    python main.py --phase embed --data my_xrays --n chest --train_list none \\
      --weight my_run/last.pt --output features
""",
    "predict": OF_PREDICTION,
}


def description(phase: str | None) -> str:
    """The first lines."""
    return TITLES[phase] if phase else DESCRIPTION


def epilog(phase: str | None) -> str:
    """The last ones: what the choices mean, and examples."""
    kinds = "".join(f"  {name:<10} {KINDS[name]}\n" for name in (PHASES[phase] if phase else KINDS))
    examples = EXAMPLES_OF[phase] if phase else EXAMPLES + OF_PREDICTION + OTHER_HELP
    return f"{'' if phase else PHASES_IN_WORDS}kinds of data (--n):\n{kinds}\nexamples:\n{examples}"


def help_of_kind(phase: str) -> str:
    """What ``--n`` means with this phase."""
    if phase == PREDICTION:
        return "kind of data (default: that of the checkpoint)"
    return "kind of data" + (" (default: luna)" if "luna" in PHASES[phase] else " (needed)")
