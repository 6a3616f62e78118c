from __future__ import annotations

import pytest
import torch

from edgepkd.models.registry import build_network
from edgepkd.models.segmented import BackboneName
from edgepkd.models.weights import backbone_names, load_backbone
from tests.models.networks import torchvision_forward, torchvision_state

pytestmark = pytest.mark.slow

# Entries of the state dict and parameters of torchvision's models, as published.
TORCHVISION: dict[BackboneName, tuple[int, int]] = {
    "resnet18": (122, 11_689_512), "resnet50": (320, 25_557_032),
}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_torchvision_state_loads_and_answers_the_same(name: BackboneName) -> None:
    state = torchvision_state(name)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    num_parameters = sum(t.numel() for k, t in state.items() if not k.endswith(buffers))
    assert (len(state), num_parameters) == TORCHVISION[name]

    network = build_network(name, modality="iframe", num_classes=1000)
    assert set(backbone_names(network)) == set(state)
    load_backbone(network, state)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = torchvision_forward(name, state, x)
        assert torch.allclose(network.eval()(x)[-1], expected, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_motion_vectors_get_a_two_channel_stem_and_data_bn(name: BackboneName) -> None:
    state = torchvision_state(name)
    network = build_network(name, modality="mv", num_classes=7)
    fc_before = network.segments[3].head.fc.weight.clone()
    load_backbone(network, state)
    own = network.state_dict()
    assert own["segments.0.trunk.conv1.weight"].shape == (64, 2, 7, 7)
    # The response to an even input is kept.
    assert torch.allclose(own["segments.0.trunk.conv1.weight"].sum(1),
                          state["conv1.weight"].sum(1), atol=1e-5)
    assert own["segments.0.trunk.data_bn.weight"].shape == (2,)
    assert torch.equal(network.segments[3].head.fc.weight, fc_before)  # 7 classes are not 1000
    assert torch.equal(own["segments.2.trunk.layer3.0.downsample.0.weight"],
                       state["layer3.0.downsample.0.weight"])


def test_width_scales_the_trunk() -> None:
    network = build_network("resnet18", modality="residual", num_classes=3, width=0.5)
    shapes = [tuple(f.shape) for f in network.features(torch.zeros(2, 3, 64, 64))]
    assert shapes == [(2, 32, 16, 16), (2, 64, 8, 8), (2, 128, 4, 4), (2, 256, 2, 2)]


def test_strides_and_head_constants_at_full_size() -> None:
    network = build_network("resnet50", modality="iframe", num_classes=101)
    heads = [(*h.conv.weight.shape[:3], h.fc.in_features) for h in network.heads[:3]]
    assert heads == [(64, 256, 3, 1024), (256, 512, 3, 4096), (1024, 1024, 3, 16384)]
    network = build_network("resnet18", modality="mv", num_classes=101)
    heads = [(*h.conv.weight.shape[:3], h.fc.in_features) for h in network.heads[:3]]
    assert heads == [(64, 64, 7, 1024), (128, 128, 3, 2048), (256, 256, 3, 4096)]
