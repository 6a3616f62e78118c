"""The heavy steps: kept when nothing changed, made again when something did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgepkd.config import MODALITIES
from edgepkd.datasets.hashes import sha256_of
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.studies.parts import (
    TRUNK,
    ExitInputs,
    Part,
    backbone_job,
    contents,
    exits_job,
    holds_network,
    load_clips,
    write_arrays,
)
from edgepkd.training.backbone import clip_logits
from edgepkd.training.cache import cache_spec
from edgepkd.training.exits import view_plan
from edgepkd.training.loop import mix_seed
from edgepkd.training.recipe import changed_recipe
from tests.models.networks import small_network
from tests.studies.tiny_parts import tiny_part

pytestmark = pytest.mark.usefixtures("fake_clips")


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return tiny_part(tmp_path)


def test_results_lie_where_earlier_runs_left_them(part: Part, tmp_path: Path) -> None:
    """Names and seeds are what a run that goes on finds its networks by."""
    folder = tmp_path / "run" / "final"
    assert part.network_path("mv") == folder / "mv"
    assert part.network_path("mv", TRUNK) == folder / "mv-trunk"
    assert part.network_path("iframe", "int8") == folder / "iframe-int8"
    assert part.logits_path == folder / "logits.npz"
    named = replace(part, name="fold3", recipe=replace(part.recipe, seed=5))
    assert named.seed("mv") == mix_seed("5 fold3 mv")
    assert named.seed("mv", 4711) == mix_seed("5 fold3 mv 4711")
    path = tmp_path / "0.mp4"
    path.write_bytes(b"a clip")
    without = replace(part.fit[0], path=path, sha256="")
    assert contents((part.fit[1], without)) == [f"{1:064x}", sha256_of(path)]
    assert part.keys(part.fit[:1]) == [cache_spec(part.recipe).key(f"{0:064x}")]


def test_clips_come_with_the_index_of_their_label(part: Part) -> None:
    assert load_clips(part, part.fit).labels == [0, 1, 0, 1]
    assert part.cache_spec == cache_spec(part.recipe)
    assert part.cache_spec.inputs == part.recipe.inputs


@pytest.mark.slow
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
    path = part.path("mv-trunk.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:100])
    assert backbone_job(part, "mv").startswith("final mv: loss ")
    assert path.read_bytes() == content


def test_another_fold_is_trained_on_another_seed(part: Part) -> None:
    backbone_job(part, "mv")
    other = replace(part, name="fold0")
    backbone_job(other, "mv")
    one, two = (load_network(p.network_path("mv", TRUNK))[0].state_dict()
                for p in (part, other))
    assert not torch.equal(one["segments.0.trunk.conv1.weight"],
                           two["segments.0.trunk.conv1.weight"])


@pytest.mark.slow
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


def test_a_network_is_known_by_its_key_alone(part: Part) -> None:
    network, path = small_network(), part.network_path("mv")
    assert not holds_network(path, "k")
    save_network(network, path, extra={"key": "k"})
    assert holds_network(path, "k")
    assert not holds_network(path, "other")
    document = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**document, "extra": ["key"]}))
    assert not holds_network(path, "k")
    path.with_suffix(".json").write_text(json.dumps(document)[:-9])
    assert not holds_network(path, "k")


def test_exits_are_taught_by_all_trunks_and_know_their_rows(part: Part) -> None:
    networks = {m: small_network(modality=m, num_classes=2) for m in MODALITIES}
    inputs = ExitInputs.of(part, networks, load_clips(part, part.fit))
    assert inputs.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]  # two views of each clip
    for modality, features in inputs.features.items():
        rows = torch.tensor([5])
        windows, own = features.batch(rows, epoch=0, teacher="own")
        assert len(windows) == 3
        other = inputs.features["iframe"].batch(rows, epoch=0, teacher=modality)[1]
        assert own is not None
        assert other is not None
        assert torch.equal(own, other)


def test_arrays_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npz"
    write_arrays(path, {"a/b": np.arange(3), "c": np.array("text")})
    with np.load(path, allow_pickle=False) as file:
        assert file["a/b"].tolist() == [0, 1, 2]
        assert str(file["c"]) == "text"
    content = path.read_bytes()
    write_arrays(path, {"a/b": np.arange(3), "c": np.array("text")})
    assert path.read_bytes() == content


def test_views_share_crops_over_modalities(part: Part) -> None:
    plans = [view_plan(part.recipe, modality) for modality in MODALITIES]
    assert {(plan.seed, plan.num_views, plan.rule) for plan in plans} == {
        (part.recipe.seed, 2, "centre")}
    assert [plan.spec.modality for plan in plans] == list(MODALITIES)
