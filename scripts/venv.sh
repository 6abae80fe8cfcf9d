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
# pip's own output is a hundred lines; these tell that it is alive.
install() {
    python -m pip install --disable-pip-version-check --progress-bar off "$@" |
        awk '/^ *(Downloading|Using cached) .*[0-9][0-9](\.[0-9])? MB/ {print "  " $(NF-2), $(NF-1), $NF; fflush()}
             /^Installing collected/ {print "  unpacking " NF - 3 " packages"; fflush()}'
}
# Without an NVIDIA GPU torch's CPU wheel will do, and saves gigabytes; where it cannot be had the default one comes.
if [ "$1" = requirements.txt ] && [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi > /dev/null &&
    ! python -c 'import sys, importlib.util as found; sys.exit(found.find_spec("torch") is None)'; then
    echo "no NVIDIA GPU here: installing torch for CPUs (1 GB on disk)"
    if ! install --timeout 15 --retries 1 --index-url https://download.pytorch.org/whl/cpu \
        -r <(grep -E '^torch(vision)?[<>=!]' requirements.txt) 2> /dev/null; then
        echo "  not to be had from download.pytorch.org; the default one follows (6 GB on disk)"
    elif ! python -c 'import torch, torchvision' 2> /dev/null; then # as where a mirror has one of them for CPUs alone
        echo "  torch and torchvision of this index do not fit together; the default ones follow (6 GB on disk)"
        python -m pip uninstall --quiet --yes torch torchvision
    fi
fi
echo "installing what is missing of $1"
install -r "$1"
