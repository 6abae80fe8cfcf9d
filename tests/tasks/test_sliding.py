"""The sliding window against MONAI's, which keeps everything in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor
from torch.nn import functional as F

from tasks.sliding import Windows, label_map, probability_planes, segment, softmax_of
from training.precision import Native
from utils.errors import UserError

CPU = torch.device("cpu")
FULL = Native(CPU, enabled=False)


def windows(patch: tuple[int, int, int], batch: int = 2) -> Windows:
    return Windows(patch, batch, CPU)


@pytest.mark.parametrize("size", [(5, 30, 9), (16, 16, 8), (33, 17, 20)])
def test_windows_cover_volumes_of_any_size(size: tuple[int, int, int]) -> None:
    """A network that looks at each voxel alone: the windows must not be seen in the result."""
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    seen = []

    def network(window: Tensor) -> Tensor:
        seen.append(tuple(window.shape[2:]))
        return torch.cat([0.3 - window, window - 0.3, 2 * (window - 0.6)], dim=1) * 10

    expected = network(image[None])[0].argmax(0).to(torch.uint8).numpy()
    seen.clear()
    found = segment(softmax_of(network, FULL), image.numpy(), windows((16, 16, 8)), size)
    np.testing.assert_array_equal(found, expected)
    assert set(seen) == {(16, 16, 8)}


def test_the_result_is_on_the_grid_that_is_asked_for() -> None:
    image = torch.zeros(1, 8, 8, 8)
    image[:, 4:] = 1
    truth = np.zeros((24, 16, 8), np.uint8)
    truth[12:] = 1
    half = softmax_of(lambda x: torch.cat([0.5 - x, x - 0.5], dim=1), FULL)
    np.testing.assert_array_equal(segment(half, image.numpy(), windows((8, 8, 8), 1), truth.shape), truth)


def test_outputs_that_are_not_finite_make_no_empty_mask() -> None:
    def network(window: Tensor) -> Tensor:
        return torch.cat([window, torch.full_like(window, float("inf"))], dim=1)

    with pytest.raises(UserError, match="outputs are not finite"):
        segment(softmax_of(network, FULL), np.zeros((1, 8, 8, 8), np.float32), windows((8, 8, 8)), (8, 8, 8))


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((20, 24, 20), (20, 24, 20)),  # windows of every kind, no resampling
        ((6, 40, 9), (6, 40, 9)),  # smaller than a window in two axes
        ((21, 18, 17), (50, 10, 17)),  # finer along x, coarser along y
        ((40, 17, 16), (13, 17, 16)),  # planes that are passed over
        ((5, 16, 16), (1, 40, 40)),
    ],
)
def test_the_numbers_are_those_of_monai(size: tuple[int, ...], shape: tuple[int, ...]) -> None:
    patch = (16, 16, 8)
    torch.manual_seed(0)
    network = torch.nn.Conv3d(2, 3, 5, padding=2)  # which sees where a window ends
    image = torch.rand(2, *size)
    probabilities = softmax_of(lambda x: 9 * network(x), FULL)
    wanted = sliding_window_inference(image[None], patch, 4, probabilities, overlap=0.5, mode="gaussian")
    assert isinstance(wanted, Tensor)
    wanted = F.interpolate(wanted, size=shape, mode="trilinear", align_corners=False)[0]
    planes = list(probability_planes(probabilities, image.numpy(), windows(patch, 3), shape))
    torch.testing.assert_close(torch.stack(planes, dim=1), wanted, atol=5e-6, rtol=1e-5)
    kept = np.empty((2, *shape), np.float16)
    np.testing.assert_array_equal(label_map(planes, shape, kept), wanted.argmax(0).numpy())
    np.testing.assert_allclose(kept, wanted[1:].numpy(), atol=1e-3)


def test_mirror_images_are_turned_back_and_averaged() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, (3, 3, 1), padding=(1, 1, 0))
    window = torch.rand(1, 1, 8, 8, 8)
    plain = [network(window.flip(dims)).softmax(1).flip(dims) for dims in ([], [2], [3], [2, 3])]
    found = softmax_of(network, FULL, mirrored=(0, 1))(window)
    torch.testing.assert_close(found, torch.stack(plain).mean(0))
    assert not found.requires_grad
    assert not torch.allclose(found, plain[0], atol=1e-3)
