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
        "the images that choose the epoch (default: the split column of --train_list, or chest_valid.txt in --data)",
        metavar="FILE",
        phases=LABELLED,
        data=SPLIT_BY_SHARES,
    )
    test_list: str = flag(
        "",
        "labels",
        "the images that results are reported on (default: as of --valid_list; chest_test.txt)",
        metavar="FILE",
        phases=LABELLED,
        data=SPLIT_BY_SHARES,
    )
    split: str = flag(
        "",
        "labels",
        "chest: shares of training, validation and test, such as 70,10,20, made of --train_list by patient with --seed "
        "and written to --output; msd: JSON file of splits like nnU-Net's splits_final.json, used in place of --folds "
        "(default: none)",
        metavar="70,10,20|FILE",
        phases=LABELLED,
        data=(*SPLIT_BY_SHARES, SEGMENTATION),
    )
    image_column: str = flag(
        "",
        "labels",
        "column of a CSV list with the names of the images (default: the one that has names of image files)",
        phases=READ_IN,
        data=SPLIT_BY_SHARES,
    )
    label_column: str = flag(
        "",
        "labels",
        "column of a CSV list to learn, or several with commas between (default: all columns of 0 and 1, or Finding "
        "Labels)",
        phases=READ_IN,
        data=SPLIT_BY_SHARES,
    )
    patient_column: str = flag(
        "",
        "labels",
        "column of a CSV list that tells whose image it is (default: Patient ID, patient, subject_id, ...)",
        phases=READ_IN,
        data=SPLIT_BY_SHARES,
    )
    target: str = flag(
        "",
        "labels",
        "what labels are: multilabel: yes or no of each class, classes: one class of many, regression: a number, such "
        "as an age (default: multilabel where a column has 0 and 1, else classes)",
        choices=list(TARGETS),
        phases=READ_IN,
        data=SPLIT_BY_SHARES,
    )

    def _check_labels(self) -> None:
        if self.phase in PRETRAINING and self.n in SPLIT_BY_SHARES and not getattr(self, "probe_list", ""):
            for name in ("image_column", "label_column", "patient_column", "target"):
                if getattr(self, name):
                    raise UserError(f"--{name}: pre-training reads labels for a probe alone; give a --probe_list")
        if self.phase not in LABELLED:
            return
        if self.split and self.n in SPLIT_BY_SHARES and not self.shares:
            raise UserError(
                f"--split {self.split}: with --n {self.n} give three shares that sum to 100, such as 70,10,20; lists "
                "are named by --train_list, --valid_list and --test_list"
            )
        if self.shares and self.n in SPLIT_BY_SHARES and self.ratio != 1:
            raise UserError(
                f"--ratio {self.ratio} with --split: the split takes the whole list, not what a pre-training left of "
                "it; leave --ratio out"
            )
        if self.split and self.n == SEGMENTATION and _shares(self.split):
            raise UserError(f"--split {self.split}: with --n {self.n} it is a file of splits; shares are --folds")

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
