"""--tracker: an optional service gets the rows of metrics.jsonl, and no fault of it stops a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from options import Options
from options.command_line import check_paths
from tests.conftest import rows, run_main
from utils.errors import UserError

WANDB = '''"""A stand-in with the part of Weights & Biases' interface that is used."""
import json, os
class Run:
    def __init__(self, id): self.id = id
    def tell(self, **what): print(json.dumps(what), file=open(os.environ["TOLD"], "a"))
    def log(self, values, step):
        if step >= int(os.environ.get("FAILS_AT", 99)): raise ConnectionError("no route to host")
        self.tell(step=step, values=values)
    def finish(self): self.tell(finished=self.id)
def init(project, name, id, resume, config, dir):
    if os.environ.get("NO_LOGIN"): raise RuntimeError("api_key not configured")
    run = Run(id or "new")
    run.tell(project=project, name=name, id=id, resume=resume, lr=config["lr"], dir=dir)
    return run
'''
MLFLOW = '''"""A stand-in with the part of MLflow's interface that is used."""
import json, os
from types import SimpleNamespace
def tell(**what): print(json.dumps(what), file=open(os.environ["TOLD"], "a"))
def set_experiment(name): tell(project=name)
def start_run(run_id, run_name):
    tell(id=run_id, name=run_name)
    return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "new"))
def log_params(params): tell(lr=params["lr"])
def log_metrics(values, step): tell(step=step, values=values)
def end_run(): tell(finished="mlflow")
'''
LEAN = ("--b", 2, "--workers", 0, "--ratio", 1, "--without", "contrast", "--log_every", 1, "--image_every", 0)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(WANDB)
    (tmp_path / "packages" / "mlflow.py").write_text(MLFLOW)
    (tmp_path / "told").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    return tmp_path / "told"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_it_gets_the_rows_and_a_resumed_run_goes_on_there(name: str, told: Path, pairs: Path, tmp_path: Path) -> None:
    argv = ("--data", pairs, "--output", tmp_path / "out", *LEAN, "--tracker", name)
    run = run_main(*argv, "--epochs", 1)
    assert run.returncode == 0, run.stderr
    first = lines(told)
    assert {key: value for line in first for key, value in line.items() if key in ("project", "name", "id", "lr")} == {
        "project": "pcrl",
        "name": "out",
        "id": None,
        "lr": 1e-3,
    }
    logged = [line for line in first if "step" in line]
    assert [line["step"] for line in logged] == [1, 2, 3]
    assert [line["values"]["loss"] for line in logged] == [row["loss"] for row in rows(tmp_path / "out")]
    assert "finished" in first[-1]
    again = run_main(*argv, "--epochs", 2, "--resume", "auto")
    assert again.returncode == 0, again.stderr
    second = lines(told)[len(first) :]
    assert [line["id"] for line in second if "id" in line] == ["new"]
    assert [line["step"] for line in second if "step" in line] == [4, 5, 6]


def test_what_fails_there_is_said_once_and_the_run_goes_on(
    told: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("--data", pairs, "--output", tmp_path / "out", *LEAN, "--epochs", 1, "--tracker", "wandb")
    monkeypatch.setenv("NO_LOGIN", "1")
    refused = run_main(*argv)
    assert refused.returncode == 2
    assert "error: --tracker wandb: api_key not configured" in refused.stderr
    monkeypatch.delenv("NO_LOGIN")
    monkeypatch.setenv("FAILS_AT", "2")
    run = run_main(*argv)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("--tracker: ConnectionError: no route to host") == 1
    assert len(rows(tmp_path / "out")) == 3


def test_a_package_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("options.command_line.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--tracker mlflow: not installed here; pip install mlflow"):
        check_paths(Options(data=str(tmp_path), tracker="mlflow"))
