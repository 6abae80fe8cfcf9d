"""``--tracker``: the rows of ``metrics.jsonl`` in Weights & Biases or MLflow as well. Their packages are optional."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from utils import json_text
from utils.console import warn
from utils.errors import UserError
from utils.files import write_text

PROJECT = "pcrl"  # and MLflow's experiment
IDS = "tracker.json"  # in --output: the trackers' names of this run, so that a resumed run goes on there


class Service(Protocol):
    """What a tracker's own package must do for :class:`Tracker`."""

    id: str

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class _Wandb:
    def __init__(self, wandb: Any, name: str, known: str | None, options: Mapping[str, Any], output: Path) -> None:
        self._run = wandb.init(
            project=PROJECT, name=name, id=known, resume="allow", config=dict(options), dir=str(output)
        )
        self.id = self._run.id

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, mlflow: Any, name: str, known: str | None, options: Mapping[str, Any], output: Path) -> None:
        self._mlflow = mlflow
        mlflow.set_experiment(PROJECT)
        self.id = mlflow.start_run(run_id=known, run_name=None if known else name).info.run_id
        if known is None:
            mlflow.log_params(dict(options))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def finish(self) -> None:
        self._mlflow.end_run()


SERVICES: dict[str, Callable[..., Service]] = {"wandb": _Wandb, "mlflow": _Mlflow}


class Tracker:
    """Hands rows on to a service. What fails there is said once, and does not stop the run."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._failed = False

    def row(self, row: Mapping[str, Any]) -> None:
        """The numbers of a row of ``metrics.jsonl``."""
        values = {
            name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != "step"
        }
        self._try(self._service.log, values, int(row["step"]))

    def close(self) -> None:
        """The run ends."""
        self._try(self._service.finish)

    def _try(self, call: Any, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except Exception as error:  # of others' code and of the network: any
            self._failed = True
            warn(f"--tracker: {type(error).__name__}: {error}; it gets no more rows, metrics.jsonl has all of them")


def open_tracker(name: str, output: Path, options: Mapping[str, Any], resumed: bool) -> Tracker | None:
    """The tracker of ``--tracker``; None: none was asked for. A resumed run goes on under its former id.

    UserError if the service refuses to begin, for example without a login.
    """
    if not name:
        return None
    known = _known(output, name) if resumed else None
    try:
        service = SERVICES[name](importlib.import_module(name), output.resolve().name, known, options, output)
    except Exception as error:  # of others' code: any
        line = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--tracker {name}: {line[0]}") from None
    write_text(output / IDS, json.dumps({name: service.id}) + "\n")
    return Tracker(service)


def _known(output: Path, name: str) -> str | None:
    try:
        ids = json_text.parse((output / IDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = ids.get(name) if isinstance(ids, dict) else None
    return known if isinstance(known, str) else None
