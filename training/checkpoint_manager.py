"""When a run saves itself, and how it stops."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from options import Options
from training.checkpoint import BEST, LAST, Position, TrainingState, checkpoint_name, link_as, save_last
from training.reporting.reporter import NullReporter, Reporter
from utils.console import say, warn
from utils.errors import UserError, reason
from utils.signals import Stopped, StopRequest


class CheckpointManager:
    """Saves every ``--save_minutes``, every ``--save_every`` epochs, at the end, and when asked to stop.

    The first rank writes; the others do the same things at the same time, and wait for it.
    """

    def __init__(
        self,
        state: TrainingState,
        reporter: Reporter | NullReporter,
        options: Options,
        output: Path,
        list_sha256: str,
        request: StopRequest,
        steps_per_epoch: int,
    ) -> None:
        self.state, self.reporter, self.options, self.output = state, reporter, options, output
        self.list_sha256, self.request, self.ranks = list_sha256, request, state.ranks
        self._steps = steps_per_epoch
        self._saved_at = time.monotonic()
        goes_on_here = options.resume == "auto" or Path(options.resume) == output / LAST
        self._held = replace(state.position) if goes_on_here and state.position != Position() else None

    def tell_what_is_there(self) -> None:
        """Say what a run that stops without saving leaves behind."""
        if self._held is None:
            say("stopped without saving; nothing of this run has been saved yet")
        else:
            where = self._held.next_step(self.options.epochs, self._steps)
            say(f"stopped without saving; --resume auto goes on at {where}")

    def _save(self) -> Path | None:
        """Write ``last.pt``; a full disk is said, and the former file stays."""
        self._saved_at = time.monotonic()
        payload = self.state.snapshot(self.options, self.list_sha256, self.reporter.state())
        return self.ranks.broadcast(self._write(payload) if self.ranks.first else None)

    def _write(self, payload: dict[str, Any]) -> Path | None:
        try:
            saved = save_last(self.output, payload)
            self._held = replace(self.state.position)
            return saved
        except (OSError, UserError) as error:
            why = reason(error) if isinstance(error, OSError) else error
            warn(f"no checkpoint could be written to {self.output} ({why}); the former one is whole, training goes on")
            return None

    def _stop_if_asked(self, signum: int | None, saved: bool) -> None:
        if signum is None:
            return
        if saved or self._save():
            say(f"saved {self.output}; go on with --resume auto")
        raise Stopped(signum)

    def _wishes(self) -> tuple[int | None, bool]:
        """The signal that asked any rank to stop, and whether it is time to save: what all ranks then do."""
        due = time.monotonic() - self._saved_at > 60 * self.options.save_minutes
        wishes = self.ranks.gather_objects((self.request.signum, due))
        return next((signum for signum, _ in wishes if signum is not None), None), wishes[0][1]

    def after_step(self) -> None:
        """Called after each step; raises Stopped if a signal asked for it."""
        signum, due = self._wishes()
        self._stop_if_asked(signum, saved=False)
        if due:
            self._save()

    def out_of_patience(self) -> bool:
        """Whether the score has not become better for ``--patience`` epochs."""
        return self.state.out_of_patience(self.options.patience)

    def after_epoch(self, score: float | None) -> None:
        """Called after each epoch, with its end as the position; UserError if the last one can't be saved.

        ``score``: on held-out data, if it was computed; the state with the lowest so far is kept as ``best.pt``.
        """
        epoch = self.state.position.epoch
        best = score is not None and score < self.state.best
        if score is not None and best:
            self.state.best, self.state.best_epoch = score, epoch
        last_epoch = epoch == self.options.epochs or self.out_of_patience()
        numbered = epoch % self.options.save_every == 0 or last_epoch
        saved = None
        if numbered:
            self.reporter.picture(epoch - 1)
        if numbered or best:
            saved = self._save()
        if best and saved and self.ranks.first:
            link_as(saved, BEST)
        if numbered:
            if saved:
                if self.ranks.first:
                    link_as(saved, checkpoint_name(self.options, epoch))
                say(f"saved {saved.with_name(checkpoint_name(self.options, epoch))}")
            elif last_epoch:
                raise UserError(
                    f"--output {self.output}: the last checkpoint could not be written; make room and resume"
                )
        if not last_epoch:
            self._stop_if_asked(self._wishes()[0], saved=saved is not None)
