"""Small networks and foreign checkpoints for the tests of this room."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgepkd.config import Modality
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import BackboneName, HeadForm, SegmentedNetwork

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def randomise(module: nn.Module, *, seed: int = 0) -> None:
    """Give every BatchNorm statistics and weights that a wrong order of operations would show."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in (
                (part.weight, 0.5, 1.5), (part.bias, -0.5, 0.5),
                (part.running_mean, -0.5, 0.5), (part.running_var, 0.5, 2.0),
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)


def small_network(
    name: BackboneName = "resnet18",
    *,
    modality: Modality = "mv",
    num_classes: int = 5,
    head_form: HeadForm = "paper",
    frames_per_pass: int = 1,
) -> SegmentedNetwork:
    """A narrow network with lively BatchNorm, in eval mode."""
    torch.manual_seed(0)
    network = build_network(
        name, modality=modality, num_classes=num_classes, width=0.125, head_form=head_form,
        frames_per_pass=frames_per_pass,
    )
    randomise(network)
    return network.eval()


def torchvision_state(name: str, *, num_classes: int = 1000) -> dict[str, Tensor]:
    """Random weights under exactly torchvision's keys and shapes, written down independently."""
    state: dict[str, Tensor] = {}

    def conv(key: str, out: int, inp: int, k: int) -> None:
        state[f"{key}.weight"] = torch.randn(out, inp, k, k) * (2 / (inp * k * k)) ** 0.5

    def norm(key: str, channels: int) -> None:
        state[f"{key}.weight"] = torch.rand(channels) + 0.5
        state[f"{key}.bias"] = torch.rand(channels) - 0.5
        state[f"{key}.running_mean"] = torch.rand(channels) - 0.5
        state[f"{key}.running_var"] = torch.rand(channels) + 0.5
        state[f"{key}.num_batches_tracked"] = torch.tensor(7)

    torch.manual_seed(1)
    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inp = 64
    for layer, depth in enumerate(BLOCKS[name]):
        mid = 64 * 2**layer
        out = mid if name == "resnet18" else 4 * mid
        for block in range(depth):
            key = f"layer{layer + 1}.{block}"
            shapes = (
                [(mid, inp, 3), (mid, mid, 3)] if name == "resnet18"
                else [(mid, inp, 1), (mid, mid, 3), (out, mid, 1)]
            )
            for index, (o, i, k) in enumerate(shapes):
                conv(f"{key}.conv{index + 1}", o, i, k)
                norm(f"{key}.bn{index + 1}", o)
            if block == 0 and (layer > 0 or name == "resnet50"):
                conv(f"{key}.downsample.0", out, inp, 1)
                norm(f"{key}.downsample.1", out)
            inp = out
    state["fc.weight"] = torch.randn(num_classes, inp) / inp**0.5
    state["fc.bias"] = torch.randn(num_classes)
    return state


def torchvision_forward(name: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """A plain ResNet on such a state, to compare with."""

    def conv(key: str, x: Tensor, stride: int) -> Tensor:
        weight = state[f"{key}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(key: str, x: Tensor) -> Tensor:
        return F.batch_norm(x, state[f"{key}.running_mean"], state[f"{key}.running_var"],
                            state[f"{key}.weight"], state[f"{key}.bias"])

    x = F.max_pool2d(norm("bn1", conv("conv1", x, 2)).relu(), 3, stride=2, padding=1)
    count, strided = (2, 1) if name == "resnet18" else (3, 2)
    for layer, depth in enumerate(BLOCKS[name]):
        for block in range(depth):
            key, stride = f"layer{layer + 1}.{block}", 2 if layer and not block else 1
            y = x
            for i in range(1, count + 1):
                y = norm(f"{key}.bn{i}", conv(f"{key}.conv{i}", y, stride if i == strided else 1))
                y = y.relu() if i < count else y
            if f"{key}.downsample.0.weight" in state:
                x = norm(f"{key}.downsample.1", conv(f"{key}.downsample.0", x, stride))
            x = (x + y).relu()
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
