"""Several processes, called ranks, that train one network together: torch's DistributedDataParallel.

``--parallel ddp`` starts them on this machine; ``torchrun --nproc_per_node N main.py ...`` starts them on one machine
or many. How a run ends when one of them does:

* A rank that dies (killed, out of memory, a bug) ends its machine's ranks within ``GRACE_S`` seconds under
  ``--parallel ddp``, and within torchrun's own 30 under torchrun; ranks on other machines notice when a connection
  breaks, at the latest after ``TIMEOUT``. Exit statuses are not zero, and the reason is said.
* ProcessGroup of a launcher that was killed end with it (Linux).
* An error that ends one rank, or all ranks, is printed once, by the rank that reports it first: one line, and a
  traceback if it is a bug. This rank exits at once and does not notify the other ranks, which may be waiting for it in
  a collective call. The launcher ends them soon (torchrun itself then exits with 1).
* Signals that ask to stop, sent to the launcher or to any rank, stop all ranks after the same step.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from utils.console import mute, say
from utils.cores import available_cores
from utils.errors import Unfinished, complain, flush, in_words
from utils.process_group import SINGLE, ProcessGroup
from utils.signals import HANGUP, Stopped, heeded

if TYPE_CHECKING:  # a launcher starts in half the time without
    from methods.base import Batch, Method, StepOutput

TIMEOUT = timedelta(minutes=10)  # of a collective call: the longest that one rank may keep the others waiting
GRACE_S = 5.0  # for the other ranks to end by themselves once one has failed
FIRST_SPEAKS_S = 1.0  # how long other ranks let the first one say what has ended them all
CLAIMED, SAID = "pcrl/end claimed", "pcrl/end said"  # keys of the store that the ranks share
UNFINISHED = 4  # exit status of ranks that all did what could be done; their launcher's is 1
LOST_CONTACT = 3  # exit status of a rank that failed because another one did
LAUNCHER = "PCRL_LAUNCHER_PID"  # set by launch() for its ranks
GO_ON = "run the command again to go on, a training with --resume auto"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def ranks_of_environment() -> ProcessGroup:
    """This process among those that :func:`launch` or torchrun started; alone if neither did."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return SINGLE
    ranks = ProcessGroup(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if not ranks.first:
        mute()
    return ranks


def local_rank() -> int | None:
    """The number of this rank on its machine; None outside a launcher."""
    return int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else None


def distributed(method: Method, ranks: ProcessGroup) -> Callable[[Batch, Any], StepOutput]:
    """The method's forward, after whose backward the gradient is the mean over the ranks'.

    Starts all ranks with the first one's values. Buffers are not sent again: batch normalisation is per rank, and the
    method keeps equal what must be equal.
    """
    if ranks.size == 1:
        return method
    # The strides of a 1x1 kernel are ambiguous, and its gradient's depend on who computes it; nothing is slower for it.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 renames the argument; older ones know this name
        return DistributedDataParallel(method, broadcast_buffers=False)


def _end_with_launcher() -> None:
    """Have the kernel kill this process when its launcher ends, however that ends. Linux only."""
    if sys.platform == "linux" and (LAUNCHER in os.environ or "TORCHELASTIC_RUN_ID" in os.environ):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):
            sys.exit(LOST_CONTACT)  # it has ended already


def backend_name(device: torch.device) -> str:
    """What carries tensors between ranks; small Python objects always travel by gloo."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


@contextmanager
def joined(ranks: ProcessGroup, device: torch.device) -> Iterator[None]:
    """Be connected with the other ranks. Once the connection breaks, this process ends, with one line."""
    if ranks.size == 1:
        yield
        return
    _end_with_launcher()
    try:
        store = None
        if LAUNCHER in os.environ:
            store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=TIMEOUT)
        dist.init_process_group(
            backend_name(device), timeout=TIMEOUT, world_size=ranks.size, rank=ranks.rank, store=store
        )
        yield
    except RuntimeError as error:
        if not _lost_contact(error):
            raise
        if ranks.first and not _said(0):
            reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).split(". ")[0]  # no C++ file and line
            complain(f"lost contact with the other ranks ({reason}): one ended or hangs; {GO_ON}")
        os._exit(LOST_CONTACT)  # an orderly exit could wait for the lost rank
    dist.destroy_process_group()


def _lost_contact(error: BaseException) -> bool:
    """Whether a rank failed since another one is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))


