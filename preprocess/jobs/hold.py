"""Who may write crops to a folder: one command, or several with ``--fold``, each of a subset of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from datasets.layout import SUBSET, subset_folder
from preprocess.jobs.flags import cannot_write
from utils.locks import exclusive, sweep
from utils.progress import waiting

LISTS_WITHIN_S = 60.0  # for another command with --fold to write its lists


@contextmanager
def holding(save: Path, fold: int | None = None) -> Iterator[None]:
    """Hold ``save``, or of it the subset ``fold``. UserError if another command has it; removes what was made in vain.

    Two that write the crops of one scan would remove each other's.
    """
    made = [folder for folder in (save, *save.parents) if not folder.exists()]
    subsets: list[Path] = []
    try:
        with ExitStack() as stack:
            try:
                save.mkdir(parents=True, exist_ok=True)
                if fold is None:
                    stack.enter_context(exclusive(save, sweeps=False, leaves=False))
                    subsets += sorted(path for path in save.iterdir() if SUBSET.fullmatch(path.name) and path.is_dir())
                else:
                    with waiting(f"for {save}"), _shared(save):  # which a command without --fold holds throughout
                        subsets.append(save / subset_folder(fold))
                        subsets[0].mkdir(exist_ok=True)
                for subset in subsets:
                    stack.enter_context(exclusive(subset, leaves=False))
                if fold is None:  # now nobody else writes there
                    sweep(save)
            except OSError as error:
                raise cannot_write(save, error) from None
            yield
    finally:
        for folder in [*subsets, *made]:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


@contextmanager
def holding_lists(save: Path, fold: int | None) -> Iterator[None]:
    """Hold what commands with ``--fold`` share, the lists of all crops, while they are read and written."""
    if fold is None:  # it holds the whole folder
        yield
        return
    with _shared(save):
        yield


def _shared(save: Path) -> AbstractContextManager[None]:
    """The folder itself, for a moment: other commands with ``--fold`` wait."""
    return exclusive(save, sweeps=False, patience_s=LISTS_WITHIN_S, leaves=False)
