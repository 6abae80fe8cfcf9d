"""Options of labels: which lists and columns have them, and of what kind they are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from options.flags import PRETRAINING, SEGMENTATION, SUPERVISED, flag
from options.training import Training
from utils.errors import UserError

TARGETS = ("multilabel", "classes", "regression")
LABELLED = (*SUPERVISED, "knn")
READ_IN = (*LABELLED, *PRETRAINING)  # the latter for a probe
SPLIT_BY_SHARES = ("chest",)  # the --n that --split makes parts of
PARTS = 3  # training, validation, test


@dataclass(frozen=True)
class Labels(Training):
    """What the phases that need labels have."""

    valid_list: str = flag(
        "",
        "labels",
        "list of the validation images, which select the best epoch (default: by the column split, else "
        "chest_valid.txt in --data)",
        metavar="FILE",
        phases=LABELLED,
        data=SPLIT_BY_SHARES,
    )
    test_list: str = flag(
        "",
        "labels",
        "list of the test images, for the reported results (default: by the column split, else chest_test.txt in "
        "--data)",
        metavar="FILE",
        phases=LABELLED,
        data=SPLIT_BY_SHARES,
    )
    split: str = flag(
        "",
        "labels",
        "chest: shares of the patients for training, validation, test (docs/LABELS.md); msd: JSON file like "
        "nnU-Net's splits_final.json",
        metavar="70,10,20|FILE",
        phases=LABELLED,
        data=(*SPLIT_BY_SHARES, SEGMENTATION),
    )
    image_column: str = flag(
        "",
        "labels",
        "CSV column with the image file names (default: the column in which all values are image file names)",
        phases=READ_IN,
        data=SPLIT_BY_SHARES,
    )
    label_column: str = flag(
        "",
        "labels",
        "CSV column with the labels, or several columns, comma-separated (default: Finding Labels, else all 0/1 "
        "columns)",
        phases=READ_IN,
        data=SPLIT_BY_SHARES,
    )
    patient_column: str = flag(
        "",
        "labels",
        "CSV column with the patient identifier (default: Patient ID, patient, subject_id, ...)",
        phases=READ_IN,
        data=SPLIT_BY_SHARES,
    )
    target: str = flag(
        "",
        "labels",
        "kind of label: yes or no per class, one class per image, or a number (default: by the values; see "
        "docs/LABELS.md)",
        choices=list(TARGETS),
        phases=READ_IN,
        data=SPLIT_BY_SHARES,
    )

    def _check_labels(self) -> None:
        if self.phase in PRETRAINING and self.n in SPLIT_BY_SHARES and not getattr(self, "probe_list", ""):
            for name in ("image_column", "label_column", "patient_column", "target"):
                if getattr(self, name):
                    raise UserError(f"--{name}: pre-training reads labels only for a probe; give a --probe_list")
        if self.phase not in LABELLED:
            return
        if self.split and self.n in SPLIT_BY_SHARES and not self.shares:
            raise UserError(
                f"--split {self.split}: with --n {self.n} give three percentages that sum to 100, such as 70,10,20; to "
                "use your own lists, give --train_list, --valid_list and --test_list"
            )
        if self.shares and self.n in SPLIT_BY_SHARES and self.ratio != 1:
            raise UserError(
                f"--ratio {self.ratio} cannot be combined with --split: --split divides the whole list; remove --ratio"
            )
        if self.split and self.n == SEGMENTATION and _shares(self.split):
            raise UserError(f"--split {self.split}: with --n {self.n}, --split is a JSON file; for shares give --folds")

    @property
    def shares(self) -> tuple[float, ...]:
        """``--split`` as three numbers above 0; () if it is none such."""
        found = _shares(self.split)
        whole = any(abs(sum(found) - total) < 1e-6 * total for total in (1, 100))
        return found if len(found) == PARTS and whole and min(found) > 0 else ()


def _shares(text: str) -> tuple[float, ...]:
    with suppress(ValueError):
        return tuple(float(word) for word in text.split(",")) if "," in text else ()
    return ()
