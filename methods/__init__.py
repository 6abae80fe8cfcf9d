"""Self-supervised methods by their ``--model`` names. A new one is a file here, a line in METHODS, and its test."""

from __future__ import annotations

from pathlib import Path

from methods import pcrl, pcrl_paper, pcrlv2
from methods.spec import MethodSpec, spec_in_file

# Their names stand in options.MODELS, too, which is free of torch.
METHODS = {spec.name: spec for spec in (pcrl.SPEC, pcrl_paper.SPEC, pcrlv2.SPEC)}


def method_spec(model: str) -> MethodSpec:
    """The method that ``--model`` names: one of METHODS, or a Python file with a SPEC."""
    return METHODS[model] if model in METHODS else spec_in_file(Path(model))