def _store() -> dist.Store:
    """What the launcher keeps for the ranks: to ask it waits for no other rank, as a collective call would."""
    return dist.distributed_c10d._get_default_store()


def _said(patience_s: float) -> bool:
    """Whether a rank has said why it ends; waits for one that is about to. False if nobody can be asked any more."""
    try:
        if patience_s:
            _store().wait([SAID], timedelta(seconds=patience_s))
        return _store().check([SAID])
    except (RuntimeError, ValueError):
        return False


def _end_alone(ranks: ProcessGroup, error: Exception) -> NoReturn:
    """Say what ended this rank, unless another one has said what ended it, and leave. Calls nothing collective."""
    status, words = in_words(error)
    if not ranks.first and _said(FIRST_SPEAKS_S):  # most errors all ranks meet alike
        end_now(status)
    try:
        heard = _store().add(CLAIMED, 1) > 1 and _said(FIRST_SPEAKS_S)
    except RuntimeError:
        heard = False
    if not heard:
        if status == 1:
            traceback.print_exception(error)
        complain(words if ranks.first else f"rank {ranks.rank}: {words}")
        with suppress(RuntimeError):
            _store().set(SAID, words)
    end_now(status)


def end_alike(ranks: ProcessGroup, work: Callable[[], None]) -> int:
    """Do the ``work``; where all ranks end alike, done or stopped, the first one says it. -> the exit status.

    An error need not be known to the others, so that nothing collective can follow it: this process ends here.
    """
    status = 0
    try:
        work()
    except Stopped as stopped:
        say(str(stopped))
        status = stopped.status
    except Unfinished as unfinished:
        if ranks.first:
            complain(str(unfinished))
        status = UNFINISHED if LAUNCHER in os.environ else 1
    except Exception as error:
        if ranks.size == 1 or _lost_contact(error):
            raise
        _end_alone(ranks, error)
    ranks.gather_objects(None)  # nobody leaves before it is said: launchers end the others once one has failed
    return status


def end_now(status: int) -> NoReturn:
    """End this process like ``sys.exit``, but without the shutdown of the interpreter.

    The model keeps the threads of gloo alive, even after the process group was destroyed. One of them may still hold
    the tensor of the last collective call. Releasing it during the shutdown of Python would abort the process.
    """
    atexit._run_exitfuncs()
    flush()
    os._exit(status)


def launch(size: int) -> int:
    """Run this same command as ``size`` ranks on this machine; -> the exit status of the first that failed, or 0.

    Signals that ask to stop are passed on; a second one kills, unless it is HUP (as of ``StopRequest``).
    """
    processes: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        if asked and signum == HANGUP:
            return
        asked.append(signum)
        for process in processes:
            process.send_signal(signum if len(asked) == 1 else signal.SIGKILL)

    for signum in heeded():
        signal.signal(signum, pass_on)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        LAUNCHER: str(os.getpid()),
    }
    environment.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // size)))
    try:
        for rank in range(size):
            own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            # A session of its own: Ctrl-C in a terminal signals the launcher alone, which passes it on once.
            command = [sys.executable, *sys.orig_argv[1:]]
            processes.append(subprocess.Popen(command, env=own, start_new_session=True))
        for former in asked:  # before all had started
            for process in processes:
                process.send_signal(former)
        return _wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for the ranks to end; once one failed, no longer than GRACE_S. -> the exit status, its reason said."""
    failed: dict[int, int] = {}  # rank -> status, in the order of failing
    deadline = math.inf
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(0.05)
        for rank, process in enumerate(processes):
            if process.poll() and rank not in failed:
                failed[rank] = process.returncode
                deadline = min(deadline, time.monotonic() + GRACE_S)
    # A rank that lost contact failed because another one did.
    rank, status = min(failed.items(), key=lambda item: item[1] == LOST_CONTACT, default=(0, 0))
    if status < 0:
        complain(f"{signal.Signals(-status).name} killed rank {rank}, so the run ended; {GO_ON}")
        return 128 - status
    if status == UNFINISHED:
        return 1
    if status == 1:
        complain(f"rank {rank} failed (error above), so the run ended")
    return status
