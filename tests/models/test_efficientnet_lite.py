from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgepkd.models import weights as weights_module
from edgepkd.models.registry import build_network
from edgepkd.models.weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    backbone_names,
    load_backbone,
    read_checkpoint,
)

STRIDED_BLOCKS = (1, 3, 5, 11)
DAISY = 985


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    return read_checkpoint(weights_module._lite0_file())


def reference_forward(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite0 straight from the checkpoint's own keys, TensorFlow's padding."""

    def conv(key: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[key + ".weight"]
        groups = x.shape[1] // weight.shape[1]
        pads = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + weight.shape[2] - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    def norm(key: str, x: Tensor) -> Tensor:
        return F.batch_norm(x, state[key + ".running_mean"], state[key + ".running_var"],
                            state[key + ".weight"], state[key + ".bias"], eps=1e-3)

    x = F.relu6(norm("_bn0", conv("_conv_stem", x, 2)))
    for index in range(16):
        key, stride = f"_blocks.{index}.", 2 if index in STRIDED_BLOCKS else 1
        y = x
        if f"{key}_expand_conv.weight" in state:
            y = F.relu6(norm(f"{key}_bn0", conv(f"{key}_expand_conv", y)))
        y = F.relu6(norm(f"{key}_bn1", conv(f"{key}_depthwise_conv", y, stride)))
        y = norm(f"{key}_bn2", conv(f"{key}_project_conv", y))
        x = x + y if x.shape == y.shape else y
    x = F.relu6(norm("_bn1", conv("_conv_head", x)))
    return F.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (97, 75)])
def test_every_tensor_of_the_checkpoint_is_used_and_answers_the_same(
    checkpoint: dict[str, Tensor], size: tuple[int, int]
) -> None:
    network = build_network("efficientnet_lite0", modality="iframe", num_classes=1000)
    renamed = weights_module._rename_lite0(checkpoint)
    assert set(backbone_names(network)) == set(renamed)
    load_backbone(network, renamed)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert torch.allclose(network.eval()(x)[-1], reference_forward(checkpoint, x), atol=1e-3)


@pytest.mark.slow
def test_a_photo_is_recognised_through_the_papers_value_mapping() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    photo = Path(datasets.__file__).parent / "images" / "flower.jpg"
    with av.open(str(photo)) as container:
        frame = next(container.decode(video=0))
    pixels = frame.reformat(width=384, height=256, format="rgb24").to_ndarray()[16:240, 80:304]
    x = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    x = (x - x.new_tensor(IMAGENET_MEAN).view(3, 1, 1)) / x.new_tensor(IMAGENET_STD).view(3, 1, 1)
    network = build_network("efficientnet_lite0", modality="iframe", num_classes=1000,
                            pretrained="imagenet")
    with torch.no_grad():
        probabilities = network.eval()(x)[-1].softmax(1)[0]
    assert int(probabilities.argmax()) == DAISY
    assert probabilities.max() > 0.2


def test_the_iframe_stem_takes_over_the_papers_value_mapping(
    checkpoint: dict[str, Tensor],
) -> None:
    network = build_network("efficientnet_lite0", modality="iframe", num_classes=3,
                            pretrained="imagenet").eval()
    stem = network.segments[0].trunk
    pixels = torch.randint(0, 256, (1, 3, 16, 16)).float()
    mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        ours = stem.bn0(stem.conv_stem(stem.pad((pixels / 255 - mean) / std)))
        theirs = F.batch_norm(
            F.conv2d(F.pad((pixels - 127) / 128, (0, 1, 0, 1)), checkpoint["_conv_stem.weight"],
                     stride=2),
            checkpoint["_bn0.running_mean"], checkpoint["_bn0.running_var"],
            checkpoint["_bn0.weight"], checkpoint["_bn0.bias"], eps=1e-3,
        )
    assert torch.allclose(ours[..., :-1, :-1], theirs[..., :-1, :-1], atol=1e-3)


def test_residual_and_motion_stems_start_from_imagenet(checkpoint: dict[str, Tensor]) -> None:
    scale = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255 / 128
    expected = checkpoint["_conv_stem.weight"] * scale
    residual = build_network("efficientnet_lite0", modality="residual", num_classes=3,
                             pretrained="imagenet")
    assert torch.allclose(residual.segments[0].trunk.conv_stem.weight, expected.flip(1))
    motion = build_network("efficientnet_lite0", modality="mv", num_classes=3,
                           pretrained="imagenet")
    weight = motion.segments[0].trunk.conv_stem.weight
    assert weight.shape == (32, 2, 3, 3)
    assert torch.allclose(weight[:, 0], weight[:, 1])
    assert torch.allclose(weight[:, 0], expected.mean(1) * 1.5, atol=1e-6)
    assert torch.equal(motion.segments[2].trunk.blocks[5].project_conv.weight,
                       checkpoint["_blocks.10._project_conv.weight"])


def test_cut_points_and_fixed_stem_and_head() -> None:
    network = build_network("efficientnet_lite0", modality="mv", num_classes=3, width=0.5)
    shapes = [tuple(f.shape[1:]) for f in network.features(torch.zeros(2, 2, 64, 64))]
    assert shapes == [(16, 16, 16), (24, 8, 8), (56, 4, 4), (1280, 2, 2)]
    assert network.segments[0].trunk.conv_stem.out_channels == 32
