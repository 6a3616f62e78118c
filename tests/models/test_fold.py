from __future__ import annotations

import pytest
import torch
from torch import nn

from edgepkd.models.fold import fold_batch_norm
from edgepkd.models.segmented import BACKBONES, BackboneName
from tests.models.networks import small_network


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("head_form", ["paper", "pool_first"])
def test_folding_removes_every_batch_norm_and_keeps_the_answers(
    name: BackboneName, head_form: str
) -> None:
    network = small_network(name, modality="residual", head_form=head_form).double()  # type: ignore[arg-type]
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    x = torch.randn(2, 3, 70, 64, dtype=torch.float64)
    with torch.no_grad():
        for expected, got in zip(network(x), folded(x), strict=True):
            assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9 * expected.abs().max())
