"""``python in_a_terminal.py TERMINAL ignoring|ending SCRIPT ...``: the script there, deaf to SIGHUP or not."""

from __future__ import annotations

import fcntl
import os
import runpy
import signal
import sys
import termios

if __name__ == "__main__":
    terminal, hanging_up, *sys.argv = sys.argv[1:]
    signal.signal(signal.SIGHUP, signal.SIG_IGN if hanging_up == "ignoring" else signal.SIG_DFL)
    os.setsid()
    its = os.open(terminal, os.O_RDWR)
    fcntl.ioctl(its, termios.TIOCSCTTY, 0)
    for stream in range(3):
        os.dup2(its, stream)
    os.close(its)
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
