"""Pre-train a network, and use it, from the command line. ``python main.py --help`` lists the flags."""

from __future__ import annotations

from options import parse_options
from phases import PHASES
from training.devices import Devices, processes_wanted
from training.distributed import end_alike, joined, launch, local_rank, ranks_of_environment
from utils.console import say, warn
from utils.errors import run_cli


def main() -> int:
    """Parse the command line and run; -> the exit status."""
    ranks, rank_here = ranks_of_environment(), local_rank()
    options, warnings = parse_options()
    processes = processes_wanted(options.parallel, options.processes, options.gpus)
    if rank_here is None and processes > 1:
        return launch(processes)
    devices = Devices(options.gpus, rank_here)
    for message in warnings + devices.warnings:
        warn(message)
    say(devices.note)
    with joined(ranks, devices.main):
        return end_alike(ranks, lambda: PHASES[options.phase](options, devices, ranks))


if __name__ == "__main__":
    run_cli(main)
