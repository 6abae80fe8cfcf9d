#!/usr/bin/env bash
# Install what the tests need, then check style and types and run all tests. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" requirements-dev.txt
ruff check .
ruff format --check .
mypy
# One test process a core, each with one thread: twice as fast as one process with all threads.
# glibc keeps what is freed, instead of having the kernel clear new pages all the time: a seventh less time.
export MALLOC_TRIM_THRESHOLD_=2000000000 MALLOC_MMAP_THRESHOLD_=2000000000
OMP_NUM_THREADS=1 exec python -m pytest -n "$(nproc 2>/dev/null || sysctl -n hw.ncpu)" --dist worksteal "$@"
