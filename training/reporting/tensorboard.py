"""What a run shows in TensorBoard."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from methods.base import Panel
from training.reporting.curves import HELD_OUT
from utils.console import warn
from utils.errors import reason

FLUSH_S = 30.0  # what is written is on the disk, and seen, after this time
VERSION = "brain.Event:2"  # of the format: with it, TensorBoard heeds a SessionLog
SYSTEM = ("lr", "images_per_s", "data_wait", "memory_gb")


def tag(name: str, panels: Sequence[Panel] = ()) -> str:
    """The name of a curve with its group before it, as TensorBoard sorts them: ``contrast/nce``, ``system/lr``.

    ``panels``: of the method, which say the group of their names; what no panel has is in ``results``.
    """
    base = name.removeprefix(HELD_OUT)
    if base in SYSTEM:
        return f"system/{name}"
    known = {key: panel.group or panel.title for panel in reversed(panels) for key in panel.names}
    group = known.get(base, "loss" if base == "loss" else "results")
    return f"{group.lower().replace(' ', '_')}/{name}"


class TensorBoardWriter:
    """An event file in a folder, written in the thread that calls.

    The ``SummaryWriter`` of tensorboardX writes in a separate thread. This thread ends at the first error; its queue is
    full after ten more events, and then the run waits for ever. This class instead reports a full disk, drops what
    cannot be written, and starts a new file once there is room again. TensorBoard reads all files in the folder.
    """

    def __init__(self, folder: Path, purge_step: int = 0) -> None:
        """``purge_step``: what the folder has of this step and later ones, of a former run or session, is hidden."""
        logging.getLogger("tensorboardX.x2num").setLevel(logging.ERROR)  # a run tells of NaN itself
        self._folder = folder
        self._writer: RecordWriter | None = None
        self._failed = False
        self._flushed_at = 0.0
        start = Event(step=purge_step, session_log=SessionLog(status=SessionLog.START))
        self._first = [Event(file_version=VERSION), start]  # of the next file to be begun
        self._write([])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers by name."""
        self._write([_event(summary.scalar(name, value), step) for name, value in values.items()])

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """Show a picture of shape (height, width, 3), uint8."""
        self._write([_event(summary.image(name, image, dataformats="HWC"), step)])

    def options(self, options: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Show the options of a run, as hyperparameters beside the curves of these names and as a table."""
        plain = {name: value if isinstance(value, int | float) else str(value) for name, value in options.items()}
        table = "\n".join(f"| {name} | {value} |" for name, value in plain.items())
        shown = [*summary.hparams(plain, dict.fromkeys(metrics)), summary.text("options", f"| | |\n|---|---|\n{table}")]
        self._write([_event(each, 0) for each in shown])

    def close(self) -> None:
        """Write what is left, and close the file."""
        self.flush()
        self._drop()

    def flush(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._flushed_at = 0.0
            self._write([])

    def _write(self, events: list[Event]) -> None:
        try:
            if self._writer is None:
                self._writer = self._open()
            for event in events:
                self._writer.write(event.SerializeToString())
            if time.monotonic() - self._flushed_at > FLUSH_S:
                self._flushed_at = time.monotonic()
                self._writer.flush()
                self._failed = False
        except OSError as error:
            if not self._failed:
                warn(f"{self._folder} cannot be written ({reason(error)}); training goes on")
            self._failed = True
            self._drop()  # half an event may lie in it, and nothing after that would be read

    def _open(self) -> RecordWriter:
        self._folder.mkdir(exist_ok=True)
        number = len(list(self._folder.iterdir()))  # two may be begun in one second
        path = self._folder / f"events.out.tfevents.{time.time():.0f}.{number}"
        writer = RecordWriter(str(path))
        try:
            for event in self._first:
                event.wall_time = time.time()
                writer.write(event.SerializeToString())
            writer.flush()
        except OSError:
            with contextlib.suppress(OSError):
                writer.close()
            path.unlink()
            raise
        del self._first[1:]
        return writer

    def _drop(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None


def _event(shown: Summary, step: int) -> Event:
    return Event(step=step, wall_time=time.time(), summary=shown)
