"""Checkpoints of other people, made from the exact names their code gives, without their code."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from edgepkd.config import Modality
from edgepkd.errors import ConfigError, ModelError
from edgepkd.models.foreign import apply_key_map, guess_resnet, identify, plain_name, plain_names
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.models.weights import load_backbone

CLASSES = 5
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet152": (3, 8, 36, 3)}
PKD_HEADS = {  # (convolution, features of the linear layer), as the PKD code trains them
    "resnet18": (((64, 64, 7, 7), 1024), ((128, 128, 3, 3), 2048), ((256, 256, 3, 3), 4096)),
    "resnet50": (((64, 256, 3, 3), 1024), ((256, 512, 3, 3), 4096), ((1024, 1024, 3, 3), 16384)),
}

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def batch_norm(name: str, channels: int) -> Shapes:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def torchvision_names(arch: str, *, channels: int = 3, classes: int = CLASSES) -> Shapes:
    """Names and shapes of torchvision's ResNets, from the architecture."""
    bottleneck = arch != "resnet18"
    yield "conv1.weight", (64, channels, 7, 7)
    yield from batch_norm("bn1", 64)
    wide = 64
    for layer, blocks in enumerate(BLOCKS[arch], start=1):
        inner = 32 * 2**layer
        outer = 4 * inner if bottleneck else inner
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            convolutions = (
                [(inner, wide, 1, 1), (inner, inner, 3, 3), (outer, inner, 1, 1)] if bottleneck
                else [(inner, wide, 3, 3), (inner, inner, 3, 3)]
            )
            for i, shape in enumerate(convolutions, start=1):
                yield f"{name}.conv{i}.weight", shape
                yield from batch_norm(f"{name}.bn{i}", shape[0])
            if block == 0 and (layer > 1 or bottleneck):
                yield f"{name}.downsample.0.weight", (outer, wide, 1, 1)
                yield from batch_norm(f"{name}.downsample.1", outer)
            wide = outer
    yield "fc.weight", (classes, wide)
    yield "fc.bias", (classes,)


def coviar_names(arch: str, modality: Modality) -> Shapes:
    """CoViAR's `Model`: a torchvision network as `base_model`, and `data_bn` beside it."""
    channels = 2 if modality == "mv" else 3
    for name, shape in torchvision_names(arch, channels=channels):
        yield f"base_model.{name}", shape
    if modality != "iframe":
        yield from batch_norm("data_bn", channels)


def pkd_names(arch: str, modality: Modality) -> Shapes:
    """The PKD code's `IC_Model`: CoViAR's `Model` as `net`, and three classifiers beside it."""
    for name, shape in coviar_names(arch, modality):
        yield f"net.{name}", shape
    for i, (convolution, features) in enumerate(PKD_HEADS[arch], start=1):
        yield f"IC{i}_features.0.weight", convolution
        yield from batch_norm(f"IC{i}_features.1", convolution[0])
        yield f"IC{i}_classifier.weight", (CLASSES, features)
        yield f"IC{i}_classifier.bias", (CLASSES,)


def filled(shapes: Shapes, *, prefix: str = "") -> dict[str, Tensor]:
    """A state in which every tensor holds a number of its own (once in memory: `expand`)."""
    return {
        prefix + name: torch.tensor(i + 2.0).expand(shape) if shape else torch.tensor(i + 2)
        for i, (name, shape) in enumerate(shapes)
    }


def place(name: str) -> str:
    """Where a torchvision name, or one of ours for an exit, belongs in the network."""
    if name.startswith("fc."):
        return f"segments.3.head.{name}"
    if name.startswith("ic"):
        return f"segments.{int(name[2]) - 1}.head.{name[4:]}"
    layer = re.match(r"layer(\d)", name)
    return f"segments.{int(layer[1]) - 1 if layer else 0}.trunk.{name}"


def assert_in_place(network: SegmentedNetwork, state: dict[str, Tensor]) -> None:
    own = network.state_dict()
    for name, tensor in state.items():
        assert torch.equal(own[place(name)], tensor.to(own[place(name)])), name


