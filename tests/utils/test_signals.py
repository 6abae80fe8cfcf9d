"""The first signal is noted and answered, a second one stops the program, and its status says so."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.processes import hanging_up

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
PROGRAM = """
import os, signal
from utils.errors import run_cli
from utils.signals import StopRequest

def main():
    with StopRequest(once={once}, answer={answer!r}) as request:
        os.kill(os.getpid(), signal.SIGINT)
        print("noted", request.signum, flush=True)
        if {second}:
            os.kill(os.getpid(), signal.SIGTERM)
        print("went on", flush=True)

run_cli(main)
"""


def run(**words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(**words)]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False, cwd=ROOT
    )


def test_the_first_one_is_answered_at_once_and_noted() -> None:
    done = run(once=False, answer="stopping soon", second=False)
    assert done.stdout == "SIGINT: stopping soon; again to stop without saving\nnoted 2\nwent on\n"
    assert done.returncode == 0


def test_a_second_one_stops() -> None:
    done = run(once=False, answer="stopping soon", second=True)
    assert done.stdout.endswith("noted 2\nstopped by SIGTERM\n")
    assert done.returncode == 128 + signal.SIGTERM


def test_a_second_one_in_the_same_instant_does_not_take_the_answer_of_the_first() -> None:
    program = """
install = signal.signal
def amid(number, handler):
    former = install(number, handler)
    if getattr(handler, "__name__", "") == "_stop_at_once" and number == signal.SIGTERM:
        os.kill(os.getpid(), signal.SIGTERM)  # before the first one is answered
    return former
signal.signal = amid

run_cli(main)
"""
    own = PROGRAM.format(once=False, answer="stopping soon", second=False).replace("\nrun_cli(main)\n", program)
    done = subprocess.run([sys.executable, "-c", own], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr == "SIGINT: stopping soon; again to stop without saving\nstopped by SIGTERM\n"
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")


def test_a_third_one_ends_a_process_whose_standard_error_nobody_reads() -> None:
    """As of a terminal that was halted by Ctrl-S: the answers wait there."""
    program = PROGRAM.format(once=False, answer="stopping soon", second=False).replace(
        "        os.kill",
        "        os.set_blocking(2, False)\n"
        "        try:\n"
        "            while True: os.write(2, b'x' * 512)\n"
        "        except BlockingIOError:\n"
        "            os.set_blocking(2, True)\n"
        "        print('full', flush=True)\n"
        "        os.kill",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "full\n"
    for _ in range(2):  # beside its own
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM
    process.communicate()


def test_the_answer_is_that_of_the_moment() -> None:
    program = PROGRAM.format(once=False, answer="stopping soon", second=True).replace(
        "        os.kill",
        '        with request.answering("the test part first", "to end at once"):\n            os.kill',
        1,
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr == "SIGINT: the test part first; again to end at once\nstopped by SIGTERM\n"


def test_of_several_processes_none_minds_a_second_one_and_one_speaks() -> None:
    assert run(once=True, answer="stopping soon", second=True).stdout == "SIGINT: stopping soon\nnoted 2\nwent on\n"
    assert run(once=True, answer="", second=True).stdout == "noted 2\nwent on\n"


def test_hanging_up_is_no_second_signal() -> None:
    program = PROGRAM.format(once=False, answer="", second=True)
    for first, second in (("SIGHUP", "SIGHUP"), ("SIGINT", "SIGHUP")):
        own = program.replace("SIGTERM", second).replace("SIGINT", first)
        with hanging_up(ignored=False):
            done = subprocess.run(
                [sys.executable, "-c", own], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
            )
        assert done.stdout == f"noted {getattr(signal, first).value}\nwent on\n"
        assert done.returncode == 0


def test_hanging_up_is_not_heeded_under_nohup() -> None:
    program = PROGRAM.format(once=False, answer="heard", second=False).replace("SIGINT", "SIGHUP")
    done = subprocess.run(
        ["nohup", sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert done.stdout == "noted None\nwent on\n"
