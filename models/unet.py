"""What the 2D and the 3D U-Net have in common: decoding features in one pass or in two that share their work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from torch import Tensor, nn

from models.upconv import DeviceShare, Mixture

# Files speak the published names: there the 2D U-Net sits under "model.", the 3D one at the top.
PUBLISHED_PREFIX = {2: "model.", 3: ""}
UNET_PREFIX = "unet."
Z_NORMAL = "z-normal"  # `inputs` of a checkpoint whose network reads images of mean 0 and deviation 1
SMALLEST_STD = 1e-3  # of images in [0, 1]: with less there is nothing to see


class UNet(nn.Module, ABC):
    """Its data: ``dims``, ``size_multiple`` (of the image, per axis), and the channels of its maps.

    ``feature_channels``: of the encoder's features, shallow to deep. ``map_channels``: of the decoder's blocks, deep to
    shallow. ``skips``: whether the decoder reads the encoder's features; if not, the deepest one alone.
    """

    dims: int
    feature_channels: tuple[int, ...]
    map_channels: tuple[int, ...]
    size_multiple: tuple[int, ...]
    skips: bool
    narrow: int  # what its channels were divided by

    @abstractmethod
    def encode(self, image: Tensor) -> list[Tensor]:
        """Image (B, in_channels, ...), sizes multiples of ``size_multiple`` -> features, shallow to deep."""

    def pooled(self, image: Tensor) -> Tensor:
        """Image (B, in_channels, ...) -> the deepest feature, averaged over space: (B, channels)."""
        *_, deepest = self.encode(image)
        return deepest.flatten(2).mean(-1)

    @abstractmethod
    def up_blocks(self) -> Iterable[nn.Module]:
        """The decoder's blocks, deep to shallow: (maps of the passes, mixture of their skips or None) -> maps."""

    @abstractmethod
    def output_layer(self) -> nn.Module:
        """The layer that makes the reconstruction of the last block's map."""

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the blocks and of the output layer."""
        for module in (*self.up_blocks(), self.output_layer()):
            yield from module.parameters()

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """Features shallow to deep -> (B, out_channels, ...), of the image's size."""
        (plain,) = self._decode([Mixture(feature) for feature in features])
        return plain

    def decode_both(self, features: Sequence[Tensor], others: Sequence[Tensor], share: float | Tensor) -> list[Tensor]:
        """The decoded ``features``, and the decoded share * features + (1 - share) * others."""
        shared_by_all = DeviceShare(share) if isinstance(share, Tensor) else share
        return self._decode([Mixture(*pair, shared_by_all) for pair in zip(features, others, strict=True)])

    def library_parts(self) -> dict[str, dict[str, Tensor]]:
        """The entries of a checkpoint that other libraries load, under their names; none if no library has this net."""
        return {}

    @abstractmethod
    def drop_decoder(self) -> None:
        """Keep what ``encode`` needs; decoding is then no longer possible."""

    def decode_maps(self, passes: list[Tensor], skips: Sequence[Mixture] = ()) -> Iterator[list[Tensor]]:
        """The maps of each block, deep to shallow: (B, C, ...) of every pass.

        ``passes``: deepest features, which may differ in batch and size where there are no skips. ``skips``: what the
        blocks read beside, shallow to deep; none in a U-Net without skips. Passes share what a kernel costs to prepare.
        """
        for block, skip in zip_longest(self.up_blocks(), reversed(skips)):
            passes = block(passes, skip)
            yield passes

    def _decode(self, features: Sequence[Mixture]) -> list[Tensor]:
        *skips, deepest = features
        *_, maps = self.decode_maps(deepest.passes(), skips if self.skips else ())
        return [self.output_layer()(x) for x in maps]


class UNetNetwork(nn.Module):
    """A network on a U-Net, pre-trained or to be fine-tuned: in files its ``unet`` has the published names.

    ``z_normalised``: whether its weights want images of mean 0 and deviation 1. A network that learns from labels, or
    gives features, then normalises each image that it is given, in [0, 1]; pre-training's views are made so.
    """

    z_normalised = False

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet
        self.dims = unet.dims

    def published_name(self, name: str) -> str:
        """What an entry of the state dict is called in files: `model.encoder...` in 2D, `down_tr64...` in 3D."""
        prefix = PUBLISHED_PREFIX[self.dims]
        return prefix + name.removeprefix(UNET_PREFIX) if name.startswith(UNET_PREFIX) else name


def z_normal(image: Tensor) -> Tensor:
    """(B, C, ...) -> each channel of each image less its mean, divided by its standard deviation (unbiased)."""
    axes = tuple(range(2, image.dim()))
    std = image.std(dim=axes, keepdim=True).clamp(min=SMALLEST_STD)
    return (image - image.mean(dim=axes, keepdim=True)) / std


def published_state(network: UNetNetwork) -> dict[str, Tensor]:
    """The network's state dict under the published names."""
    return {network.published_name(name): tensor for name, tensor in network.state_dict().items()}


def checkpoint_weights(network: UNetNetwork) -> dict[str, Any]:
    """The entries of a checkpoint that others start from.

    ``model``: the whole network under the published names. ``state_dict``: the same, or the parts for libraries.
    ``inputs``: how its images are normalised, if they are.
    """
    model = published_state(network)
    inputs = {"inputs": Z_NORMAL} if network.z_normalised else {}
    return {"state_dict": model, **network.unet.library_parts(), "model": model, **inputs}


def load_published_state(network: UNetNetwork, state: dict[str, Tensor]) -> None:
    """Load, strictly, a state dict under the published names."""
    inner = dict(zip(published_state(network), network.state_dict(), strict=True))
    network.load_state_dict({inner.get(name, name): tensor for name, tensor in state.items()})
