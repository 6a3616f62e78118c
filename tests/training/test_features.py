"""The feature cache: nothing is made twice, nothing stale is read, the folder stays bounded."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgepkd.config import InputSpec
from edgepkd.errors import DataError, StorageError
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training import features
from edgepkd.training.exits import ViewPlan, Views, collect_views
from edgepkd.training.features import FeatureCache, trunk_hash
from tests.training.fake_clips import fake_clip

PLAN = ViewPlan(InputSpec("residual", num_segments=2, resize_px=32, crop_px=32), 2, 1, "centre", 7)
CLIPS = [fake_clip(seed=i) for i in range(3)]
KEYS = ("a", "b", "c")


def small_network(seed: int = 0) -> SegmentedNetwork:
    torch.manual_seed(seed)
    return build_network("resnet18", modality="residual", num_classes=3, width=0.125).eval()


@pytest.fixture
def network() -> SegmentedNetwork:
    return small_network()


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def views(cache: FeatureCache, network: SegmentedNetwork, *, plan: ViewPlan = PLAN,
          keys: Sequence[str] = KEYS) -> Views:
    return cache.views(network, CLIPS, plan, clip_keys=keys)


def entries(cache: FeatureCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


def forwards(network: SegmentedNetwork) -> list[int]:
    """Grows by one with each forward pass of the trunk."""
    seen: list[int] = []
    network.segments[0].trunk.register_forward_hook(lambda *_: seen.append(1))  # type: ignore[union-attr]
    return seen


def test_what_comes_from_disk_is_what_was_made(
    cache: FeatureCache, network: SegmentedNetwork
) -> None:
    expected = collect_views(network, CLIPS, PLAN)
    for found in (views(cache, network), views(cache, network)):
        assert torch.equal(found.logits, expected.logits)
        for one, other in zip(found.windows, expected.windows, strict=True):
            assert torch.equal(one, other)
    assert len(found) == 6


def test_the_second_call_runs_no_trunk(cache: FeatureCache, network: SegmentedNetwork) -> None:
    count = forwards(network)
    views(cache, network)
    assert len(count) == len(CLIPS)
    views(cache, network)
    assert len(count) == len(CLIPS)


def test_features_lie_on_disk_not_in_memory(cache: FeatureCache, network: SegmentedNetwork) -> None:
    views(cache, network)
    (entry,) = entries(cache)
    loaded = np.load(entry / "windows_1.npy", mmap_mode="r")
    assert loaded.shape == (6, 16, 8 * 7 * 7)
    assert loaded.dtype == np.float32
    assert {file.name for file in entry.iterdir()} == {
        "windows_1.npy", "windows_2.npy", "windows_3.npy", "logits.npy", "facts.json"}


def nudged(key: str) -> Callable[[SegmentedNetwork], dict[str, Any]]:
    def change(network: SegmentedNetwork) -> dict[str, Any]:
        network.state_dict()[key].view(-1)[0] += 1e-6
        return {}
    return change


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    nudged("segments.1.trunk.layer2.0.conv1.weight"),
    nudged("segments.2.trunk.layer3.0.bn1.running_mean"),
    nudged("segments.3.head.fc.bias"),
    lambda _: {"plan": replace(PLAN, seed=8)},
    lambda _: {"plan": replace(PLAN, num_views=3)},
    lambda _: {"plan": replace(PLAN, spec=replace(PLAN.spec, resize_px=40))},
    lambda _: {"keys": ("a", "b", "other")},
    lambda _: {"keys": ("b", "a", "c")},
])
def test_whatever_features_depend_on_makes_another_entry(
    cache: FeatureCache, network: SegmentedNetwork,
    change: Callable[[SegmentedNetwork], dict[str, Any]],
) -> None:
    views(cache, network)
    views(cache, network, **change(network))
    assert len(entries(cache)) == 2


def test_internal_classifiers_do_not_count(cache: FeatureCache, network: SegmentedNetwork) -> None:
    before = trunk_hash(network)
    nudged("segments.0.head.fc.bias")(network)
    assert trunk_hash(network) == before


@pytest.mark.parametrize("damage", [
    lambda entry: (entry / "windows_2.npy").unlink(),
    lambda entry: (entry / "logits.npy").write_bytes(b""),
    lambda entry: (entry / "windows_1.npy").write_bytes(
        (entry / "windows_1.npy").read_bytes()[:-8]),
    lambda entry: (entry / "facts.json").write_text("{"),
    lambda entry: (entry / "facts.json").write_text("[]"),
    lambda entry: (entry / "facts.json").unlink(),
])
def test_a_damaged_entry_is_named(
    cache: FeatureCache, network: SegmentedNetwork, damage: Callable[[Path], None]
) -> None:
    views(cache, network)
    (entry,) = entries(cache)
    damage(entry)
    with pytest.raises(DataError, match=f"the features in {entry} are damaged"):
        views(cache, network)


def test_an_entry_of_other_weights_is_refused(
    cache: FeatureCache, network: SegmentedNetwork
) -> None:
    views(cache, small_network(seed=1))
    (foreign,) = entries(cache)
    views(cache, network)
    (own,) = set(entries(cache)) - {foreign}
    shutil.rmtree(own)
    foreign.rename(own)
    with pytest.raises(DataError, match="were made with other weights, clips or settings"):
        views(cache, network)


def test_features_larger_than_the_limit_are_refused(
    cache: FeatureCache, network: SegmentedNetwork
) -> None:
    tight = replace(cache, limit_gb=1e-6)
    with pytest.raises(StorageError, match=r"features need .* GB; allowed: 1e-06 GB") as caught:
        views(tight, network)
    assert "--cache-gb" in str(caught.value)
    assert entries(cache) == []


def test_the_entries_used_longest_ago_go_first(
    cache: FeatureCache, network: SegmentedNetwork
) -> None:
    for number, keys in enumerate(("abc", "abd", "abe")):
        before = set(entries(cache)) if number else set()
        views(cache, network, keys=keys)
        (made,) = set(entries(cache)) - before
        os.utime(made, (1000 + number, 1000 + number))
        if number == 0:
            first = made
        elif number == 1:
            second = made
    os.utime(second, (1, 1))
    views(cache, network, keys="abd")  # a use counts, not the making
    size = sum(file.stat().st_size for file in first.iterdir())
    views(replace(cache, limit_gb=2.5 * size / 1e9), network, keys="abf")
    assert len(entries(cache)) == 2
    assert second in entries(cache)
    assert first not in entries(cache)


def test_folders_of_other_things_are_never_removed(
    cache: FeatureCache, network: SegmentedNetwork
) -> None:
    theirs = [cache.folder / "my-videos", cache.folder / ("0" * 32)]
    for folder in theirs:
        folder.mkdir(parents=True)
        (folder / "film.mp4").write_bytes(bytes(100_000))
        os.utime(folder, (1, 1))
    views(cache, network)
    (entry,) = set(entries(cache)) - set(theirs)
    size = sum(file.stat().st_size for file in entry.iterdir())
    views(replace(cache, limit_gb=1.1 * size / 1e9), network, keys="abd")
    assert all((folder / "film.mp4").is_file() for folder in theirs)
    assert not entry.exists()


def fill_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    def limited(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*arguments, **keywords)
    return limited


@pytest.mark.parametrize("calls", [0, 2])
def test_a_disk_that_fills_up_leaves_nothing_half_written(
    cache: FeatureCache, network: SegmentedNetwork, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fill_after(calls, os.posix_fallocate))
        with pytest.raises(StorageError, match=r"cannot be written to .*: No space left"):
            views(cache, network)
    assert entries(cache) == []
    assert len(views(cache, network)) == 6


def test_a_process_that_was_first_is_no_error(
    cache: FeatureCache, network: SegmentedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = views(cache, network)
    (entry,) = entries(cache)
    features._write(entry, network, CLIPS, PLAN, limit_gb=1.0,
                    facts=json.loads((entry / "facts.json").read_text())["key"])
    assert entries(cache) == [entry]
    assert torch.equal(views(cache, network).logits, expected.logits)
