"""The encoder of exported weights as an ONNX file, which onnxruntime computes as torch does before anybody has it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from exporting.snippets import ONNX
from exporting.standalone_unet3d import UNet3d
from models.unet2d import ResNetEncoder
from utils.errors import UserError

if TYPE_CHECKING:
    from exporting.portable import Portable

OPSET = 17
INPUT, AXES = "image", {2: ("height", "width"), 3: ("x", "y", "z")}
OUTPUTS = {
    2: ("stem", "layer1", "layer2", "layer3", "layer4", "features"),
    3: ("level1", "level2", "level3", "level4", "features"),
}
TRACED, COMPARED = {2: (64, 96), 3: (16, 24, 8)}, {2: (96, 64), 3: (24, 16, 16)}  # sizes of images; they differ
EXAMPLE = {2: (224, 224), 3: (64, 64, 32)}
TOLERANCE = 1e-4  # of the largest value of a map: another library sums in another order
NEEDED = "--onnx needs the packages onnx and onnxruntime; pip install onnx onnxruntime"


class Encoder(nn.Module):
    """Images (B, C, ...) -> the maps of the encoder, shallow to deep, and the deepest one's average (B, channels)."""

    def __init__(self, portable: Portable) -> None:
        super().__init__()
        if portable.dims == 2:
            state = {name.removeprefix("encoder."): tensor for name, tensor in portable.state.items()}
            self.network: nn.Module = ResNetEncoder(portable.in_channels, portable.architecture)
        else:
            state, self.network = portable.state, UNet3d(portable.in_channels, portable.out_channels, portable.norm)
        self.network.load_state_dict({name: state[name] for name in self.network.state_dict() if name in state}, False)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.network.encode(image) if isinstance(self.network, UNet3d) else self.network(image)
        return (*maps, maps[-1].flatten(2).mean(2))


def check_packages() -> None:
    """UserError if a package is missing, before anything is computed."""
    try:
        import onnx  # noqa: F401  # torch imports it
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(NEEDED) from None


def write_encoder(portable: Portable, path: Path) -> str:
    """Write the file; -> how far onnxruntime's maps are from torch's, in words.

    Any number of images of any size that the network takes can be given to it. UserError if the maps differ.
    """
    import onnxruntime  # late: it is no requirement

    encoder, dims = Encoder(portable), portable.dims
    axes = {0: "batch"} | {2 + number: axis for number, axis in enumerate(AXES[dims])}
    maps = {name: axes | {axis: f"{name}_{axes[axis]}" for axis in axes if axis} for name in OUTPUTS[dims][:-1]}
    dynamic = {INPUT: axes, **maps, OUTPUTS[dims][-1]: {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the newer exporter needs more packages, and does not know torch 2.6 to 2.8
        torch.onnx.export(
            encoder,
            (_images(portable, 2, TRACED[dims]),),
            str(path),
            input_names=[INPUT],
            output_names=list(OUTPUTS[dims]),
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
        images = _images(portable, 1, COMPARED[dims])
        expected = encoder(images)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = [torch.from_numpy(values) for values in session.run(None, {INPUT: images.numpy()})]
    far = max(float((b - a).abs().max() / a.abs().max()) for a, b in zip(expected, found, strict=True))
    if not far <= TOLERANCE:
        raise UserError(f"--onnx: onnxruntime {onnxruntime.__version__} differs from torch by {far:.0e}; leave it out")
    return f"onnxruntime {onnxruntime.__version__} differs from torch by at most {far:.0e} of a map's largest value"


def in_words(portable: Portable, file: str) -> str:
    """How the file is used, for the card. Markdown."""
    outputs = ", ".join(f"`{name}`" for name in OUTPUTS[portable.dims])
    return ONNX.format(file=file, outputs=outputs, shape=(2, portable.in_channels, *EXAMPLE[portable.dims]))


def _images(portable: Portable, count: int, sizes: tuple[int, ...]) -> Tensor:
    """Values in [0, 1], of any numbers that are always the same."""
    draws = torch.Generator().manual_seed(0)
    return torch.rand(count, portable.in_channels, *sizes, generator=draws)
