"""The names of phases and tasks in the flags are those that there are."""

from __future__ import annotations

import options
from datasets.registry import DATASETS
from phases import PHASES
from phases.features import IMAGES
from tasks import CLASSIFICATIONS, TASKS


def test_flags_know_every_phase_and_task() -> None:
    assert list(options.PHASES) == list(PHASES)
    known = {phase: set(names) for phase, names in options.PHASES.items()}
    assert known["pretask"] == set(DATASETS)
    assert known["finetune"] == known["linear"] == set(TASKS)
    assert known["knn"] == set(CLASSIFICATIONS)
    assert known["embed"] == set(IMAGES)
    assert set().union(*known.values()) == set(options.DIMS)


def test_phases_of_flags_are_phases_and_flags() -> None:
    for name, metadata in options.FLAGS.items():
        assert set(metadata["phases"]) <= set(PHASES), name
        assert set(metadata["data"]) <= set(options.DIMS), name
