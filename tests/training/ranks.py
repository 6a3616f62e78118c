"""What one process, or each of several under torchrun's variables, trains for test_execution."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from edgepkd.config import InputSpec
from edgepkd.errors import ConfigError
from edgepkd.models.registry import build_network
from edgepkd.training import backbone
from edgepkd.training.backbone import train_backbone
from edgepkd.training.execution import process_group, rank
from edgepkd.training.exits import OnlineFeatures, ViewPlan, label_rows, train_exits
from edgepkd.training.loader import LabelledClips
from edgepkd.training.recipe import BackboneRecipe, ExitRecipe
from tests.processes import started
from tests.training.fake_clips import fake_clip

DATA = LabelledClips([fake_clip(seed=i, brightness=170 * (i % 2)) for i in range(8)],
                     [i % 2 for i in range(8)])
HELD_OUT = LabelledClips([fake_clip(seed=20 + i, brightness=170 * i) for i in range(2)], [0, 1])


def spec(modality: str) -> InputSpec:
    return InputSpec(modality, num_segments=1, resize_px=32, crop_px=32)  # type: ignore[arg-type]


def gradients() -> dict[str, Tensor]:
    """Of the first step; BatchNorm is frozen, nothing is random, nothing is clipped."""
    recipe = BackboneRecipe(backbone="resnet18", width=0.125, epochs=1, learning_rate=1e-3,
                            optimizer="sgd", frozen_batch_norm=True, dropout=0.0,
                            train_segments=2, batch_clips=8)
    seen: list[Tensor] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.extend(
        p.grad.clone() for g in optimizer.param_groups for p in g["params"]))
    limit, backbone.MAX_GRADIENT_NORM = backbone.MAX_GRADIENT_NORM, 1e9
    try:
        train_backbone(DATA, spec=spec("iframe"), recipe=recipe, num_classes=2, rule="centre",
                       seed=3)
    finally:
        hook.remove()
        backbone.MAX_GRADIENT_NORM = limit
    return {str(number): tensor for number, tensor in enumerate(seen)}


def trunk() -> dict[str, Tensor]:
    """Weights after two epochs with live BatchNorm and dropout; the best epoch is kept."""
    recipe = BackboneRecipe(backbone="resnet18", width=0.125, epochs=2, learning_rate=1e-2,
                            train_segments=1, batch_clips=4, select="best")
    return train_backbone(DATA, spec=spec("residual"), recipe=recipe, num_classes=2,
                          rule="centre", seed=3, calibration=HELD_OUT).state_dict()


def exits() -> dict[str, Tensor]:
    """Weights after online training of the exits."""
    torch.manual_seed(0)
    network = build_network("resnet18", modality="residual", num_classes=2, width=0.125).eval()
    plan = ViewPlan(spec("residual"), 1, 2, "centre", 7)
    features = OnlineFeatures("residual", {"residual": network}, {"residual": plan}, DATA)
    train_exits(network, features, label_rows(DATA, num_views=1), seed=1,
                recipe=ExitRecipe(scheme="anticurriculum", epochs=1, batch_views=4, label_share=0.5,
                                  learning_rate=1e-2))
    return network.state_dict()


def refusal() -> str:
    """What a batch of 3 gives."""
    recipe = BackboneRecipe(backbone="resnet18", width=0.125, epochs=1, learning_rate=1e-2,
                            batch_clips=3)
    try:
        train_backbone(DATA, spec=spec("residual"), recipe=recipe, num_classes=2, rule="centre",
                       seed=3)
    except ConfigError as error:
        return error.message
    return ""


def run_ranks(folder: Path, *, count: int) -> None:
    """Run this file in `count` processes that find each other as under torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.training.ranks", str(folder)]
    with ExitStack() as stack:
        processes = [stack.enter_context(started(command, env={
            **os.environ, "OMP_NUM_THREADS": "1", "RANK": str(number), "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}))
            for number in range(count)]
        assert [process.wait(timeout=200) for process in processes] == [0] * count


def main(folder: Path) -> None:
    """Leave what this rank has trained."""
    torch.set_num_threads(1)
    with process_group(on_gpu=False):
        torch.save({"gradients": gradients(), "trunk": trunk(), "exits": exits(),
                    "refusal": refusal()}, folder / f"{rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
