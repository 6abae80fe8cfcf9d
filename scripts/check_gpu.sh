#!/usr/bin/env bash
# What to run on a new GPU machine, about 2 minutes: does it compute what it should, and how fast. Arguments go to
# benchmarks/check_gpu.py; without a GPU it says so, with exit status 2.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
[ -e .venv/bin/activate ] && source .venv/bin/activate
exec python -m benchmarks.check_gpu "$@"
