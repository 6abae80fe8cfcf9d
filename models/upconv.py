"""Upsampling by 2, joining a skip and convolving, as a U-Net's decoder does, without ever making the joined map.

Three exact identities save the work:

* A convolution is linear in its input channels: conv([a, b]) = conv_a(a) + conv_b(b). Nothing is concatenated.
* Upsampling is a transposed convolution (kernel 2, stride 2; a nearest one has the identity in every tap), and with
  a kernel-3 convolution after it the two are one transposed convolution of kernel 4, stride 2, padding 1. Each output
  reads 2 coarse positions per axis and not 3 fine ones: 3.4 x fewer multiplications in 3D, 2.25 x in 2D.
* A convolution of a mixture is the mixture of the convolutions, so that two passes over features that differ in a
  mixture share theirs: what is mixed in is convolved alone, and needs no gradient of its own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from models.forms import FORMS
from models.layers import OPERATORS, Convolution, TransposedConvolution
from models.shared import Prepared, prepared, shared

# Composing costs 216 * channels^2 * out_channels multiplications a step, whatever the batch. Measured on a CPU in 3D
# (forward and backward, one core): at 256 channels 0.12 s where it saves 0.6 s a sample, at 512 channels 0.8 s where
# it saves 0.1 s.
MAX_COMPOSED_CHANNELS = 256


class DeviceShare:
    """A share that is a scalar of float64 on the device, and what mixing makes of it: once for all maps."""

    def __init__(self, share: Tensor) -> None:
        self.exact, self.rest = share, 1 - share
        self._rounded: dict[torch.dtype, Tensor] = {}

    def rounded(self, dtype: torch.dtype) -> Tensor:
        """The share in the type of a map."""
        if dtype not in self._rounded:
            self._rounded[dtype] = self.exact.to(dtype)
        return self._rounded[dtype]


class _Mix(torch.autograd.Function):
    """``torch.lerp`` by such a share, with the bits of one by a number."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, end: Tensor, share: DeviceShare) -> Tensor:
        ctx.save_for_backward(share.exact, share.rest)
        return torch.lerp(start, end, share.rounded(end.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        share, rest = ctx.saved_tensors
        of_start, of_end, _ = ctx.needs_input_grad
        return grad * rest if of_start else None, grad * share if of_end else None, None


class Mixture(NamedTuple):
    """The inputs of one pass, ``own``, or of two: ``own``, and share * own + (1 - share) * other."""

    own: Tensor
    other: Tensor | None = None
    share: float | DeviceShare = 1.0

    def map(self, linear: Callable[[Tensor], Tensor]) -> Mixture:
        """The mixture of what a linear map makes of the parts: the same as its values of the mixture."""
        return Mixture(linear(self.own), None if self.other is None else linear(self.other), self.share)

    def passes(self) -> list[Tensor]:
        """The inputs themselves."""
        if self.other is None:
            return [self.own]
        if isinstance(self.share, DeviceShare):
            return [self.own, cast(Tensor, _Mix.apply(self.other, self.own, self.share))]
        return [self.own, torch.lerp(self.other, self.own, self.share)]


# Row u: the taps of a kernel-3 convolution whose sum is tap u, along one axis.
NEAREST = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def _table(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``make(*numbers)``, made once for each device and type: to upload it makes the host wait for a GPU."""

    @functools.cache
    def kept(device: torch.device, dtype: torch.dtype, *numbers: int) -> Tensor:
        with torch.inference_mode(False):  # so that gradients may pass by it whoever asked first
            return make(*numbers).to(device, dtype)

    return kept


@_table
def _nearest_sums(dims: int) -> Tensor:
    """(4^d, 3^d): 1 where a tap of a kernel-3 convolution belongs to a tap of the kernel-4 one."""
    return reduce(torch.kron, [torch.tensor(NEAREST)] * dims)


@_table
def _tap_sums(dims: int) -> Tensor:
    """(2^d * 3^d, 4^d): 1 where the taps s and k of the two kernels meet in tap u, s - k + 2 = u on each axis."""
    s, k, u = torch.arange(2).view(2, 1, 1), torch.arange(3).view(3, 1), torch.arange(4)
    along_axis = (s - k + 2 == u).float()
    letters = ["abc", "def", "ghi"][:dims]
    result = "".join(axis[0] for axis in letters) + "".join(axis[1] for axis in letters)
    result += "".join(axis[2] for axis in letters)
    return torch.einsum(f"{','.join(letters)}->{result}", *[along_axis] * dims).reshape(6**dims, 4**dims)


@_table
def _regions(*size: int) -> Tensor:
    """Of each position of a map, row by row: the number of its region, of the 3^d."""
    number = torch.zeros(())
    for length in size:
        along = torch.ones(length)
        along[0], along[-1] = 0, 2
        number = number.unsqueeze(-1) * 3 + along
    return number.flatten()


@_table
def _ends(length: int) -> Tensor:
    """(length, 3): 1 where a position is the first of an axis, between, or the last."""
    return (_regions(torch.device("cpu"), torch.int64, length).unsqueeze(1) == torch.arange(3)).float()


def nearest_kernel(conv: Tensor) -> Tensor:
    """Kernel (C, O, 4, ..) that does what nearest upsampling and then ``conv`` (O, C, 3, ..) do."""
    dims = conv.dim() - 2
    sums = _nearest_sums(conv.device, conv.dtype, dims)
    return torch.tensordot(conv.flatten(2), sums, dims=([2], [1])).transpose(0, 1).unflatten(2, [4] * dims)


def composed_kernel(up: Tensor, conv: Tensor) -> Tensor:
    """Kernel (C, O, 4, ..) that does what the transposed ``up`` (C, M, 2, ..) and then ``conv`` (O, M, 3, ..) do.

    Tap u of the result is the sum of up[s] @ conv[k] over all s - k + 2 = u.
    """
    dims, in_channels, out_channels = up.dim() - 2, len(up), len(conv)
    if up.is_cuda:
        return composed_at_once(up, conv)
    by_tap = conv.flatten(2).permute(1, 2, 0).flatten(1)  # (M, 3^d O)
    kernel = up.new_zeros(in_channels, 4**dims, out_channels)
    taps = torch.arange(4**dims, device=up.device).view([4] * dims)
    for s, weight in zip(itertools.product(range(2), repeat=dims), up.flatten(2).unbind(2), strict=True):
        window = taps[tuple(slice(start, start + 3) for start in s)].flip(list(range(dims)))
        products = (weight @ by_tap).view(in_channels, -1, out_channels)
        kernel = kernel.index_add(1, window.flatten(), products)
    return kernel.transpose(1, 2).unflatten(2, [4] * dims)


def composed_at_once(up: Tensor, conv: Tensor) -> Tensor:
    """:func:`composed_kernel` in two products of matrices, for a GPU: it waits for no loop of small operations."""
    dims, in_channels, out_channels = up.dim() - 2, len(up), len(conv)
    by_channel = conv.flatten(2).transpose(0, 1).flatten(1)  # (M, O 3^d)
    products = up.flatten(2).permute(0, 2, 1) @ by_channel  # (C, 2^d, O 3^d)
    taps = products.view(in_channels, 2**dims, out_channels, 3**dims).transpose(1, 2).flatten(2)
    return (taps @ _tap_sums(up.device, up.dtype, dims)).unflatten(2, [4] * dims)


def _borders(dims: int) -> Iterator[tuple[Any, Any]]:
    """The regions that a kernel-3 convolution sees alike, but the inner one: indices to a map of 3, and to any map."""
    first, inner, last = (slice(0, 1), slice(0, 1)), (slice(1, 2), slice(1, -1)), (slice(2, 3), slice(-1, None))
    for region in itertools.product((first, inner, last), repeat=dims):
        if region != (inner,) * dims:
            yield (..., *(of_3 for of_3, _ in region)), (..., *(of_any for _, of_any in region))


def spread_response(response: Tensor, size: Sequence[int]) -> Tensor:
    """The whole map (O, ..) of a ``response`` (O, 3, ..)."""
    regions = _regions(response.device, torch.int64, *size)
    return response.flatten(1).index_select(1, regions).unflatten(1, tuple(size))


def gathered_response(grad: Tensor) -> Tensor:
    """Sums of a map's gradient (O, ..) over the regions of a response: (O, 3, ..), 0 for the inner one."""
    dims, sums = grad.dim() - 1, grad.movedim(0, -1)  # as a channels-last map lies in memory
    for axis in range(dims):
        ends = _ends(grad.device, grad.dtype, sums.shape[axis])
        sums = torch.tensordot(ends, sums, dims=([0], [axis]))  # (3, axes summed before, last one first, the rest, O)
    sums[(1,) * dims] = 0
    return sums.permute(*reversed(range(dims + 1)))


class _AddToBorder(torch.autograd.Function):
    """Adds ``response`` (O, 3, ..) to the borders of a map (B, O, ..), in place: the inner one of the 3 to nothing.

    The map may be in half precision; the response, and so its gradient, is in float32 or more.

    A function of its own since autograd would copy the whole gradient for each region that is written to.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, response: Tensor) -> Tensor:
        ctx.mark_dirty(image)
        if image.is_cuda:
            return image.add_(spread_response(response, image.shape[2:]).to(image.dtype))
        for small, large in _borders(response.dim() - 1):
            image[large].add_(response[small].to(image.dtype))
        return image

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        dims = grad.dim() - 2
        dtype = torch.promote_types(grad.dtype, torch.float32)  # sums over a border are soon too large for fp16
        if grad.is_cuda:
            return grad, gathered_response(grad.sum(0, dtype=dtype))
        of_response = grad.new_zeros(grad.shape[1], *[3] * dims, dtype=dtype)
        for small, large in _borders(dims):
            of_response[small] = grad[large].sum(dim=[0, *range(2, dims + 2)], dtype=dtype).view(-1, *[1] * dims)
        return grad, of_response


def bias_response(bias: Tensor, conv: Tensor) -> tuple[Tensor, Tensor]:
    """What ``conv`` (O, M, 3, ..) makes of a map of constant ``bias`` (M): inside (O), and how borders differ.

    At the borders the convolution reads the zeros outside. Three positions per axis tell all: (O, 3, ..).
    """
    dims = conv.dim() - 2
    constant = bias.view(1, -1, *[1] * dims).expand(-1, -1, *[3] * dims)
    response = OPERATORS[dims].convolve(constant, conv, padding=1)[0]
    inside = response.flatten(1)[:, 3**dims // 2]
    return inside, response - inside.view(-1, *[1] * dims)


def is_composed(up: TransposedConvolution | None) -> bool:
    """Whether it and the convolution after it are computed as one; None: nearest upsampling."""
    return FORMS.composed and (up is None or up.in_channels <= MAX_COMPOSED_CHANNELS)


def prepare(up: TransposedConvolution | None, conv: Convolution, conv_bias: Tensor | None, channels: int) -> Prepared:
    """What :func:`upsample_convolve` of maps of so many ``channels`` reads, made of the weights alone."""
    if not FORMS.composed:
        return Prepared(conv.weight, conv_bias, None)
    weight, skip_weight = conv.weight.split([channels, conv.in_channels - channels], dim=1)
    if not is_composed(up):
        return Prepared(weight, conv_bias, skip_weight)
    with torch.autocast(weight.device.type, enabled=False):  # a kernel is rounded once, when it is complete
        kernel = nearest_kernel(weight) if up is None else composed_kernel(up.weight, weight)
        if conv.weight.is_contiguous():  # else channels-last, as the kernel comes; the output's format follows it
            kernel = kernel.contiguous()
        bias, border = conv_bias, None
        if up is not None and up.bias is not None:
            inside, border = bias_response(up.bias, weight)
            bias = inside if bias is None else bias + inside
    return Prepared(kernel, bias, skip_weight, border)


def upsample_convolve(
    passes: list[Tensor],
    skip: Mixture | None,
    up: TransposedConvolution | None,
    conv: Convolution,
    conv_bias: Tensor | None,
) -> list[Tensor]:
    """conv([upsample(x), skip]) for each x of ``passes`` with its own input of ``skip``.

    ``passes``: maps (B, C, h, w[, d]). ``skip``: theirs, of twice the size. ``up``: a transposed convolution with
    kernel 2 and stride 2; None: nearest upsampling. ``conv``: kernel 3, padding 1; ``conv_bias``: its bias, as it is to
    be added. -> (B, O, 2h, 2w[, 2d]) each.
    """
    channels = passes[0].shape[1]
    weights = prepared(conv, lambda: prepare(up, conv, conv_bias, channels))
    if not FORMS.composed:
        skips = [None] * len(passes) if skip is None else skip.passes()
        return [_literally(x, other, up, weights) for x, other in zip(passes, skips, strict=True)]
    outputs = [_convolve_upsampled(x, up, weights) for x in passes]
    if skip is not None and weights.skip is not None:
        operators, skip_weight = OPERATORS[passes[0].dim() - 2], weights.skip
        parts = skip.map(lambda x: operators.convolve(x, shared(skip_weight), padding=1)).passes()
        outputs = [output.add_(part) for output, part in zip(outputs, parts, strict=True)]
    return outputs


def _convolve_upsampled(x: Tensor, up: TransposedConvolution | None, weights: Prepared) -> Tensor:
    operators, kernel, bias = OPERATORS[x.dim() - 2], shared(weights.kernel), shared(weights.bias)
    if up is not None and not is_composed(up):
        return operators.convolve(_upsample(x, up), kernel, bias, padding=1)
    output = operators.convolve_transposed(x, kernel, bias, stride=2, padding=1)
    return output if weights.border is None else cast(Tensor, _AddToBorder.apply(output, shared(weights.border)))


def _literally(x: Tensor, skip: Tensor | None, up: TransposedConvolution | None, weights: Prepared) -> Tensor:
    upsampled = F.interpolate(x, scale_factor=2.0) if up is None else _upsample(x, up)
    joined = upsampled if skip is None else torch.cat([upsampled, skip], dim=1)
    return OPERATORS[x.dim() - 2].convolve(joined, shared(weights.kernel), shared(weights.bias), padding=1)


def _upsample(x: Tensor, up: TransposedConvolution) -> Tensor:
    return OPERATORS[x.dim() - 2].convolve_transposed(x, shared(up.weight), shared(up.bias), stride=2)
