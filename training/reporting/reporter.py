"""What a run tells: a progress line, ``metrics.jsonl``, TensorBoard, and pictures."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.base import Method
from training.evaluation import EvalResult
from training.reporting.curves import HELD_OUT, draw_curves, read_rows
from training.reporting.diagnostics import Diagnostics
from training.reporting.epoch import EpochTotals, StepReport
from training.reporting.pictures import draw_reconstructions, strip
from training.reporting.progress import Progress, ProgressState, Throughput, log_line, shown, widest
from training.reporting.tensorboard import TensorBoardWriter, tag
from training.reporting.trackers import Tracker
from utils import json_text
from utils.console import say, warn
from utils.errors import reason
from utils.files import write_text
from utils.image_grid import Windows
from utils.text import counted

METRICS = "metrics.jsonl"
CURVES = "curves.png"
PICTURES = "reconstructions"  # a folder
MEANS = "means"  # in the row of an epoch's last step: of its loss terms over all its steps, by name
CURVES_INTERVAL_S = 30.0  # between drawings while the run goes on


def _cut_rows(path: Path, done: int, within_epoch: bool) -> None:
    """Keep the rows of the first ``done`` steps: later ones belong to work that was lost, or to another run.

    ``within_epoch``: the checkpoint is from before its epoch's end, so that results after its last step come again.
    """
    if not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json_text.parse(line)
            again = within_epoch and row["step"] == done and "lr" not in row
            if row["step"] > done or not done or again:
                break
        except (ValueError, KeyError, TypeError):  # the last line of a killed run may be half a line
            break
        kept.append(line + "\n")
    write_text(path, "".join(kept))


def memory_gb(device: torch.device) -> float:
    """Peak memory: the GPU's, or this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


class NullReporter:
    """The reporter of all ranks but the first."""

    def fetched(self) -> None: ...

    def step(self, report: StepReport) -> None: ...

    def epoch_end(self, epoch: int) -> None: ...

    def validation(self, epoch: int, result: EvalResult) -> None: ...

    def probe(self, epoch: int, result: EvalResult, seconds: float) -> None: ...

    def results(self, values: Mapping[str, float]) -> None: ...

    def flush(self) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def picture(self, epoch: int) -> None: ...

    def close(self) -> None: ...


