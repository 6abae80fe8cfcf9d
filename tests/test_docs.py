"""The commands and snippets of the README and of docs/ work: each is run, at reduced size, and its result looked at.

A page is a session in a folder of its own. The inputs that its commands name lie there (``sample``), and what its
commands write stays for the next ones. A command without a rule (page_rules.py) fails: give it one.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torch.distributed.run
import torchvision

from tests.conftest import ROOT, write_pairs, write_xrays
from tests.inprocess import run_script
from tests.page_rules import RULES, Command
from tests.preprocess.small_scans import chest, write

PAGES = {"README.md": ROOT / "README.md", "CONTRIBUTING.md": ROOT / "CONTRIBUTING.md"}
PAGES |= {path.name: path for path in sorted(ROOT.glob("docs/*.md")) if path.name != "README.md"}
PAGES["docs/README.md"] = ROOT / "docs" / "README.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Where a page says that its Python snippets run, and what they need there beside what the page's commands write.
SNIPPETS_IN = {"EXPORT.md": "weights"}
PRETRAINED = {"chest": "chest14_data_path", "luna": "processedLUNA_save_path"}  # the runs that the pages begin with
RUNS = {"chest": ("my_run", "pcrl_chest_"), "luna": ("my_3d_run", "pcrl_luna_")}  # what their weights are called
EXPORTS = (
    "python export.py --checkpoint pcrl_chest_pretask_1.0_240.pt --save weights_smp --target smp",
    "python export.py --checkpoint pcrl_luna_pretask_1.0_240.pt --save weights_3d",
)

NOT_RUN = {
    "git clone": "loads the project from the internet",
    "python3 -m venv": "makes an environment",
    "pip install": "changes the environment, and loads packages",
    "bash scripts/demo.sh": "installs, and takes minutes; it is a test of its own",
    "bash scripts/test.sh": "is what runs this test",
    "bash scripts/oldest.sh": "makes an environment, and takes minutes",
    "sbatch scripts/slurm_one_node.sbatch": "needs Slurm; tests/test_scripts.py runs the script with a stand-in",
    "sbatch scripts/slurm_several_nodes.sbatch": "needs Slurm; tests/test_scripts.py runs the script with a stand-in",
    "bash scripts/finetune_example.sh": "installs, and takes minutes; its commands are those of FINETUNING_3D.md",
    "bash scripts/pretrain_chest.sh": "tests/test_scripts.py compares its command with the README's",
    "bash scripts/pretrain_luna.sh": "tests/test_scripts.py compares its commands with the README's",
    "tensorboard --logdir": "a server, of a package of its own",
    **dict.fromkeys(("export 'PYTHONPATH", "nnUNetv2_"), "nnU-Net's, which is no requirement"),
    "python export.py --checkpoint my_3d_run/last.pt --save weights_nnunet": "as the next one",
    "python weights_nnunet/pcrl_nnunet.py": "reads plans of nnU-Net; tests/exporting/test_nnunet.py runs it",
    "python -c": "loads weights from the internet; the sample has them",
}


def blocks(page: str, language: str) -> Iterator[tuple[int, str]]:
    """The fenced blocks of a page in this language, each with the number of its first line."""
    text = PAGES[page].read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if match[1] == language:
            yield text[: match.start(2)].count("\n") + 1, match[2]


def commands(page: str) -> list[Command]:
    """The commands of a page's bash blocks, each one once."""
    found: dict[str, Command] = {}
    for first, block in blocks(page, "bash"):
        whole = block.replace("\\\n", "  ")
        for number, line in enumerate(whole.splitlines()):
            if words := shlex.split(line, comments=True):
                found.setdefault(shlex.join(words), Command(page, first + number, words))
    return list(found.values())


def excused(command: Command) -> bool:
    return any(shlex.join(command.words).startswith(start) for start in NOT_RUN)


