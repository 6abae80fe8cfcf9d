"""TensorBoard's files, and a disk that has no room for a while."""

import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from methods.pcrl_report import curve_panels
from tests.processes import largest_file
from training.reporting.tensorboard import TensorBoardWriter, tag


def events(path: Path) -> list[Event]:
    """The events of a file of TFRecords: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert len(data) >= length + 16, "cut short"
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def scalars(found: list[Event]) -> dict[tuple[str, int], float]:
    return {(value.tag, event.step): value.simple_value for event in found for value in event.summary.value}


def test_numbers_pictures_and_where_a_resumed_run_begins(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    board = TensorBoardWriter(tmp_path / "board")
    board.scalars({"loss": 0.5, "lr": 0.25}, 1)
    board.image("reconstructions", image, 2)
    board.close()
    again = TensorBoardWriter(tmp_path / "board", purge_step=2)
    again.scalars({"loss": 0.125}, 2)
    again.close()
    first, second = (events(path) for path in sorted((tmp_path / "board").iterdir()))
    assert first[0].file_version == second[0].file_version == "brain.Event:2"
    assert (first[1].step, first[1].session_log.status) == (0, SessionLog.START), "a former run's events are hidden"
    assert scalars(first[2:4]) == {("loss", 1): 0.5, ("lr", 1): 0.25}
    (picture,) = first[4].summary.value
    assert (first[4].step, picture.tag, picture.image.height, picture.image.width) == (2, "reconstructions", 2, 4)
    assert (second[1].step, second[1].session_log.status) == (2, SessionLog.START)
    assert scalars(second[2:]) == {("loss", 2): 0.125}


def test_all_is_on_disk_after_a_flush(tmp_path: Path) -> None:
    """A checkpoint follows, from which a killed run goes on without telling it again."""
    board = TensorBoardWriter(tmp_path / "board")
    for step in (1, 2, 3):
        board.scalars({"loss": 0.5}, step)
    board.flush()
    (path,) = (tmp_path / "board").iterdir()
    assert len(scalars(events(path))) == 3
    board.close()


def test_a_full_disk_is_said_once_and_room_is_used_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "board"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    board = TensorBoardWriter(folder)
    with largest_file(4096):
        for step in range(1, 51):  # more than any queue would take
            board.image("reconstructions", noise, step)
            board.scalars({"loss": float(step)}, step)
    said = capsys.readouterr().err
    assert said.count("cannot be written") == 1, said
    assert f"{folder} cannot be written (File too large); training goes on" in said
    board.scalars({"loss": 51.0}, 51)
    board.close()
    *_, last = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert scalars(events(last))["loss", 51] == 51


def test_nothing_is_left_of_a_file_that_cannot_be_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with largest_file(0):
        board = TensorBoardWriter(tmp_path / "board")
        board.scalars({"loss": 1.0}, 1)
        board.close()
    assert "File too large" in capsys.readouterr().err
    assert not list((tmp_path / "board").iterdir())


def test_where_a_resumed_run_begins_is_not_lost_on_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with largest_file(0):
        board = TensorBoardWriter(tmp_path / "board", purge_step=7)
    assert "File too large" in capsys.readouterr().err
    for step in (7, 8):
        board.scalars({"loss": 1.0}, step)
    board.close()
    (path,) = (tmp_path / "board").iterdir()
    version, begun, *rest = events(path)
    assert (version.file_version, begun.step, begun.session_log.status) == ("brain.Event:2", 7, SessionLog.START)
    assert set(scalars(rest)) == {("loss", 7), ("loss", 8)}
    assert all(event.wall_time > 0 for event in (version, begun))


def test_curves_are_in_few_groups() -> None:
    panels = curve_panels("mse")
    tags = {tag(name, panels) for panel in panels for name in panel.names}
    assert {each.partition("/")[0] for each in tags} == {"loss", "contrast", "reconstruction", "features", "gate"}
    names = ("nce", "val_nce", "loss", "val_loss", "lr", "memory_gb", "val_dice/liver")
    assert [tag(name, panels) for name in names] == [
        *("contrast/nce", "contrast/val_nce", "loss/loss", "loss/val_loss", "system/lr", "system/memory_gb"),
        "results/val_dice/liver",
    ]


def test_options_are_hyperparameters_and_a_table(tmp_path: Path) -> None:
    board = TensorBoardWriter(tmp_path / "board")
    board.options({"lr": 0.25, "n": "chest", "dry_run": False, "gpus": None}, ["loss/loss"])
    board.close()
    (path,) = (tmp_path / "board").iterdir()
    values = {value.tag: value for event in events(path)[1:] for value in event.summary.value}
    start = HParamsPluginData.FromString(
        values["_hparams_/session_start_info"].metadata.plugin_data.content
    ).session_start_info.hparams
    assert (start["lr"].number_value, start["n"].string_value, start["dry_run"].bool_value) == (0.25, "chest", False)
    table = values["options/text_summary"].tensor.string_val[0].decode()
    assert "| lr | 0.25 |" in table
