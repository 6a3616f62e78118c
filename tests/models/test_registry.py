"""From a backbone's name to a network: what may be asked for, and what comes of it."""

from __future__ import annotations

import pytest
import torch

from edgepkd.config import Modality
from edgepkd.errors import ConfigError, ModelError
from edgepkd.models.heads import ClassifierHead, ICHead, PoolFirstHead
from edgepkd.models.registry import build_from_spec, build_network
from edgepkd.models.segmented import BACKBONES, BackboneName, HeadForm, NetworkSpec
from tests.models.networks import small_network


@pytest.mark.slow
@pytest.mark.parametrize("form", ["paper", "pool_first"])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_network_is_what_its_spec_says(name: BackboneName, form: HeadForm) -> None:
    spec = NetworkSpec(name, "residual", 7, width=0.25, head_form=form, dropout=0.5)
    network = build_from_spec(spec)
    assert network.spec == spec
    kind = ICHead if form == "paper" else PoolFirstHead
    assert [type(head) for head in network.heads] == [kind] * 3 + [ClassifierHead]
    assert [head.fc.out_features for head in network.heads] == [7] * 4
    assert network.heads[3].dropout.p == 0.5
    torch.manual_seed(1)
    one = build_from_spec(spec).state_dict()
    torch.manual_seed(1)
    other = build_network(name, modality="residual", num_classes=7, width=0.25, head_form=form,
                          dropout=0.5).state_dict()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize(
    ("change", "named"),
    [({"num_classes": 0}, "num_classes"), ({"width": 0.0}, "width"),
     ({"modality": "audio"}, "modality"), ({"name": "vgg"}, "backbone"),
     ({"head_form": "folded"}, "head_form"), ({"dropout": 1.0}, "dropout")],
)
def test_bad_settings_are_named(change: dict[str, object], named: str) -> None:
    settings: dict[str, object] = {"name": "resnet18", "modality": "mv", "num_classes": 2, **change}
    with pytest.raises(ConfigError, match=named):
        build_network(**settings)  # type: ignore[arg-type]


def test_imagenet_weights_exist_for_one_backbone() -> None:
    with pytest.raises(ModelError, match=r"resnet18.*torchvision"):
        build_network("resnet18", modality="mv", num_classes=2, width=0.125, pretrained="imagenet")
    with pytest.raises(ModelError, match=r"width 0\.5.*wrong shape"):
        build_network("efficientnet_lite0", modality="mv", num_classes=2, width=0.5,
                      pretrained="imagenet")


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_stacked_fields_are_channels_of_the_first_convolution(name: BackboneName) -> None:
    network = small_network(name, modality="mv", frames_per_pass=8)
    trunk = network.segments[0].trunk
    stem = trunk.conv1 if name == "resnet18" else trunk.conv_stem
    assert (network.spec.num_channels, trunk.data_bn.num_features, stem.in_channels) == (16, 16, 16)
    assert [logits.shape for logits in network(torch.randn(3, 16, 64, 64))] == [(3, 5)] * 4


@pytest.mark.parametrize(("modality", "fields"), [("residual", 2), ("mv", 0), ("mv", 2.0)])
def test_only_motion_fields_are_stacked(modality: Modality, fields: int) -> None:
    with pytest.raises(ConfigError, match=f"frames_per_pass of {modality} is {fields}"):
        small_network(modality=modality, frames_per_pass=fields)
