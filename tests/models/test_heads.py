from __future__ import annotations

import pytest
import torch

from edgepkd.models.heads import (
    ClassifierHead,
    ICHead,
    as_pool_first,
    pool_matrix,
    windows_of,
)
from tests.models.networks import randomise

PAPER_HEADS = [  # channels in, out, side, kernel
    (64, 64, 56, 7), (128, 128, 28, 3), (128, 128, 28, 7), (256, 256, 14, 3),
    (256, 64, 56, 3), (512, 256, 28, 3), (1024, 1024, 14, 3),
]


def make_head(channels: int, out: int, kernel: int) -> ICHead:
    torch.manual_seed(0)
    head = ICHead(channels, out_channels=out, kernel=kernel, padding=1, num_classes=6).double()
    randomise(head)
    return head.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "out", "side", "kernel"), PAPER_HEADS)
def test_pool_first_is_exact_for_the_papers_heads(
    channels: int, out: int, side: int, kernel: int
) -> None:
    head = make_head(channels, out, kernel)
    x = torch.randn(1, channels, side, side, dtype=torch.float64)
    with torch.no_grad():
        expected = head(x)
        assert (as_pool_first(head)(x) - expected).abs().max() <= 1e-10
        assert (head.from_pooled(head.pooled_input(x)) - expected).abs().max() <= 1e-10
    assert expected.abs().max() > 0.1  # else the bound says nothing


@pytest.mark.parametrize(
    ("size", "kernel"),
    [((7, 7), 3), ((7, 7), 7), ((5, 9), 3), ((5, 9), 7), ((14, 10), 3), ((14, 10), 7),
     ((4, 4), 3), ((6, 5), 7), ((20, 20), 7)],
)
def test_pool_first_is_exact_for_uneven_and_small_maps(
    size: tuple[int, int], kernel: int
) -> None:
    head = make_head(8, 6, kernel)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    with torch.no_grad():
        assert (as_pool_first(head)(x) - head(x)).abs().max() <= 1e-12


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("training", [False, True])
def test_windows_are_what_the_pool_first_convolution_sees(kernel: int, training: bool) -> None:
    one = as_pool_first(make_head(8, 6, kernel)).train(training)
    other = as_pool_first(one)
    pooled = one.pooled_input(torch.randn(3, 8, 14, 10, dtype=torch.float64))
    windows = windows_of(pooled, kernel=kernel)
    assert windows.shape == (3, 16, 8 * kernel**2)
    found, expected = one.from_windows(windows), other.from_pooled(pooled)
    assert (found - expected).abs().max() <= 1e-10
    for head, logits in ((one, found), (other, expected)):
        head.zero_grad()
        logits.square().sum().backward()
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert torch.allclose(one.bn.running_var, other.bn.running_var)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pool_first_repeats_cells_of_maps_below_four(size: int) -> None:
    head = make_head(8, 6, 3)
    x = torch.randn(2, 8, size, size, dtype=torch.float64)
    with torch.no_grad():
        assert (as_pool_first(head)(x) - head(x)).abs().max() <= 1e-12


def test_rows_of_the_pool_matrix_average() -> None:
    inner = pool_matrix(16, kernel=3, padding=0)[1::3]  # 14 outputs: windows of 4, 4, 4, 4
    assert torch.allclose(inner.sum(1), torch.ones(4, dtype=torch.float64))
    assert [(row > 0).sum().item() for row in inner] == [4, 4, 4, 4]
    padded = pool_matrix(8, kernel=3, padding=1)
    assert padded[0].sum() == pytest.approx(0.5)  # first window, left tap: one of two is padding


def test_converting_keeps_parameters_mode_and_gradients() -> None:
    head = make_head(8, 6, 3)
    head.fc.requires_grad_(False)
    converted = as_pool_first(head)
    assert not converted.training
    assert not converted.fc.weight.requires_grad
    assert converted.conv.weight.requires_grad
    for key, tensor in head.state_dict().items():
        assert torch.equal(converted.state_dict()[key], tensor)
        assert converted.state_dict()[key].data_ptr() != tensor.data_ptr()


def test_classifier_head_runs_from_its_pooled_input() -> None:
    head = ClassifierHead(8, num_classes=3, dropout=0.5).eval()
    x = torch.randn(2, 8, 3, 5)
    assert head.pooled_input(x).shape == (2, 8)
    assert torch.allclose(head(x), head.fc(x.mean((2, 3))), atol=1e-6)
    assert torch.equal(head.from_pooled(head.pooled_input(x)), head(x))


def test_a_matrix_first_made_in_inference_mode_trains_later() -> None:
    head = ICHead(4, out_channels=4, kernel=3, padding=1, num_classes=2)
    with torch.inference_mode():
        head.pooled_input(torch.zeros(1, 4, 11, 13))
    x = torch.randn(1, 4, 11, 13, requires_grad=True)
    head.pooled_input(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
