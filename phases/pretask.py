"""``--phase pretask``: self-supervised pre-training from the first epoch, or from where ``--resume`` says."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from datasets.ct.crop_records import in_words, records_hash, with_scans
from datasets.loader import Loader, smallest_chunk
from datasets.registry import DATASETS, Views, list_lines, list_name
from datasets.xray.patients import shared, some
from methods import METHODS, method_spec
from methods.base import Method
from models.unet import UNetNetwork
from options import Options
from phases.probe import build_probe
from reports.of_run import report_on
from training.devices import Devices
from training.evaluation import ValidationLoss
from training.loop import micro_batch_sizes
from training.network import check_size, continue_with, in_memory_format, start_from_weight
from training.reporting.run_record import list_hash
from training.run import TrainingJob, execute, workers_here
from utils.console import say, warn
from utils.errors import UserError
from utils.process_group import ProcessGroup
from utils.text import counted


def build_loader(options: Options, devices: Devices, ranks: ProcessGroup) -> tuple[Loader, Sequence[str]]:
    """The training data, checked for what the first sample shows, and its files."""
    views = views_of(options)
    files = views.find(Path(options.data), options.train_list or None, options.ratio)
    if options.b > len(files):
        raise UserError(
            f"--b {options.b}: {options.data} has only {counted(len(files), 'training sample')}; use a smaller batch"
        )
    if options.ratio < 1:
        listed = views.listed(Path(options.data), options.train_list or None)
        others = f"--ratio {options.ratio}: the others are left for fine-tuning; 1.0 takes all"
        say(f"{len(files)} of {counted(listed, 'sample')} ({others})")
    return make_loader(options, files, devices, ranks), files


def build_held_out(
    options: Options, devices: Devices, ranks: ProcessGroup, training: Sequence[str]
) -> tuple[ValidationLoss, Sequence[str]] | None:
    """The data for ``--val_every``, if it is asked for, and its files; ``training``: those that are trained on."""
    if not options.val_every:
        return None
    files = views_of(options).find_held_out(Path(options.data))
    check_held_out(options, training, files, ranks)
    if len(files) < ranks.size * method_spec(options.model).min_samples:
        raise UserError(
            f"--val_every: {options.data} has only {counted(len(files), 'held-out sample')} for "
            f"{counted(ranks.size, 'process')}"
        )
    say(f"held-out data: {counted(len(files), 'sample')}")
    loader = make_loader(options, files, devices, ranks, judges=True)
    return ValidationLoss(loader, options.val_every, options.seed), files


def check_held_out(options: Options, training: Sequence[str], files: Sequence[str], ranks: ProcessGroup) -> None:
    """UserError if held-out files are trained on, too; a warning if the run has begun, or if they share patients."""
    both = sorted(set(training) & set(files))
    if both:
        line = (
            f"--val_every: {counted(len(both), 'held-out sample is', 'held-out samples are')} also trained on "
            f"({Path(both[0]).name}{', ...' if len(both) > 1 else ''}): the loss on them means nothing; name a list "
            "without them with --train_list"
        )
        if not options.goes_on:
            raise UserError(line)
        if ranks.first:
            warn(line)
        return
    owner = DATASETS[options.n].owner
    owners = ([owner(os.path.relpath(file, options.data)) for file in part] for part in (training, files))
    patients = [patient for patient, _, _ in shared(*owners)]
    if patients and ranks.first:
        warn(f"--val_every: {some(patients)} both in the training and in the held-out data: their loss is too low")


def make_loader(
    options: Options, files: Sequence[str], devices: Devices, ranks: ProcessGroup, judges: bool = False
) -> Loader:
    """Batches of these files; ``judges``: they are held-out data."""
    views = views_of(options)
    on_device = views.augment if options.augment == "device" else None
    dataset = views.samples(files, options.seed, options.inchannel, options.size, not on_device)
    return Loader(
        dataset,
        options.b,
        options.seed,
        workers_here(options),
        devices.main,
        options.on_bad_sample,
        on_device or (lambda batch: batch),
        ranks,
        options.prefetch,
        keep_workers=not judges,
        min_samples=method_spec(options.model).min_samples,
        gpus=max(1, len(devices.numbers)),
        judges=judges,
    )


def check_flags(options: Options) -> None:
    """Warn of flags that only other methods heed; UserError if one asks for what this method does not have."""
    spec = method_spec(options.model)
    defaults = {field.name: field.default for field in dataclasses.fields(Options)}
    for name, values in spec.fixed.items():
        given = getattr(options, name)
        if given != values.get(options.dims, given):
            known = values[options.dims]
            raise UserError(f"--{name} {given}: --model {options.method_name} knows only {known} here")
    others = frozenset().union(*(other.flags for other in METHODS.values())) - spec.flags - spec.fixed.keys()
    for name in sorted(others):
        if getattr(options, name) != defaults[name]:
            warn(f"--{name} has no effect with --model {options.method_name}")


def views_of(options: Options) -> Views:
    """The views of ``--n`` that ``--model`` learns from."""
    wanted, known = method_spec(options.model).views, DATASETS[options.n].views
    if wanted not in known:
        raise UserError(f"--model {options.model} needs views ({wanted}) that --n {options.n} does not have")
    return known[wanted]


def view_shape(loader: Loader) -> tuple[int, ...]:
    """The spatial size of a view."""
    return tuple(loader.first_sample["gt1"].shape[1:])


def check_shares(
    options: Options, batch_sizes: Sequence[int], devices: Devices, ranks: ProcessGroup, parts: int
) -> None:
    """UserError if a device would get fewer samples of a batch, or of one of its ``parts``, than the method needs."""
    needed, gpus = method_spec(options.model).min_samples, max(1, len(devices.numbers))
    if needed == 1:
        return
    for batch in set(batch_sizes):
        for size in micro_batch_sizes(batch, ranks.size, parts):
            fewest = min(smallest_chunk(share, gpus) for share in ranks.shares(size).sizes)
            if fewest < needed:
                raise UserError(
                    f"--b {options.b}: a device gets only {fewest} of the {batch} samples of a batch at a time; "
                    f"--model {options.method_name} needs at least {needed}; give another --b"
                    + ", fewer --accumulate" * (parts > 1)
                    + ", fewer --gpus or --parallel ddp" * (gpus > 1)
                )


def tell_recipes(
    options: Options, files: Sequence[str], ranks: ProcessGroup, held_out: Sequence[str] = ()
) -> dict[str, Any]:
    """How the samples were cut, as their records say; warns where that was not done alike. Nothing for whole images.

    ``held_out``: the files of the held-out data.
    """
    read = DATASETS[options.n].recipes
    if read is None:
        return {}
    recipes = read(files)
    if len(recipes) > 1 and ranks.first:
        warn(f"{options.data} mixes pairs of different recipes: {with_scans(recipes)}")
    known = [in_words(recipe) for recipe in recipes]
    others = [recipe for recipe in read(held_out) if in_words(recipe) not in known]
    if others and ranks.first:
        warn(f"--val_every: the held-out pairs have another recipe than those trained on: {with_scans(others)}")
    return {"recipes": recipes, "records_sha256": records_hash(files)}


def build_student(
    options: Options, shape: tuple[int, ...], recipes: Sequence[Mapping[str, Any]] = ()
) -> tuple[UNetNetwork, dict[str, Any]]:
    """The network, from random values or from ``--weight``, and what is known of that; ``shape``: of a view.

    ``recipes``: how the samples were cut, of which a ``--weight`` may know another.
    """
    torch.manual_seed(options.seed)
    spec = method_spec(options.model)
    network = spec.network(options.plain())
    check_size(network.unet, shape, options.data)
    if network.unet.narrow != options.narrow:
        raise UserError(f"--narrow {options.narrow}: --model {options.method_name} does not heed it; leave it out")
    network.z_normalised = views_of(options).z_normalised
    return network, start_from_weight(options, network, recipes)


def build_method(options: Options, network: UNetNetwork, n_data: int, devices: Devices, ranks: ProcessGroup) -> Method:
    """The self-supervised method around the network; ``n_data``: batches of an epoch."""
    network = in_memory_format(network, options, devices.main)
    spec = method_spec(options.model)
    return spec.build(network, options.plain(), n_data, devices.wrap, ranks).to(devices.main)


def pretrain(options: Options, devices: Devices, ranks: ProcessGroup) -> None:
    """Pre-train to the last epoch."""

    def build() -> TrainingJob:
        if ranks.first:
            check_flags(options)
        loader, files = build_loader(options, devices, ranks)
        held_out, held_out_files = build_held_out(options, devices, ranks, files) or (None, ())
        check_shares(options, loader.batch_sizes, devices, ranks, options.accumulate)
        if held_out:
            check_shares(options, held_out.loader.batch_sizes, devices, ranks, 1)
        listed = list_name(options.n, Path(options.data), options.train_list or None)
        _, lines = list_lines(options.n, Path(options.data), options.train_list or None)
        facts = {"shape": list(view_shape(loader)), "list": listed} | tell_recipes(
            options, files, ranks, held_out_files
        )
        facts |= {"whole_list_sha256": list_hash(lines)} if lines else {}
        network, start = build_student(options, view_shape(loader), facts.get("recipes", ()))
        if "locals" in loader.first_sample:
            check_size(network.unet, loader.first_sample["locals"].shape[2:], options.data)
        method = build_method(options, network, len(loader), devices, ranks)
        continue_with(options, method)
        probe = build_probe(options, method, network, devices, ranks, files)
        if options.keep == "best-probe" and probe:
            facts["judged_by"] = probe.fingerprint
        elif held_out:
            facts["judged_by"] = list_hash([os.path.basename(file) for file in held_out_files])
        windows, spec = views_of(options).windows, method_spec(options.model)
        job = TrainingJob(method, loader, files, windows, held_out, facts=facts | start)
        report = partial(report_on, spec=spec)
        return dataclasses.replace(job, report=report, probe=probe, same_operations=spec.cuda_graph)

    execute(options, devices, ranks, build)
