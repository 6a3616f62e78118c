from __future__ import annotations

import pytest
import torch
from torch import nn

from edgepkd.config import MODALITIES, NUM_CHANNELS, Modality
from edgepkd.models.heads import ClassifierHead, ICHead, PoolFirstHead
from edgepkd.models.segmented import BACKBONES, BackboneName, SegmentedNetwork
from tests.models.networks import small_network


def statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in network.state_dict().items()
            if k.endswith(("running_mean", "running_var", "num_batches_tracked"))}


def train_step(network: SegmentedNetwork) -> None:
    network.train()
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    logits = network(torch.randn(4, network.spec.num_channels, 64, 64))
    torch.stack([z.pow(2).mean() for z in logits]).sum().backward()
    optimiser.step()


@pytest.mark.slow
@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", BACKBONES)
def test_four_exits_for_every_backbone_and_modality(
    name: BackboneName, modality: Modality
) -> None:
    network = small_network(name, modality=modality)
    x = torch.randn(3, NUM_CHANNELS[modality], 64, 64)
    with torch.no_grad():
        logits = network(x)
        features = network.features(x)
        segment_features, segment_logits = network.segments[1](features[0])
    assert [z.shape for z in logits] == [(3, 5)] * 4
    assert [f.shape[-1] for f in features] == [16, 8, 4, 2]
    assert torch.equal(segment_features, features[1])
    assert torch.equal(segment_logits, logits[1])
    assert [type(h) for h in network.heads] == [ICHead] * 3 + [ClassifierHead]
    assert hasattr(network.segments[0].trunk, "data_bn") == (modality != "iframe")


@pytest.mark.parametrize("name", BACKBONES)
def test_pool_first_is_an_equal_copy(name: BackboneName) -> None:
    network = small_network(name).double()
    x = torch.randn(2, 2, 96, 96, dtype=torch.float64)
    rewritten = network.pool_first()
    assert [type(h) for h in rewritten.heads] == [PoolFirstHead] * 3 + [ClassifierHead]
    assert (network.spec.head_form, rewritten.spec.head_form) == ("paper", "pool_first")
    with torch.no_grad():
        for expected, got in zip(network(x), rewritten(x), strict=True):
            assert (expected - got).abs().max() <= 1e-10
        rewritten.segments[0].head.fc.bias.add_(1)
        assert not torch.equal(network(x)[0], rewritten(x)[0])  # nothing is shared


@pytest.mark.smoke
def test_pooled_inputs_are_all_that_heads_need() -> None:
    network = small_network()
    x = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        for head, pooled, logits in zip(
            network.heads, network.pooled_inputs(x), network(x), strict=True
        ):
            assert torch.allclose(head.from_pooled(pooled), logits, atol=1e-4)


def test_a_frozen_trunk_does_not_move_and_its_heads_do() -> None:
    network = small_network().freeze_trunk()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    train_step(network)
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert all(".head." in key for key in moved)
    assert not any(key.startswith("segments.3.") for key in moved)
    assert "segments.0.head.bn.running_mean" in moved


def test_unfrozen_statistics_drift_which_freezing_is_for() -> None:
    network = small_network()
    before = statistics(network)
    train_step(network)
    after = statistics(network)
    assert not torch.equal(after["segments.0.trunk.bn1.running_mean"],
                           before["segments.0.trunk.bn1.running_mean"])


def test_a_pool_first_copy_stays_frozen() -> None:
    network = small_network().freeze_trunk().pool_first()
    before = statistics(network)
    train_step(network)
    after = statistics(network)
    assert all(torch.equal(after[k], before[k]) for k in before if ".trunk." in k)
