"""When a run saves itself, and how it stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from options import Options
from training.checkpoint import BEST, LAST, Position, TrainingState, checkpoint_name, is_whole, link_as, save_last
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
        self.before_saving: Callable[[], None] = lambda: None  # the reporter's sums must know of all steps
        self._saved_at = time.monotonic()
        self._last_is_whole = False  # as far as this process has seen
        goes_on_here = options.resume == "auto" or Path(options.resume).resolve() == (output / LAST).resolve()
        self._held = replace(state.position) if goes_on_here and state.position != Position() else None

    def tell_what_is_there(self) -> None:
        """Say what a run that stops without saving leaves behind."""
        if self._held is None:
            say("stopped without saving; nothing of this run has been saved yet")
        else:
            where = self._held.next_step(self.options.epochs, self._steps)
            say(f"stopped without saving; --resume auto goes on at {where}")

    def _save(self, stopping: bool = False) -> Path | None:
        """Write ``last.pt``; a full disk is said, and the former file stays. UserError if there is none.

        ``stopping``: the run ends now, so that a full disk is a UserError in any case.
        """
        self._saved_at = time.monotonic()
        self.before_saving()
        self.reporter.flush()
        payload = self.state.snapshot(self.options, self.list_sha256, self.reporter.state())
        saved = None
        with self.ranks.raise_on_all():
            if self.ranks.first:
                saved = self._write(payload, stopping)
        return self.ranks.broadcast(saved)

    def _write(self, payload: dict[str, Any], stopping: bool) -> Path | None:
        try:
            self._last_is_whole = self._last_is_whole or is_whole(self.output / LAST)
            saved = save_last(self.output, payload, keep_former=self._last_is_whole)
            self._last_is_whole = True
            self._held = replace(self.state.position)
            return saved
        except (OSError, UserError) as error:
            why = reason(error) if isinstance(error, OSError) else error
            failed = f"no checkpoint could be written to {self.output} ({why})"
            if self._held is None:  # what is trained would be lost
                raise UserError(
                    f"{failed}, and nothing of this run has been saved yet; make room and start again"
                ) from None
            where = self._held.next_step(self.options.epochs, self._steps)
            intact = f"the previous checkpoint is intact and would resume at {where}"
            if stopping:
                raise UserError(f"{failed}; the run ends unsaved; {intact}: make room first") from None
            warn(f"{failed}; training continues; {intact}")
            return None

    def _keep(self, saved: Path, name: str) -> bool:
        """Keep what was ``saved`` under another name, too; -> whether that could be, on all ranks."""
        kept = True
        if self.ranks.first:
            try:
                link_as(saved, name)
            except OSError as error:
                warn(f"{saved.with_name(name)} could not be written ({reason(error)}); {saved.name} holds the same")
                kept = False
        return self.ranks.broadcast(kept)

    def _stop_if_asked(self, signum: int | None, saved: bool) -> None:
        if signum is None:
            return
        if saved or self._save(stopping=True):
            say(f"saved {self.output}; go on with --resume auto")
        raise Stopped(signum)

    def save_before_an_error(self, owes_results: bool = False) -> None:
        """Save what is trained since the last time, if it can be, before an error that the training has no part in.

        ``owes_results``: that came amid the results of the completed epoch; a run that goes on begins with them.
        """
        if self.ranks.broadcast(self.state.position in (self._held, Position())):
            return
        self.state.owes_results = owes_results
        try:
            if self._save(stopping=True):
                say(f"saved {self.output}; go on with --resume auto")
        except UserError as error:
            warn(str(error))

    def owed_results(self) -> bool:
        """Whether a run that goes on begins with the results of the last epoch; they are not owed any more."""
        owed, self.state.owes_results = self.state.owes_results, False
        return owed

    def stop_if_asked(self) -> None:
        """Raise Stopped if a signal asked for it, all being saved."""
        self._stop_if_asked(self._wishes()[0], saved=True)

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
        """Whether the last ``--patience`` results on held-out data were no better."""
        return self.state.out_of_patience(self.options.patience)

    def after_epoch(self, score: float | None) -> None:
        """Called after each epoch, with its end as the position; UserError if the last one can't be saved.

        ``score``: on held-out data, if it was computed and counts; the state with the lowest so far is kept as
        ``best.pt``. One that cannot be kept is not the best.
        """
        epoch = self.state.position.epoch
        former = self.state.best, self.state.best_epoch, self.state.waited + 1  # if this result cannot be kept
        best = self.state.judge(self.ranks.broadcast(score))  # one rank's: all must do the same
        last_epoch = epoch == self.options.epochs or self.out_of_patience()
        numbered = epoch % self.options.save_every == 0 or last_epoch
        signum = None if last_epoch else self._wishes()[0]
        saved = None
        if numbered:
            self.reporter.picture(epoch - 1)
        if numbered or best:
            saved = self._save(stopping=signum is not None)
        if best and not (saved and self._keep(saved, BEST)):
            self.state.best, self.state.best_epoch, self.state.waited = former
            there = f"{BEST} stays that of epoch {former[1]}" if former[1] else f"there is no {BEST} yet"
            warn(f"epoch {epoch} is the best so far, but its state could not be saved: {there}")
        if numbered:
            name = checkpoint_name(self.options, epoch)
            if saved and self._keep(saved, name):
                say(f"saved {saved.with_name(name)}")
            elif last_epoch and not saved:
                raise UserError(
                    f"--output {self.output}: the last checkpoint could not be written; make room and resume"
                )
        self._stop_if_asked(signum, saved=saved is not None)