def test_every_command_has_a_rule_and_every_rule_a_command() -> None:
    everything = [command for page in PAGES for command in commands(page)]
    kinds = {command.kind for command in everything if not excused(command)}
    unknown = [str(command) for command in everything if not excused(command) and command.kind not in RULES]
    assert not unknown, "give these a rule in RULES, or a reason in NOT_RUN"
    assert set(RULES) <= kinds
    unused = [start for start in NOT_RUN if not any(shlex.join(c.words).startswith(start) for c in everything)]
    assert not unused


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES.values():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def write_segmentation(folder: Path) -> None:
    """Three volumes with a bright block, and its mask."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for case in range(3):
        label = np.zeros((10, 18, 17), np.uint8)
        label[3:7, 4 + case : 12, 5:11] = 1
        noise = np.random.default_rng(case).normal(size=label.shape)
        for kind, values in (("imagesTr", (label + noise).astype(np.float32)), ("labelsTr", label)):
            sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / kind / f"case{case}.nii.gz"))


def write_table(folder: Path) -> None:
    """Labels of 24 X-rays of six patients: each has some of each kind."""
    rows = [f"{n + 1:08d}_000.png,{n // 4},{n % 2},{n // 2 % 2},{'ab'[n % 2]},{40 + n}\n" for n in range(24)]
    (folder / "labels.csv").write_text("image,patient_id,edema,effusion,finding,age\n" + "".join(rows))


# Running them -----------------------------------------------------------------------------------------------------


def wide(page: str) -> frozenset[str]:
    """The data sets whose networks need all their channels there: those whose weights it exports."""
    exported = [command.words for command in commands(page) if command.kind == "export.py"]
    exported += [line.split() for line in EXPORTS if page == "EXPORT.md"]
    return frozenset(
        n for n, names in RUNS.items() if any(name in " ".join(words) for words in exported for name in names)
    )


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[frozenset[str]], Path]:
    """A function that gives a folder with all inputs that the pages name, small; which data sets' networks are wide."""
    make = tmp_path_factory.mktemp
    data = cache(lambda: write_data(make("data")))
    run = cache(lambda n, wide: write_run(make("run"), data(), n, wide))
    return cache(lambda wide: write_sample(make("sample"), data(), {n: run(n, wide & {n}) for n in PRETRAINED}))


def write_data(folder: Path) -> Path:
    """X-rays, scans and pairs, with their lists and labels."""
    own = write_xrays(folder / "my_xrays", count=2)
    for name, line in zip(("train", "valid"), (own / "chest_train.txt").read_text().splitlines(), strict=True):
        (own / f"chest_{name}.txt").write_text(f"{line}\n")
    labelled = write_xrays(folder / "chest14_data_path", count=6)
    for number, part in enumerate(("train", "valid", "test")):  # two images each, one with a finding
        lines = [f"{2 * number + i + 1:08d}_000.png {i}{' 0' * 13}\n" for i in (0, 1)]
        (labelled / f"chest_{part}.txt").write_text("".join(lines))
    write_segmentation(folder / "Task04_Hippocampus")
    write_table(write_xrays(folder / "my_hospital", count=24, size=64))
    for name, scans in (("LUNA_dataset_path", 2), ("my_scans", 1), ("my_mr", 1)):
        for number in range(scans):
            write(folder / name / f"scan{number}.nii.gz", chest(number, (64, 64, 48)))
    for name, scans in (("processedLUNA_save_path", 2), ("my_pairs", 1), ("my_mr_pairs", 1)):
        write_pairs(folder / name, scans, pairs=1)
    torch.save(torchvision.models.resnet34().state_dict(), folder / "resnet34.pt")
    return folder


def write_run(folder: Path, data: Path, n: str, wide: frozenset[str]) -> Path:
    """A pre-training on this data set; -> its folder."""
    words = ["python", "main.py", "--n", n, "--data", str(data / PRETRAINED[n])]
    run_page_command(Command("sample", 0, [*words, *narrowed(words, wide)]), folder)
    return folder / "pcrl_output"


