"""BatchNorm folded into the convolution before it, for export and before quantising."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


class ChannelAffine(nn.Module):
    """scale * x + shift per channel: an eval-mode BatchNorm that has no convolution before it."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias.detach() - norm.running_mean * scale
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        return x * self.get_buffer("scale") + self.get_buffer("shift")


def fold_batch_norm(module: _ModuleT) -> _ModuleT:
    """A copy of `module` in eval mode without any BatchNorm2d; same outputs up to rounding.

    Relies on a convention of this room: a BatchNorm that is registered right after a convolution
    normalises that convolution's output. Any other, as `data_bn`, becomes a `ChannelAffine`: zero
    padding of the next convolution forbids folding its shift forward.
    """
    folded = copy.deepcopy(module).eval()
    for parent in list(folded.modules()):
        previous: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                if previous and isinstance(previous[1], nn.Conv2d):
                    setattr(parent, previous[0], fuse_conv_bn_eval(previous[1], child))
                    setattr(parent, name, nn.Identity())
                else:
                    setattr(parent, name, ChannelAffine(child))
            previous = (name, child)
    return folded
