"""Pre-train a network from the command line: parse, build, run. ``python main.py --help`` lists the flags."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch

from datasets.loader import Loader
from datasets.registry import DATASETS
from methods import METHODS
from methods.base import Method
from methods.pcrl import PCRLConfig
from models.pcrl import PCRLNetwork, build_network
from models.weights import load_weights
from options import Options, parse_options
from preprocess.parallel import available_cores
from training.checkpoint import Position, TrainingState, check_same_run, find_resume
from training.devices import Devices, processes_wanted
from training.distributed import backend_name, end_alike, joined, launch, local_rank, local_size, ranks_of_environment
from training.keeper import Keeper
from training.loop import Trainer, train
from training.precision import build_precision
from training.record import list_hash, write_run_record
from training.report import Reporter, Silence
from training.schedule import build_optimizer
from training.validate import HeldOut
from utils.console import say, warn
from utils.errors import UserError, run_cli
from utils.locks import exclusive
from utils.ranks import Ranks
from utils.signals import StopRequest


def build_loader(options: Options, device: torch.device, ranks: Ranks) -> tuple[Loader, Sequence[str]]:
    """The training data, checked for what the first sample shows, and its files."""
    files = DATASETS[options.n].find(Path(options.data), options.train_list or None, options.ratio)
    if options.b > len(files):
        raise UserError(f"--b {options.b}: {options.data} has only {len(files)} training samples; use a smaller batch")
    return make_loader(options, files, device, ranks), files


def build_held_out(options: Options, device: torch.device, ranks: Ranks) -> HeldOut | None:
    """The data for ``--val_every``, if it is asked for."""
    if not options.val_every:
        return None
    files = DATASETS[options.n].find_held_out(Path(options.data))
    if len(files) < ranks.size:
        raise UserError(
            f"--val_every: {options.data} has only {len(files)} held-out samples for {ranks.size} processes"
        )
    say(f"held-out data: {len(files)} samples")
    return HeldOut(make_loader(options, files, device, ranks), options.val_every, options.seed)


def make_loader(options: Options, files: Sequence[str], device: torch.device, ranks: Ranks) -> Loader:
    """Batches of these files."""
    source = DATASETS[options.n]
    on_device = options.augment == "device"
    dataset = source.pairs(files, options.seed, options.inchannel, not on_device)
    finish = source.augment if on_device else lambda batch: batch
    workers = min(options.workers, max(1, available_cores() // local_size()))
    if workers < options.workers:
        say(f"workers: {workers}, one a core, not {options.workers}")
    return Loader(dataset, options.b, options.seed, workers, device, options.on_bad_sample, finish, ranks)


def build_student(options: Options, shape: tuple[int, ...]) -> PCRLNetwork:
    """The network, from random values or from ``--weight``; ``shape``: spatial size of a view."""
    torch.manual_seed(options.seed)
    network = build_network(options.dims, options.inchannel, options.outchannel, options.norm, options.final_act)
    multiples = network.unet.size_multiple
    if any(size % multiple for size, multiple in zip(shape, multiples, strict=True)):
        raise UserError(f"{options.data}: views of {shape} voxels; the network needs multiples of {multiples}")
    if options.weight:
        say(f"weights of {options.weight}: {load_weights(network, options.weight)}")
    return network


def build_method(options: Options, network: PCRLNetwork, n_data: int, devices: Devices, ranks: Ranks) -> Method:
    """The self-supervised method around the network."""
    config = PCRLConfig(
        n_data=n_data,
        temperature=options.moco_t,
        reconstruction_loss=options.loss,
        shuffle_bn=options.shuffle_bn == "full",
    )
    return METHODS[options.model](network, config, devices.wrap, ranks).to(devices.main)


def prepare_output(path: str) -> Path:
    """Make the output folder; UserError if nothing can be written there."""
    output = Path(path)
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK):
            raise PermissionError("not writable")
    except OSError as error:
        raise UserError(f"--output {path}: {error.strerror or error}; give a folder that can be written to") from None
    return output


@contextmanager
def run_folder(options: Options, ranks: Ranks) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """``--output``, held for this run, and the checkpoint to go on from, if any. Only the first rank looks there."""
    output, checkpoint = Path(options.output), None
    with ExitStack() as stack:
        with ranks.together():
            if ranks.first:
                prepare_output(options.output)
                stack.enter_context(exclusive(output))
                checkpoint = find_resume(options.resume, output)
        yield output, ranks.from_first(checkpoint)


def pretrain(options: Options, devices: Devices, ranks: Ranks) -> None:
    """Pre-train from the first epoch, or from where ``--resume`` says, to the last."""
    with ranks.together():
        loader, files = build_loader(options, devices.main, ranks)
        held_out = build_held_out(options, devices.main, ranks)
        network = build_student(options, loader.view_shape)
        method = build_method(options, network, len(loader), devices, ranks)
        optimizer = build_optimizer(
            options.optimizer, method.trainable(), options.lr, options.momentum, options.weight_decay
        )
        precision = build_precision(options.amp, devices.main, method, optimizer)
    list_sha256 = list_hash([os.path.basename(file) for file in files])
    if len(set(ranks.gather_objects(list_sha256))) > 1:
        raise UserError(f"--data {options.data}: holds other training samples on one machine than on another")
    trainer = Trainer(method, optimizer, precision, options.seed, options.max_bad_steps, ranks)
    state = TrainingState(method, optimizer, precision, Position(), ranks)
    with StopRequest(once=ranks.size > 1) as request, run_folder(options, ranks) as (output, checkpoint):
        if checkpoint:
            check_same_run(checkpoint, options, list_sha256, ranks)
            state.restore(checkpoint)
            say(f"going on after epoch {state.position.epoch}, step {state.position.step}")
        say(
            f"data: {len(files)} samples in {options.data}, {len(loader)} steps an epoch; "
            f"precision: {precision.name}; output: {output}"
        )
        reporter: Reporter | Silence = Silence()
        if ranks.first:
            data = {"samples": len(files), "list_sha256": list_sha256}
            machine = {"device": devices.note, "precision": precision.name, "world_size": ranks.size}
            if ranks.size > 1:
                machine["backend"] = backend_name(devices.main)
            write_run_record(output, options, data, machine)
            reporter = Reporter(
                output,
                options.epochs,
                len(loader),
                options.log_every,
                DATASETS[options.n].window,
                devices.main,
                checkpoint["report"] if checkpoint else None,
                state.position.epoch * len(loader) + state.position.step,
            )
        with closing(reporter):
            train(
                trainer,
                loader,
                reporter,
                Keeper(state, reporter, options, output, list_sha256, request),
                lr=options.lr,
                epochs=options.epochs,
                position=state.position,
                held_out=held_out,
            )


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
        return end_alike(ranks, lambda: pretrain(options, devices, ranks))


if __name__ == "__main__":
    run_cli(main)