class Reporter:
    """Collects the steps of a run in ``output``.

    Rows are written every ``log_every`` steps, and of the run's first step and of the last of each epoch.
    """

    def __init__(
        self,
        output: Path,
        epochs: int,
        steps_per_epoch: int,
        log_every: int,
        windows: Windows,
        device: torch.device,
        method: Method,
        image_every: int = 0,
        state: Mapping[str, Any] | None = None,
        done: int = 0,
        image_first: bool = False,
        within_epoch: bool = False,
    ) -> None:
        """``image_every``: steps between pictures, 0: none but :meth:`picture`'s. ``image_first``: one of step 1, too.

        ``method``: says what its terms and pictures are called. ``state``, ``done``: of the checkpoint that a run goes
        on from; rows of later steps are cut.
        """
        self.output, self.epochs, self.steps_per_epoch = output, epochs, steps_per_epoch
        self.log_every, self.windows, self.device = log_every, windows, device
        self.headline, self.panels, self._drawn_images = method.headline, method.panels, method.drawn
        self.image_every, self.image_first = image_every, image_first
        _cut_rows(output / METRICS, done, within_epoch)
        self._metrics = open(output / METRICS, "a", encoding="utf-8")  # noqa: SIM115 - closed in close()
        self._tensorboard = TensorBoardWriter(output / "tensorboard", purge_step=done + 1 if done else 0)
        self._progress, self._throughput = Progress(), Throughput()
        self._tracker: Tracker | None = None
        self._drawn_at = time.monotonic()
        self._lr = 0.0
        self._images: Mapping[str, Tensor] = {}
        sums = dict(state or {})
        self._diagnostics = Diagnostics(**sums.pop("watch", {}))
        self._totals = EpochTotals(**sums)

    def follow(self, tracker: Tracker | None) -> None:
        """From now on hand all rows to this tracker, too."""
        self._tracker = tracker

    def options(self, options: Mapping[str, Any]) -> None:
        """Show the run's options in TensorBoard."""
        self._tensorboard.options(options, [tag(name, self.panels) for name in ("loss", *self.headline)])

    def fetched(self) -> None:
        """The batch of the next step is there."""
        self._progress.fetched()

    def step(self, report: StepReport) -> None:
        """Take in one step."""
        self._images, self._lr = report.images, report.lr
        self._totals.add(report)
        self._throughput.add(report.samples, report.seconds)
        done = self._done(report)
        regular = report.step % self.log_every == 0 or report.step == self.steps_per_epoch
        if regular or done == 1 or not report.good:
            statistics = {name: value.item() for name, value in report.statistics.items()}
            self._totals.statistics |= statistics
            self._write_row(report, statistics)
        self._show(report)
        if self.image_every and (done % self.image_every == 0 or (done == 1 and self.image_first)):
            self._picture(f"step_{done:08d}", f"after step {done}", done)

    def _done(self, report: StepReport) -> int:
        """Steps of the whole run."""
        return report.epoch * self.steps_per_epoch + report.step

    def _write_row(self, report: StepReport, statistics: Mapping[str, float]) -> None:
        step = self._done(report)
        row: dict[str, Any] = {
            "epoch": report.epoch + 1,
            "step": step,
            "lr": report.lr,
            "loss": report.loss,
            **report.terms,
            **statistics,
            "images_per_s": round(report.samples / report.seconds, 3),
            "data_wait": round(report.data_seconds / report.seconds, 4),
            "memory_gb": round(memory_gb(self.device), 2),
        }
        if not report.good:
            row["skipped"] = True
        if self._totals.faults:
            row["replaced"] = len(self._totals.faults)
        if report.step == self.steps_per_epoch:
            row[MEANS] = self._totals.means()
        self._append(row)
        self._curves({name: value for name, value in row.items() if isinstance(value, float)}, step)

    def _curves(self, values: Mapping[str, float], step: int) -> None:
        """Values in TensorBoard, in their groups."""
        self._tensorboard.scalars({tag(name, self.panels): value for name, value in values.items()}, step)

    def flush(self) -> None:
        """Bring all to disk, before a checkpoint: a run that goes on from that does not report it again."""
        self._tensorboard.flush()

    def _append(self, row: Mapping[str, Any]) -> None:
        if self._tracker:
            self._tracker.row(row)
        try:
            self._metrics.write(json.dumps(row) + "\n")
            self._metrics.flush()
        except OSError as error:
            warn(f"no row could be written to {self.output / METRICS} ({reason(error)}); training goes on")

    def _show(self, report: StepReport) -> None:
        moment = ProgressState(
            epoch=report.epoch + 1,
            epochs=self.epochs,
            step=report.step,
            steps=self.steps_per_epoch,
            values=self._headline({"loss": report.loss, **report.terms}),
            lr=report.lr,
            images_per_s=self._throughput.images_per_s(),
            memory_gb=memory_gb(self.device),
            seconds_left=self._throughput.seconds(self.epochs * self.steps_per_epoch - self._done(report)),
        )
        self._progress.step(moment)

    def epoch_end(self, epoch: int) -> None:
        """Say the epoch's means and the samples that were replaced, and start the next one afresh."""
        totals = self._totals
        means = totals.means()
        watched, done = self._headline(means), (epoch + 1) * self.steps_per_epoch
        left = self._throughput.seconds(self.epochs * self.steps_per_epoch - done) if epoch + 1 < self.epochs else None
        say(log_line(f"{epoch + 1}/{self.epochs}", watched, totals.samples / totals.seconds, left, widest()))
        for warning in self._diagnostics.epoch(
            watched, totals.statistics, self._lr, totals.seconds, totals.data_seconds
        ):
            warn(warning)
        if totals.good < totals.steps:
            skipped = totals.steps - totals.good
            were = "was" if skipped == 1 else "were"
            warn(f"{skipped} of {counted(totals.steps, 'step')} {were} skipped: loss or gradient not finite")
        if totals.faults:
            replaced = counted(len(totals.faults), "sample was", "samples were")
            warn(f"{replaced} replaced by others, the first: {totals.faults[0]}")
        self._totals = EpochTotals()
        self._progress.epoch_end()
        if time.monotonic() - self._drawn_at > CURVES_INTERVAL_S:
            self._draw_curves()

    def validation(self, epoch: int, result: EvalResult) -> None:
        """Say and log a result on held-out data."""
        losses, over = result.values, result.over
        step = (epoch + 1) * self.steps_per_epoch
        held_out = {f"{HELD_OUT}{name}": value for name, value in losses.items()}
        self._append({"epoch": epoch + 1, "step": step, **held_out})
        self._curves(held_out, step)
        headline = self._headline(losses)
        words = [shown({name: value}) for name, value in headline.items() if name not in over]
        words += [f"{name} {headline[name]:.3f} ({what})" for name, what in over.items()]
        remark = f"; not counted: {result.why_not}" if result.why_not else ""  # for best.pt and --patience
        say(f"epoch {epoch + 1}/{self.epochs}: on held-out data {', '.join(words)}{remark}")

    def probe(self, epoch: int, result: EvalResult, seconds: float) -> None:
        """Say and log what a probe by labels found after ``epoch`` epochs."""
        step = epoch * self.steps_per_epoch
        self._append(
            {"epoch": epoch, "step": step, **{f"probe_{name}": value for name, value in result.values.items()}}
        )
        self._tensorboard.scalars({f"probe/{name}": value for name, value in result.values.items()}, step)
        words = ", ".join(f"{name} {value:.3f}" for name, value in result.values.items() if "/" not in name)
        over = "".join(f" ({what})" for what in result.over.values())
        say(f"epoch {epoch}/{self.epochs}: probe on labels {words}{over}; {seconds:.1f} s")

    def results(self, values: Mapping[str, float]) -> None:
        """Log the figures that a run ends with."""
        steps = self.epochs * self.steps_per_epoch
        self._tensorboard.scalars({f"test/{name}": value for name, value in values.items()}, steps)

    def _headline(self, values: Mapping[str, float]) -> dict[str, float]:
        """Those that people look at."""
        return {name: values[name] for name in ("loss", *self.headline) if name in values}

    def state(self) -> dict[str, Any]:
        """The sums of the epoch under way and what the watch has seen, for a checkpoint."""
        return {**asdict(self._totals), "watch": self._diagnostics.state()}

    def picture(self, epoch: int) -> None:
        """Draw the last step's images, if the method gives any, as ``epoch_<n>.png`` among the ``PICTURES``."""
        steps = (epoch + 1) * self.steps_per_epoch
        self._picture(f"epoch_{epoch + 1:04d}", f"after epoch {epoch + 1} of {self.epochs}", steps)

    def _picture(self, name: str, title: str, step: int) -> None:
        """A PNG in that folder, and the same in TensorBoard."""
        if not self._images:
            return
        path = self.output / PICTURES / f"{name}.png"
        try:
            path.parent.mkdir(exist_ok=True)
            images = self._drawn_images(self._images)
            draw_reconstructions(images, self.windows, title, path)
            for column, image in images.items():
                place = "pictures/" + column.replace(": ", "_").replace(" ", "_")
                self._tensorboard.image(place, strip(image, self.windows.of(column)), step)
        except OSError as error:
            warn(f"{path} could not be drawn ({reason(error)}); training goes on")

    def _draw_curves(self) -> None:
        self._drawn_at = time.monotonic()
        try:
            draw_curves(read_rows(self.output / METRICS), self.output / CURVES, str(self.output), self.panels)
        except OSError as error:
            warn(f"{self.output / CURVES} could not be drawn ({reason(error)})")

    def close(self) -> None:
        """Close the files, and draw the curves."""
        self._progress.close()
        if self._tracker:
            self._tracker.close()
        self._tensorboard.close()
        try:
            self._metrics.close()
        except OSError as error:
            warn(f"{self.output / METRICS}: the last rows could not be written ({reason(error)})")
        self._draw_curves()
