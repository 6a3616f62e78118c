"""Batches are a function of seed and epoch: not of processes, earlier epochs, or other ranks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgepkd.config import InputSpec
from edgepkd.errors import ConfigError
from edgepkd.training import execution
from edgepkd.training.loader import LabelledClips, ViewRule, batch_indices, load_epoch
from tests.training.fake_clips import fake_clip

SPEC = InputSpec("mv", num_segments=2, resize_px=40, crop_px=32)
DATA = LabelledClips([fake_clip(seed=i) for i in range(9)], list(range(9)))

Batches = list[tuple[Tensor, Tensor]]


def batches(*, seed: int = 5, epoch: int = 1, workers: int = 0, size: int = 4) -> Batches:
    rule = ViewRule(SPEC, 2, "centre", seed)
    return list(load_epoch(DATA, rule, epoch=epoch, batch_clips=size, workers=workers))


def equal(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
        for a, b in zip(one, other, strict=True))


def as_rank(monkeypatch: pytest.MonkeyPatch, number: int, *, of: int) -> None:
    monkeypatch.setattr(execution, "rank", lambda: number)
    monkeypatch.setattr(execution, "world_size", lambda: of)


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_make_the_same_batches(workers: int) -> None:
    assert equal(batches(workers=workers), batches())


def test_an_epoch_does_not_depend_on_what_was_drawn_before() -> None:
    expected = batches()
    torch.manual_seed(99)
    for epoch in (0, 3):
        batches(epoch=epoch)
    assert equal(batches(), expected)


def test_making_batches_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    batches(workers=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("seed", "epoch"), [(6, 1), (5, 2)])
def test_other_seeds_and_epochs_give_other_clips_and_views(seed: int, epoch: int) -> None:
    one, other = batches(), batches(seed=seed, epoch=epoch)
    assert [b[1].tolist() for b in one] != [b[1].tolist() for b in other]
    views = [{int(label): view for x, labels in drawn
              for view, label in zip(x, labels, strict=True)} for drawn in (one, other)]
    shared = set(views[0]) & set(views[1])
    assert shared
    assert not any(torch.equal(views[0][label], views[1][label]) for label in shared)


def test_an_epoch_shows_no_clip_twice_and_leaves_out_the_rest() -> None:
    shown = [int(label) for _, labels in batches() for label in labels]
    assert len(shown) == len(set(shown)) == 8
    assert {len(labels) for _, labels in batches()} == {4}


def test_fewer_clips_than_a_batch_make_one_small_batch() -> None:
    (batch,) = batch_indices(3, 8, seed=1, epoch=0)
    assert sorted(batch) == [0, 1, 2]


def test_the_shares_of_two_ranks_are_the_batches_of_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = batches()
    shares = []
    for number in range(2):
        as_rank(monkeypatch, number, of=2)
        shares.append(batches())
    for (x, labels), first, second in zip(whole, *shares, strict=True):
        assert torch.equal(torch.stack([first[1], second[1]], 1).flatten(), labels)
        assert torch.equal(torch.stack([first[0], second[0]], 1).flatten(0, 1), x)


def test_a_small_batch_that_ranks_cannot_share_equally_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    as_rank(monkeypatch, 0, of=2)
    with pytest.raises(ConfigError, match="clips in a batch is 9; allowed: a multiple of 2"):
        batches(size=10)
