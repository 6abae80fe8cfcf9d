"""Pre-train a network, and use it, from the command line. ``python main.py --help`` lists the flags."""

from __future__ import annotations

import os

if __name__ == "__main__":  # before anything is imported that may be missing
    from utils.requirements import say_missing_packages

    say_missing_packages()

from options import TRAINING
from options.command_line import check_paths, parse_options
from utils.console import say, warn
from utils.errors import run_cli


def main() -> int:
    """Parse the command line and run; -> the exit status."""
    options, warnings = parse_options()
    if "RANK" not in os.environ:  # else the ranks say together what one of them finds wrong
        check_paths(options)
    # Late, since torch takes seconds to import: --help and wrong flags are answered at once.
    from training.devices import Devices, processes_wanted
    from training.distributed import end_alike, end_now, joined, launch, local_rank, ranks_of_environment

    ranks, rank_here = ranks_of_environment(), local_rank()
    processes = processes_wanted(options.parallel, options.processes, options.gpus)
    if rank_here is None and processes > 1:
        return launch(processes)
    devices = Devices(options.gpus, rank_here)
    # later still: whoever launches others needs no phase
    from datasets.workers import kill_workers_at_exit
    from phases import phase
    from phases.preview import preview
    from training.dry_run import out_of_memory_is_said

    kill_workers_at_exit()
    for message in warnings + devices.warnings:
        warn(message)
    say(devices.note)
    if devices.advice and options.phase in TRAINING:
        say(devices.advice)
    with joined(ranks, devices.main):
        work = preview if options.preview else phase(options.phase)

        def work_or_say() -> None:
            with out_of_memory_is_said(options):
                work(options, devices, ranks)

        status = end_alike(ranks, work_or_say)
    if ranks.size > 1:
        end_now(status)
    return status


if __name__ == "__main__":
    run_cli(main)
