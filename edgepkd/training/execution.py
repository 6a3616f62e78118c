"""Where training runs: device, loader processes, mixed precision, compilation, several ranks.

Several GPUs or machines: start the command with `torchrun`. Every rank then takes its share of each
batch, DistributedDataParallel averages the gradients, and rank 0 writes the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from edgepkd.config import check
from edgepkd.errors import UsageError

_Batch = TypeVar("_Batch", Tensor, list[int])


@dataclass(frozen=True)
class Execution:
    """How a training run is executed; the batches do not depend on it."""

    device: str = "cpu"
    workers: int = 0
    """Processes that make batches; 0: the training process does."""
    mixed_precision: bool = False
    """bfloat16 where it is safe; needs a GPU."""
    compile: bool = False
    """`torch.compile` the network; needs a GPU."""

    def __post_init__(self) -> None:
        check(self.workers >= 0, "workers", got=self.workers, allowed="0 or more")
        check(re.fullmatch(r"cpu|cuda(:\d+)?", self.device) is not None, "device",
              got=self.device, allowed="cpu, cuda, cuda:N")
        if self.on_gpu and not torch.cuda.is_available():
            raise UsageError(f"device is {self.device!r}, and this PyTorch sees no GPU.",
                             hint="Use --device cpu, or install PyTorch for CUDA.")
        for name in ("mixed_precision", "compile"):
            check(self.on_gpu or not getattr(self, name), name, got="true on the CPU",
                  allowed="true only on a GPU")

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for the forward pass, or nothing."""
        return torch.autocast("cuda", torch.bfloat16) if self.mixed_precision else nullcontext()

    def prepare(self, module: nn.Module) -> nn.Module:
        """`module` on the device, compiled and wrapped for several ranks as asked."""
        module = module.to(self.device)
        if self.compile:
            module.compile()
        if world_size() == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        return nn.parallel.DistributedDataParallel(
            module, device_ids=[torch.device(self.device).index or 0] if self.on_gpu else None)


def auto_device() -> str:
    """The GPU of this rank if there is one, else the CPU."""
    return gpu_of_rank() if torch.cuda.is_available() else "cpu"


def gpu_of_rank() -> str:
    """The GPU that belongs to this process of its machine."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(*, on_gpu: bool) -> Iterator[None]:
    """Join the processes that `torchrun` started; nothing to do without it."""
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield
        return
    if on_gpu:
        torch.cuda.set_device(gpu_of_rank())  # where NCCL's barriers run
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def mean_over_ranks(value: float) -> float:
    """Mean of `value` over all processes."""
    if world_size() == 1:
        return value
    total = torch.tensor([value], dtype=torch.float64)
    if dist.get_backend() == "nccl":
        total = total.cuda()
    dist.all_reduce(total)
    return float(total.item()) / world_size()


def same_buffers(module: nn.Module) -> None:
    """Give all ranks rank 0's buffers: each rank's BatchNorm saw its own share of the batches."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def share(batch: _Batch) -> _Batch:
    """This rank's part of a batch: every `world_size`-th item."""
    return batch[rank()::world_size()]


def gather_rows(mine: Tensor) -> Tensor:
    """Undo `share`: rows of all ranks, which have equally many, in their first order."""
    if world_size() == 1:
        return mine
    parts = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(parts, mine.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def check_batch(size: int, *, name: str) -> None:
    """Every rank must get as many items, or the mean of gradients would be another one.

    Raises:
        ConfigError: `size` is no multiple of the number of processes.
    """
    check(size % world_size() == 0, name, got=size,
          allowed=f"a multiple of {world_size()}, the number of processes")
