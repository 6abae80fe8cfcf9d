"""``python first_cell.py WORK RESULTS``: the evidence's first cell without pre-training, computed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.evidence import left_over
from benchmarks.evidence_cells import Machine, compute
from benchmarks.evidence_protocol import nih

if __name__ == "__main__":
    machine = Machine(Path(sys.argv[1]), Path(sys.argv[2]), gpu=False, amp="off")
    task = nih(machine.work, 2, 2, 2, narrow=8)
    compute(left_over([task], ["random"], machine)[0], task, machine)
