"""Reads .safetensors files: eight bytes with the header's length, a header of JSON, the tensors' bytes.

https://github.com/huggingface/safetensors describes the format.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LONGEST = 100_000_000  # bytes of a header
LENGTH = 8  # bytes of the header's length, a little-endian integer
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def is_safetensors(begin: bytes) -> bool:
    """Whether a file that begins with these bytes, ten at least, has this format."""
    return begin[LENGTH : LENGTH + 1] == b"{" and begin[LENGTH - 2 : LENGTH] == b"\0\0"


def metadata(path: str | Path) -> dict[str, str]:
    """What the file says of itself; nothing if it does not, or is not there, or not of this format."""
    try:
        with open(path, "rb") as file:
            length = file.read(LENGTH)
            header: Any = json.loads(file.read(min(int.from_bytes(length, "little"), LONGEST)))
        return {str(name): str(value) for name, value in header["__metadata__"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors by their names. OSError, or ValueError if the file is damaged or has numbers of another kind."""
    data = Path(path).read_bytes()
    start = LENGTH + int.from_bytes(data[:LENGTH], "little")
    header: Any = json.loads(data[LENGTH:start])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            try:
                tensors[name] = _tensor(entry, memoryview(data)[start:])
            except (KeyError, TypeError, RuntimeError) as error:
                raise ValueError(f"its tensor {name} cannot be read") from error
    return tensors


def _tensor(entry: dict[str, Any], data: memoryview) -> Tensor:
    begin, end = entry["data_offsets"]
    dtype, shape = DTYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("it is cut short or damaged")
    if begin == end:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)
