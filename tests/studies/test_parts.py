"""The heavy steps: kept when nothing changed, made again when something did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgepkd.config import MODALITIES
from edgepkd.datasets.index import Sample
from edgepkd.models.checkpoint import load_network
from edgepkd.studies import parts
from edgepkd.studies.parts import Part, backbone_job, exits_job, load_clips
from edgepkd.training.backbone import clip_logits
from edgepkd.training.cache import CacheSpec, ClipArrays, cache_spec
from edgepkd.training.exits import view_plan
from edgepkd.training.recipe import TrainRecipe, changed_recipe, load_train_recipe
from tests.training.fake_clips import fake_clip


def tiny_recipe() -> TrainRecipe:
    changes: dict[str, object] = {"exits.epochs": 2, "exits.num_views": 2, "exits.batch_views": 4}
    for modality in MODALITIES:
        changes |= {f"inputs.{modality}.{key}": value for key, value in (
            ("num_segments", 2), ("resize_px", 32), ("crop_px", 32))}
        changes[f"backbones.{modality}"] = {
            "backbone": "resnet18", "width": 0.125, "epochs": 1, "learning_rate": 1e-2,
            "train_segments": 1, "batch_clips": 2}
    return load_train_recipe("small", changes)


def samples(start: int, count: int) -> tuple[Sample, ...]:
    return tuple(Sample(Path(f"{i}.mp4"), "ab"[i % 2], f"g{i}", "train", sha256=f"{i:064x}")
                 for i in range(start, start + count))


@pytest.fixture(autouse=True)
def fake_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(sample: Sample, *, spec: CacheSpec, folder: Path) -> ClipArrays:
        number = int(sample.path.stem)
        return fake_clip(seed=number, brightness=170 * (number % 2))

    monkeypatch.setattr(parts, "cached_clip", read)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part("final", samples(0, 4), samples(10, 2), ("a", "b"), tiny_recipe(),
                tmp_path / "run", tmp_path / "cache")


def test_clips_come_with_the_index_of_their_label(part: Part) -> None:
    assert load_clips(part, part.fit).labels == [0, 1, 0, 1]
    assert part.cache_spec == cache_spec(part.recipe)
    assert part.cache_spec.inputs == part.recipe.inputs


def test_a_trunk_is_kept_until_something_changes(part: Part) -> None:
    assert backbone_job(part, "mv").startswith("final mv: loss ")
    assert backbone_job(part, "mv") == "final mv: kept from an earlier run"
    for changed in (
        replace(part, fit=part.fit[:3]), replace(part, labels=("a", "c", "b")),
        replace(part, recipe=changed_recipe(part.recipe, {"seed": 5})),
        replace(part, recipe=changed_recipe(part.recipe, {"backbones.mv.learning_rate": 1e-3})),
        replace(part, recipe=changed_recipe(part.recipe, {"inputs.mv.resize_px": 40})),
    ):
        assert backbone_job(changed, "mv").startswith("final mv: loss ")
    exits = replace(part, recipe=changed_recipe(part.recipe, {"exits.epochs": 9}))
    backbone_job(part, "mv")
    assert backbone_job(exits, "mv").endswith("kept from an earlier run")


def test_a_damaged_trunk_is_made_again_to_the_same_bits(part: Part) -> None:
    backbone_job(part, "mv")
    path = part.network_path("mv").with_name("mv-trunk.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:100])
    assert backbone_job(part, "mv").startswith("final mv: loss ")
    assert path.read_bytes() == content


def test_another_fold_is_trained_on_another_seed(part: Part) -> None:
    backbone_job(part, "mv")
    other = replace(part, name="fold0")
    backbone_job(other, "mv")
    one, two = (load_network(p.network_path("mv").with_name("mv-trunk"))[0].state_dict()
                for p in (part, other))
    assert not torch.equal(one["segments.0.trunk.conv1.weight"],
                           two["segments.0.trunk.conv1.weight"])


def test_exits_answer_the_held_out_clips_with_the_networks_they_save(part: Part) -> None:
    for modality in MODALITIES:
        backbone_job(part, modality)
    assert exits_job(part) == "final: exits trained, 2 clips answered"
    with np.load(part.logits_path, allow_pickle=False) as file:
        assert set(file) == {"labels", *MODALITIES}
        assert file["labels"].tolist() == [0, 1]
        for modality in MODALITIES:
            network, _ = load_network(part.network_path(modality))
            expected = clip_logits(network, load_clips(part, part.answer).clips,
                                   spec=part.recipe.inputs[modality]).numpy()
            assert file[modality].shape == (2, 4, 2)
            np.testing.assert_allclose(file[modality], expected, atol=1e-5)


def test_views_share_crops_over_modalities(part: Part) -> None:
    plans = [view_plan(part.recipe, modality) for modality in MODALITIES]
    assert {(plan.seed, plan.num_views, plan.rule) for plan in plans} == {
        (part.recipe.seed, 2, "centre")}
    assert [plan.spec.modality for plan in plans] == list(MODALITIES)