@pytest.fixture(scope="module")
def networks() -> dict[tuple[str, Modality], SegmentedNetwork]:
    """Networks of full width, to load into again and again."""
    return {
        (arch, modality): build_network(arch, modality=modality, num_classes=CLASSES)
        for arch, modality in [("resnet18", "mv"), ("resnet18", "residual"),
                               ("resnet50", "iframe")]
    }


@pytest.mark.slow
def test_torchvision_resnet50_fills_an_iframe_trunk(networks: dict) -> None:
    state = filled(torchvision_names("resnet50"))
    assert len(state) == 320  # torchvision's own count
    load_backbone(networks["resnet50", "iframe"], state)
    assert identify(state) == "torchvision"
    assert_in_place(networks["resnet50", "iframe"], state)


@pytest.mark.slow
def test_torchvision_resnet18_fills_a_motion_trunk_but_for_its_own_layers(networks: dict) -> None:
    network = networks["resnet18", "mv"]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = filled(torchvision_names("resnet18", classes=1000))
    assert len(state) == 122
    load_backbone(network, state)
    own = network.state_dict()
    assert torch.equal(own["segments.0.trunk.conv1.weight"], torch.full((64, 2, 7, 7), 3.0))
    kept = [key for key in own if torch.equal(own[key], before[key])]
    assert {key.split(".")[3] if "trunk" in key else key.split(".")[2] for key in kept} == {
        "data_bn", "head"}
    del state["conv1.weight"], state["fc.weight"], state["fc.bias"]
    assert_in_place(network, state)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "modality"), [
    ("resnet18", "mv"), ("resnet18", "residual"), ("resnet50", "iframe")])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_coviar_checkpoints_fill_trunk_and_last_exit(
    networks: dict, arch: str, modality: Modality, prefix: str
) -> None:
    state = filled(coviar_names(arch, modality), prefix=prefix)
    load_backbone(networks[arch, modality], state)
    assert identify(state) == "coviar"
    plain = {key.removeprefix("module.").removeprefix("base_model."): v for key, v in state.items()}
    assert ("data_bn.weight" in plain) == (modality != "iframe")
    assert_in_place(networks[arch, modality], plain)


@pytest.mark.parametrize(("arch", "modality"), [
    ("resnet18", "mv"), ("resnet18", "residual"), ("resnet50", "iframe")])
def test_pkd_checkpoints_start_a_trunk_and_leave_its_other_exits(
    networks: dict, arch: str, modality: Modality
) -> None:
    network = networks[arch, modality]
    with torch.no_grad():
        for head in network.heads[:3]:
            head.conv.weight.fill_(-7)
    state = filled(pkd_names(arch, modality), prefix="module.")
    load_backbone(network, state)
    assert identify(state) == "pkd"
    assert all((head.conv.weight == -7).all() for head in network.heads[:3])
    assert_in_place(network, {key.removeprefix("module.net.").removeprefix("base_model."): value
                              for key, value in state.items() if ".net." in key})


def test_own_checkpoints_start_a_trunk(networks: dict) -> None:
    network = networks["resnet18", "mv"]
    state = {key: torch.full_like(value, i) for i, (key, value)
             in enumerate(network.state_dict().items())}
    load_backbone(network, state)
    assert identify(state) == "edgepkd"
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items()
               if ".trunk." in key or ".3.head." in key)


def test_unrolled_names_of_the_pkd_code_are_torchvisions() -> None:
    assert [plain_name(name) for name in (
        "conv2_0_1.weight", "bn3_1_2.running_var", "shortcut4.1.bias", "module.conv1.weight",
    )] == ["layer2.0.conv1.weight", "layer3.1.bn2.running_var", "layer4.0.downsample.1.bias",
           "conv1.weight"]
    assert identify({"conv1.weight": torch.ones(1), "conv1_0_1.weight": torch.ones(1)}) == "pkd"


