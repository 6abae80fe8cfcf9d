"""The runs that soak_resume.py kills: small, of three kinds, each as a user starts it."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FIRST, LAST, ROW = "before the first save", "inside the write of last.pt", "inside the write of metrics.jsonl"
LINK, BEST, BETWEEN = "between save and link of best.pt", "inside the write of best.pt", "between writes"
BY_ITSELF = {LINK: "link", BEST: "rename"}  # too short for others to hit: the run kills itself there
DIE_AT = "--die_at"
SAMPLES, BATCH = 4, 2
STEPS_AN_EPOCH = SAMPLES // BATCH
COMMON = f"--b {BATCH} --ratio 1.0 --workers 1 --log_every 1 --save_minutes 0 --save_every 1000 --resume auto"


@dataclass(frozen=True)
class Family:
    """Runs of one kind: their flags, and how many kills of a hundred fall where."""

    name: str
    flags: str
    epochs: int
    final: str
    kills: dict[str, int]
    processes: int = 1


IN_2D = "--n chest --size 64 --moco_k 64 --lr 0.01"
FAMILIES = (
    Family(
        "2D, float32",
        f"{IN_2D} --without contrast --val_every 1 --amp off",
        6,
        "pcrl_chest_pretask_1.0_6.pt",
        {LINK: 12, LAST: 18, BEST: 6, ROW: 8, BETWEEN: 20, FIRST: 6},
    ),
    Family(
        "3D, bf16",
        "--n luna --amp native --narrow 2",
        3,
        "pcrl_luna_pretask_1.0_3.pt",
        {LAST: 8, BETWEEN: 6, ROW: 2, FIRST: 2},
    ),
    Family(
        "2D, 2 processes",
        f"{IN_2D} --parallel ddp --processes 2",
        4,
        "pcrl_chest_pretask_1.0_4.pt",
        {LAST: 6, BETWEEN: 4, FIRST: 2},
        processes=2,
    ),
)


def write_data(folder: Path) -> None:
    """Four pairs of 16 x 16 x 16 voxels, and four X-rays with two held-out ones."""
    rng = np.random.default_rng(0)
    (folder / "subset0").mkdir(parents=True)
    (folder / "images").mkdir()
    names = [f"{number + 1:08d}_000.png" for number in range(SAMPLES + 2)]
    for number, name in enumerate(names):
        if number < SAMPLES:
            np.save(folder / "subset0" / f"1.2.{number}_img_0.npy", rng.random((2, 16, 16, 16), dtype=np.float32))
        coarse = (rng.random((6, 6)) * 255).astype(np.uint8)
        Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(folder / "images" / name)
    for part, of_it in (("train", names[:SAMPLES]), ("valid", names[SAMPLES:])):
        (folder / f"chest_{part}.txt").write_text("".join(f"{name} {' '.join('0' * 14)}\n" for name in of_it))


@dataclass
class Run:
    """A run's folder, and the process that fills it now."""

    family: Family
    data: Path
    output: Path
    victims: int = 0  # killed so far
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, die_at: str = "") -> None:
        """Begin it, or go on with it, as a user does; ``die_at``: see :func:`die_at`."""
        script = [str(ROOT / "main.py")]
        if die_at:
            script = [str(ROOT / "benchmarks" / "soak_resume.py"), DIE_AT, die_at]
        flags = f"{COMMON} {self.family.flags} --epochs {self.family.epochs}".split()
        paths = ["--gpus", "", "--data", str(self.data), "--output", str(self.output)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        log = open(self.output.with_suffix(".log"), "ab")  # noqa: SIM115 - the process has it
        self.process = subprocess.Popen(
            [sys.executable, *script, *flags, *paths], stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        log.close()

    def finish(self) -> None:
        """Let it come to its end."""
        if self.process.wait():
            raise RuntimeError(f"{self.family.name}: status {self.process.returncode}:\n{self.said()}")

    def said(self) -> str:
        """What it has said last."""
        return self.output.with_suffix(".log").read_text(errors="replace")[-2000:]

    def rows(self) -> int:
        """Rows in its log, the last one perhaps not whole."""
        log = self.output / "metrics.jsonl"
        return log.read_bytes().count(b"\n") if log.exists() else 0

    def begun(self) -> int:
        """When its latest process wrote ``run.json``, which is before its first step; 0 for never."""
        record = self.output / "run.json"
        return record.stat().st_mtime_ns if record.exists() else 0

    def half(self) -> int:
        """Bytes of the checkpoint that is being written; 0: none is."""
        sizes = []
        for path in self.output.glob(".last.pt.*.tmp"):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:  # it has got its name
                continue
        return max(sizes, default=0)

    def saved_steps(self) -> int:
        """Steps that the newest checkpoint knows of."""
        checkpoint = torch.load(self.output / "last.pt", weights_only=True, mmap=True)
        return checkpoint["epoch"] * STEPS_AN_EPOCH + checkpoint["step"]

    def kill(self, saving: bool) -> None:
        """SIGKILL. Of several processes one, by turns: a rank; if the first one is ``saving``, it or the launcher."""
        pid = self.process.pid
        ranks = children(pid) if self.family.processes > 1 else []
        if ranks:
            targets = [pid, ranks[0]] if saving else [*ranks, pid]
            pid = targets[self.victims % len(targets)]
        self.victims += 1
        with suppress(ProcessLookupError):  # a rank that has just ended
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        while any(map(alive, ranks)):
            time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that a process has started, in their order; none if it has ended."""
    try:
        return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(pid: int) -> bool:
    """Whether a process is there; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def die_at(where: str) -> None:
    """Run main.py with the rest of the arguments, in a process that kills itself when it touches best.pt.

    ``where``: ``link``, before anything of it is there, or ``rename``, before its temporary name becomes its own.
    """

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename":
            hit = where == "rename" and Path(os.fsdecode(arguments[1])).name == "best.pt"
        elif event in ("os.link", "shutil.copyfile"):
            hit = where == "link" and Path(os.fsdecode(arguments[1])).name.startswith(".best.pt.")
        else:
            return
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    sys.argv = [str(ROOT / "main.py"), *sys.argv[3:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
