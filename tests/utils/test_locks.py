"""What the holder of a folder sweeps: temporary files of this program, in that folder."""

from __future__ import annotations

from pathlib import Path

from utils.locks import exclusive


def test_only_own_temporary_files_of_this_folder_are_swept(tmp_path: Path) -> None:
    swept = [".last.pt.123.tmp", "reconstructions/.epoch_0001.png.99.tmp"]
    others = [".notes.tmp", ".swap.x1.tmp", "kept.123.tmp", "inner/.last.pt.123.tmp", "inner/deep/.last.pt.5.tmp"]
    for name in (*swept, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("something")
    (tmp_path / ".folder.77.tmp").mkdir()
    with exclusive(tmp_path, ["reconstructions", "missing"]):
        assert not any((tmp_path / name).exists() for name in swept)
        assert all((tmp_path / name).exists() for name in others)
        assert (tmp_path / ".folder.77.tmp").is_dir()
