"""Backbone training on tiny synthetic clips: what moves, what stays, what repeats."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from edgepkd.config import InputSpec
from edgepkd.errors import ConfigError
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.backbone import (
    clip_logits,
    last_logits,
    new_network,
    set_training_mode,
    train_backbone,
)
from edgepkd.training.loader import LabelledClips, ViewRule, load_epoch
from edgepkd.training.recipe import BackboneRecipe, ClassWeights
from tests.training.fake_clips import fake_clip

SPEC = InputSpec("residual", num_segments=2, resize_px=64, crop_px=64)
RECIPE = BackboneRecipe(backbone="resnet18", width=0.125, epochs=2, learning_rate=1e-2,
                        train_segments=2, batch_clips=3, dropout=0.0)
DATA = LabelledClips([fake_clip(seed=i, brightness=170 * (i % 2)) for i in range(6)],
                     [i % 2 for i in range(6)])


def train(
    recipe: BackboneRecipe = RECIPE, *, seed: int = 3, data: LabelledClips = DATA
) -> SegmentedNetwork:
    return train_backbone(data, spec=SPEC, recipe=recipe, num_classes=2, rule="centre", seed=seed)


def start(recipe: BackboneRecipe, seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return new_network(SPEC, recipe, num_classes=2).state_dict()


def test_the_same_seed_gives_the_same_weights() -> None:
    one, same, other = (train(seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_a_length_in_steps_is_that_in_the_epochs_they_make() -> None:
    """6 clips in batches of 3: 2 steps an epoch, so 5 steps make 3 epochs."""
    epochs = train(replace(RECIPE, epochs=3)).state_dict()
    steps = train(replace(RECIPE, epochs=0, steps=5)).state_dict()
    assert all(torch.equal(epochs[key], steps[key]) for key in epochs)


@pytest.mark.slow
def test_class_weights_reach_the_loss_where_classes_differ() -> None:
    uneven = LabelledClips(DATA.clips, [0, 0, 0, 0, 0, 1])

    def weights(rule: ClassWeights, data: LabelledClips) -> Tensor:
        return train(replace(RECIPE, class_weights=rule), data=data).heads[-1].fc.weight

    assert torch.equal(weights("auto", uneven), weights("balanced", uneven))
    assert not torch.equal(weights("auto", uneven), weights("none", uneven))
    assert torch.equal(weights("auto", DATA), weights("none", DATA))


def test_frozen_stages_keep_weights_and_statistics() -> None:
    recipe = replace(RECIPE, frozen_stages=2)
    before, after = start(recipe), train(recipe).state_dict()
    for key in before:
        if key.startswith(("segments.0.trunk", "segments.1.trunk")):
            assert torch.equal(before[key], after[key]), key
    assert not torch.equal(before["segments.2.trunk.layer3.0.conv1.weight"],
                           after["segments.2.trunk.layer3.0.conv1.weight"])


def test_frozen_batch_norm_moves_only_at_the_input() -> None:
    recipe = replace(RECIPE, frozen_batch_norm=True)
    before, after = start(recipe), train(recipe).state_dict()
    moved = {key for key in before if "running_mean" in key
             and not torch.equal(before[key], after[key])}
    assert moved == {"segments.0.trunk.data_bn.running_mean"}
    assert not torch.equal(before["segments.0.trunk.conv1.weight"],
                           after["segments.0.trunk.conv1.weight"])


def test_frozen_batch_norm_is_frozen_when_it_is_synchronised_too() -> None:
    network = new_network(SPEC, RECIPE, num_classes=2)
    synced = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    set_training_mode(synced, replace(RECIPE, frozen_batch_norm=True))
    moving = {name for name, module in synced.named_modules()
              if isinstance(module, torch.nn.SyncBatchNorm) and module.training}
    assert moving == {"segments.0.trunk.data_bn"}


def test_momentum_is_the_share_of_a_batch_in_the_running_statistics() -> None:
    """One batch, no step taken before it is seen: mean = momentum * that of the batch."""
    def mean(momentum: float) -> Tensor:
        recipe = replace(RECIPE, epochs=1, batch_clips=6, batch_norm_momentum=momentum)
        return train(recipe).state_dict()["segments.0.trunk.bn1.running_mean"]

    torch.testing.assert_close(mean(0.05), mean(0.1) / 2)
    torch.testing.assert_close(mean(1.0), mean(0.1) * 10)


def test_settled_batch_norm_has_the_mean_statistics_of_an_epoch_of_the_final_weights() -> None:
    recipe = replace(RECIPE, frozen_stages=2, settle_batch_norm=True)
    network, plain = train(recipe), train(replace(recipe, settle_batch_norm=False))
    views = [x for x, _ in load_epoch(DATA, ViewRule(SPEC, 2, "centre", 3), epoch=2, batch_clips=3)]
    name = "segments.2.trunk.layer3.0.bn1"
    seen: list[Tensor] = []
    module = plain.get_submodule(name)
    module.register_forward_hook(lambda _, given, __: seen.append(given[0].mean((0, 2, 3))))
    set_training_mode(plain, recipe)
    with torch.no_grad():
        for x in views:
            last_logits(plain, x.flatten(0, 1))
    assert len(seen) == 2
    settled, before = network.state_dict(), train(
        replace(recipe, settle_batch_norm=False)).state_dict()
    torch.testing.assert_close(settled[f"{name}.running_mean"], torch.stack(seen).mean(0))
    for key in settled:
        moved = "running" in key and key.startswith(("segments.2.trunk", "segments.3.trunk"))
        if "num_batches" not in key:
            assert torch.equal(settled[key], before[key]) != moved, key


def test_gradients_of_several_batches_make_one_step_at_their_mean() -> None:
    """Where no BatchNorm tells batches apart, two batches of 3 are one of 6."""
    whole = replace(RECIPE, batch_clips=6, frozen_batch_norm=True, frozen_stages=1,
                    optimizer="sgd", learning_rate=0.1)
    parts = replace(whole, batch_clips=3, accumulate=2)
    one, other = train(whole).state_dict(), train(parts).state_dict()
    for key in one:
        torch.testing.assert_close(one[key], other[key], atol=1e-5, rtol=1e-4)
    key = "segments.3.head.fc.weight"
    alone = train(replace(whole, batch_clips=3)).state_dict()
    assert not torch.allclose(alone[key], other[key], atol=1e-4)
    assert [parts.steps_per_epoch(n) for n in (2, 6, 9, 13)] == [1, 1, 2, 2]
    assert replace(parts, epochs=0, steps=10).for_clips(9).epochs == 5


def test_other_exits_are_not_touched() -> None:
    before, after = start(RECIPE), train().state_dict()
    for key in before:
        if ".head." in key and not key.startswith("segments.3."):
            assert torch.equal(before[key], after[key]), key


@pytest.mark.slow
def test_it_learns_an_easy_difference() -> None:
    network = train(replace(RECIPE, epochs=15))
    answers = clip_logits(network, DATA.clips, spec=SPEC)[:, -1].argmax(1)
    assert answers.tolist() == list(DATA.labels)


def test_logits_of_a_clip_are_means_over_its_segments() -> None:
    network = train()
    logits = clip_logits(network, DATA.clips[:1], spec=SPEC)
    assert logits.shape == (1, 4, 2)
    x = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(last_logits(network, x), network(x)[-1])


def test_imagenet_weights_are_for_one_backbone() -> None:
    with pytest.raises(ConfigError, match="imagenet is 'true for resnet18'"):
        BackboneRecipe(backbone="resnet18", epochs=1, learning_rate=1.0, imagenet=True)
