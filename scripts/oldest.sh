#!/usr/bin/env bash
# The oldest versions that requirements.txt allows, in an environment of their own (default: .venv-oldest): the golden
# numbers, and one run of each phase. Arguments go to pytest, in place of these tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment="${OLDEST_VENV:-.venv-oldest}"
[ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
source "$environment/bin/activate"
oldest=$(mktemp)
trap 'rm -f "$oldest"' EXIT
sed -E 's/^([A-Za-z0-9_-]+)>=([0-9.]+)[^;]*/\1==\2.*/' requirements.txt > "$oldest"
python -m pip install --quiet --disable-pip-version-check -r "$oldest" "pytest>=8" "hypothesis>=6.100" "nibabel>=5"
python -m pip list --format freeze | grep -iE "$(sed -nE 's/^([A-Za-z0-9_-]+)==.*/^\1==/p' "$oldest" | paste -sd '|')"
[ $# -gt 0 ] || set -- tests/methods/test_golden.py tests/methods/test_golden_v2.py tests/phases tests/tasks/test_msd.py tests/tasks/test_nodules.py
python -m pytest -q -p no:cacheprovider "$@"