def write_sample(folder: Path, data: Path, runs: dict[str, Path]) -> Path:
    """The data, and a folder of a finished pre-training of 3D, with the weights of both there and beside it."""
    for entry in data.iterdir():
        (folder / entry.name).symlink_to(entry)
    output = folder / "pretrained_model_save_path"
    shutil.copytree(runs["luna"], output, copy_function=os.link)
    (output / "pcrl_luna_pretask_1.0_1.pt").unlink()
    for n, run in runs.items():
        for place in (folder, output):
            os.link(run / f"pcrl_{n}_pretask_1.0_1.pt", place / f"pcrl_{n}_pretask_1.0_240.pt")
        own = folder / RUNS[n][0]
        own.mkdir()
        os.link(run / f"pcrl_{n}_pretask_1.0_1.pt", own / "last.pt")
    (folder / "pretrained").symlink_to(output)
    return folder


def narrowed(words: list[str], wide: frozenset[str]) -> list[str]:
    """What makes the network of this command narrow; weights from elsewhere, in a .pt of the sample, are wide."""
    data = words[words.index("--n") + 1] if "--n" in words else "chest"  # of a prediction, which has none
    return [] if data in wide or "main.py" not in words or "resnet34.pt" in words else ["--narrow", "8"]


def arguments(command: Command) -> list[str]:
    """The command's own and the rule's."""
    return [*command.words[1:], *shlex.split(RULES[command.kind].small(command))]


def make_room(target: Path, keep: bool) -> None:
    """What the command writes is its own: not the sample's, and not an earlier command's unless it goes on with it."""
    former = target.resolve()
    if target.is_symlink():
        target.unlink()
        if keep:
            shutil.copytree(former, target)
    elif not keep:
        shutil.rmtree(target, ignore_errors=True)


def run_page_command(command: Command, folder: Path) -> None:
    """Run a command in the folder and look at what it wrote."""
    target, log = folder / command.target, folder / "log.txt"
    make_room(target, keep="--resume" in command.words or command.kind == "scripts/report.py")
    words = [str(ROOT / word) if word.endswith(".py") else word for word in arguments(command)]
    if command.words[0] == "torchrun":
        words[words.index("--nproc_per_node") + 1] = "2"
        words = [torch.distributed.run.__file__, *words]
    status = run_script(words, folder, log)
    assert status == 0, f"{command}\nends with {status}:\n{log.read_text()[-2000:]}"
    RULES[command.kind].look(command, target)
    keep_checkpoints(command, target, folder / "kept")


def keep_checkpoints(command: Command, target: Path, kept: Path) -> None:
    """What the command, unshortened, would have written is there for the page's next ones, whoever writes there."""
    kept.mkdir(exist_ok=True)
    if command.kind != "main.py pretask":
        return
    for path in target.glob("pcrl_*_1.0_1.pt"):
        name = path.name.replace("_1.pt", f"_{command.value('--epochs', '100')}.pt")
        shutil.copy(path, kept / name)
    for path in kept.iterdir():
        shutil.copy(path, target / path.name)


def runs(page: str) -> bool:
    return any(blocks(page, "python")) or any(not excused(command) for command in commands(page))


@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)])
def test_page(page: str, sample: Callable[[frozenset[str]], Path], tmp_path: Path) -> None:
    for entry in sample(wide(page)).iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    for command in commands(page):
        if not excused(command):
            words = [*command.words, *narrowed(command.words, wide(page))]
            run_page_command(replace(command, words=words), tmp_path)
    snippets = [block for _, block in blocks(page, "python")]
    if page == "EXPORT.md":
        for line in EXPORTS:
            command = Command(page, 0, line.split())
            run_page_command(command, tmp_path)
            shutil.copytree(tmp_path / command.target, tmp_path / SNIPPETS_IN[page], dirs_exist_ok=True)
    if snippets:
        run_snippets(snippets, tmp_path / SNIPPETS_IN.get(page, "."))
    for entry in tmp_path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)


def run_snippets(snippets: list[str], folder: Path) -> None:
    """Run a page's Python snippets as one program."""
    script = folder / "snippets.py"
    script.write_text("\n".join(snippets))
    log = folder / "snippets.txt"
    assert run_script([str(script)], folder, log) == 0, log.read_text()
