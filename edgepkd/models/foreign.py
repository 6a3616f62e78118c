"""Names in other people's checkpoints, and the plain names they are translated to.

A trunk's plain names are torchvision's (`layer1.0.conv1.weight`), with `data_bn.` for the input's
BatchNorm and `fc.` for the last classifier; an internal classifier's are `ic1.conv.`, `ic1.bn.`
and `ic1.fc.`. The network's own keys translate to the same, so both sides meet there.

style        whose checkpoint, and what its keys look like
edgepkd      this package's: segments.0.trunk.conv1.weight
torchvision  torchvision's ResNets: conv1.weight, fc.weight
coviar       CoViAR's, and the PKD code's backbones: module.base_model.conv1.weight,
             module.data_bn.bias
pkd          the PKD code's networks with ICs: module.net.base_model.conv1.weight,
             module.IC1_features.0.weight

Channel order is no matter of names: residuals are BGR and I-frames RGB in CoViAR as here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor

from edgepkd.errors import ConfigError, ModelError

Style = Literal["edgepkd", "torchvision", "coviar", "pkd"]

TRANSLATION: tuple[tuple[str, str], ...] = (
    (r"^(module\.)+", ""),  # DataParallel's
    (r"^net\.(?=base_model\.|data_bn\.)", ""),
    (r"^base_model\.", ""),
    (r"^new_fc\.", "fc."),
    (r"^IC([1-3])_features\.0\.", r"ic\1.conv."),
    (r"^IC([1-3])_features\.1\.", r"ic\1.bn."),
    (r"^IC([1-3])_classifier\.", r"ic\1.fc."),
    # the PKD code's "unrolled" ResNet-18: layer, block, position
    (r"^(conv|bn)([1-4])_(\d)_(\d)\.", r"layer\2.\3.\1\4."),
    (r"^shortcut([2-4])\.", r"layer\1.0.downsample."),
    (r"^segments\.\d\.trunk\.", ""),
    (r"^segments\.0\.head\.", "ic1."),
    (r"^segments\.1\.head\.", "ic2."),
    (r"^segments\.2\.head\.", "ic3."),
    (r"^segments\.3\.head\.", ""),
)
"""Regular expression and replacement, applied one after the other."""

_STYLES: tuple[tuple[str, Style], ...] = (
    (r"segments\.\d\.|conv_stem\.", "edgepkd"),
    (r"IC[1-3]_(features|classifier)\.|net\.base_model\.|conv[1-4]_\d_\d\.", "pkd"),
    (r"base_model\.", "coviar"),
    (r"layer[1-4]\.|conv1\.|bn1\.|fc\.|data_bn\.", "torchvision"),
)
_TEAM_NET = re.compile(r"(I|MV|R)_model\.|team\d\.")

_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18, (False, (3, 4, 6, 3)): 34, (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101, (True, (3, 8, 36, 3)): 152,
}
"""(bottlenecks, blocks of each layer) -> name of the ResNet."""


def identify(state: Mapping[str, Tensor]) -> Style:
    """Whose names `state` has.

    Raises:
        ModelError: nobody's that is known, or TEAM-Net's, three networks in one.
    """
    names = [re.sub(TRANSLATION[0][0], "", name) for name in state]
    if any(_TEAM_NET.match(name) for name in names):
        raise ModelError(
            "the checkpoint is a TEAM-Net: three networks joined by attention, got "
            f"{_some(state)}; allowed: one network.",
            hint="One branch can start a trunk: rename its keys with a key map, and map those of "
                 "the other branches to nothing.",
        )
    for pattern, style in _STYLES:
        if any(re.match(pattern, name) for name in names):
            return style
    raise ModelError(
        f"the checkpoint has names of no known style: {_some(state)}; allowed: those of edgepkd, "
        "torchvision, CoViAR and PKD.",
        hint="Rename its keys with a key map, to torchvision's names.",
    )


def plain_name(name: str) -> str:
    """The plain name of one key of any style."""
    for pattern, replacement in TRANSLATION:
        name = re.sub(pattern, replacement, name)
    return name


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` under plain names.

    Raises:
        ModelError: two keys have the same plain name; names both.
    """
    return _renamed(state, {name: plain_name(name) for name in state})


def apply_key_map(
    state: Mapping[str, Tensor], key_map: Mapping[str, str]
) -> dict[str, Tensor]:
    """`state` renamed by a user's `key_map`: regular expression -> replacement, in its order.

    A key of which nothing is left is dropped, with its tensor.

    Raises:
        ConfigError: an expression or a replacement is not valid.
        ModelError: two keys get the same name; names both.
    """
    names = {name: name for name in state}
    for pattern, replacement in key_map.items():
        try:
            names = {old: re.sub(pattern, replacement, new) for old, new in names.items()}
        except (re.error, IndexError) as error:
            raise ConfigError(f"key map has {pattern!r} -> {replacement!r}; allowed: a regular "
                              f"expression and its replacement ({error}).") from error
    return _renamed(state, {old: new for old, new in names.items() if new})


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    olds: dict[str, str] = {}
    for old, new in names.items():
        if new in olds:
            raise ModelError(f"two tensors of the checkpoint would become {new}: {olds[new]} and "
                             f"{old}; allowed: one.", hint="Map one of them to nothing.")
        olds[new] = old
    return {new: state[old] for new, old in olds.items()}


def guess_resnet(names: Iterable[str]) -> str | None:
    """Which ResNet of torchvision has these plain `names`, such as 'ResNet-152'; None if none."""
    names = list(names)
    bottlenecks = any(re.match(r"layer1\.0\.conv3\.", name) for name in names)
    blocks = tuple(
        len({m[1] for name in names if (m := re.match(rf"layer{layer}\.(\d+)\.", name))})
        for layer in (1, 2, 3, 4)
    )
    depth = _DEPTHS.get((bottlenecks, blocks))
    return f"ResNet-{depth}" if depth else None


def _some(state: Mapping[str, Tensor]) -> str:
    names = ", ".join(list(state)[:5]) or "nothing"
    return f"{names} and {len(state) - 5} more" if len(state) > 5 else names
