# Sourced by the other scripts: a virtual environment (the active one, else .venv) with what $1 lists.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${VIRTUAL_ENV:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
            { echo "error: $(python3 --version) is too old; Python 3.10 or newer is needed" >&2; exit 2; }
        echo "making a virtual environment in .venv"
        python3 -m venv .venv
    fi
    source .venv/bin/activate
fi
echo "installing what is missing of $1 (the first time some gigabytes, mostly torch)"
python -m pip install --quiet --disable-pip-version-check -r "$1"