@pytest.mark.parametrize(("arch", "modality", "target", "message"), [
    ("resnet152", "iframe", ("resnet50", "iframe"),
     r"unknown: layer2\.4\.conv1\.weight.* more\. It looks like a ResNet-152"),
    ("resnet18", "residual", ("resnet18", "mv"),
     r"wrong shape: data_bn\.weight is \(3,\), not \(2,\)"),
    ("resnet18", "mv", ("resnet50", "iframe"), r"missing: .*wrong shape: .*like a ResNet-18\. "),
])
def test_a_mismatch_names_the_keys(
    networks: dict, arch: str, modality: Modality, target: tuple[str, Modality], message: str
) -> None:
    state = {name: torch.empty(shape) for name, shape in coviar_names(arch, modality)}
    with pytest.raises(ModelError, match=message):
        load_backbone(networks[target], state, source="Checkpoint a.pth")


def test_checkpoints_of_old_torch_have_no_counters(networks: dict) -> None:
    state = filled(pkd_names("resnet18", "mv"))
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    load_backbone(networks["resnet18", "mv"], old)
    assert_in_place(networks["resnet18", "mv"], {
        key.removeprefix("net.").removeprefix("base_model."): value
        for key, value in old.items() if key.startswith("net.")})


def test_a_team_net_is_refused_and_one_branch_of_it_taken(networks: dict) -> None:
    state = filled(coviar_names("resnet18", "mv"), prefix="MV_model.")
    state = {k.replace("base_model.fc", "new_fc"): v for k, v in state.items()}
    branch = dict(state)
    state |= filled(coviar_names("resnet50", "iframe"), prefix="I_model.")
    state |= {"team0.fc_squeeze.weight": torch.ones(48, 192),
              "IC1_classifier.weight": torch.ones(CLASSES, 384)}
    network = networks["resnet18", "mv"]
    with pytest.raises(ModelError, match=r"is a TEAM-Net: .*key map"):
        load_backbone(network, state)
    key_map = {r"^(I_model|R_model|team\d|IC\d_classifier)\..*": "", r"^MV_model\.": ""}
    load_backbone(network, state, key_map=key_map)
    assert_in_place(network, {
        re.sub(r"^MV_model\.(base_model\.|new_(?=fc))?", "", k): v for k, v in branch.items()})


def test_a_key_map_makes_unknown_names_known(networks: dict) -> None:
    state = filled(torchvision_names("resnet18"), prefix="backbone.")
    network = networks["resnet18", "residual"]
    with pytest.raises(ModelError, match=r"no known style: backbone\.conv1\.weight.* 117 more"):
        load_backbone(network, state)
    load_backbone(network, state, key_map={r"^backbone\.": ""})
    assert_in_place(network, {key.removeprefix("backbone."): value for key, value in state.items()})


def test_key_maps_that_are_wrong_are_refused() -> None:
    state = {"a.x": torch.ones(1), "b.x": torch.ones(1)}
    with pytest.raises(ConfigError, match=r"key map has '\(a' -> 'b'; allowed: a regular"):
        apply_key_map(state, {"(a": "b"})
    with pytest.raises(ConfigError, match="invalid group reference"):
        apply_key_map(state, {"a": r"\2"})
    with pytest.raises(ModelError, match=r"would become c\.x: a\.x and b\.x"):
        apply_key_map(state, {"^[ab]": "c"})
    assert list(apply_key_map(state, {r"a\..*": ""})) == ["b.x"]


def test_two_keys_for_one_tensor_are_refused() -> None:
    state = {"base_model.fc.bias": torch.ones(1), "new_fc.bias": torch.ones(1)}
    with pytest.raises(ModelError, match=r"fc\.bias: base_model\.fc\.bias and new_fc\.bias"):
        plain_names(state)


def test_a_resnet_is_known_by_its_names() -> None:
    for arch in BLOCKS:
        names = [name for name, _ in torchvision_names(arch)]
        assert guess_resnet(names) == f"ResNet-{arch.removeprefix('resnet')}"
    assert guess_resnet(["conv_stem.weight"]) is None
