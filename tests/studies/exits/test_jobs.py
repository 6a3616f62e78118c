"""One fold of the study of exits: every arm answers, and what is there is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import MODALITIES
from edgepkd.studies.exits import jobs
from edgepkd.studies.exits.jobs import answers_path, unit_job
from edgepkd.studies.parts import TRUNK, load_clips, load_networks
from edgepkd.studies.study import ARMS
from edgepkd.studies.units import Unit
from edgepkd.training.backbone import clip_logits
from tests.studies.tiny_parts import tiny_unit

pytestmark = pytest.mark.usefixtures("fake_clips")


def arrays(unit: Unit, seed: int) -> dict[str, np.ndarray]:
    with np.load(answers_path(unit, seed), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.slow
def test_a_fold_is_answered_by_every_arm_under_every_seed(tmp_path: Path) -> None:
    unit = tiny_unit(tmp_path, exit_seeds=(7, 8))
    assert answers_path(unit, 7) == tmp_path / "run" / "trunk1-fold0" / "answers-7.npz"
    assert unit_job(unit).startswith("small trunk1-fold0: trunk_mv ")
    one, other = arrays(unit, 7), arrays(unit, 8)
    assert one["truth"].tolist() == [0, 1]
    assert set(one) == {"facts", "truth", *(f"{a.name}/{m}" for a in ARMS for m in MODALITIES)}
    networks = load_networks(unit.part, TRUNK)
    clips = load_clips(unit.part, unit.part.answer).clips
    for modality in MODALITIES:
        last = clip_logits(networks[modality], clips,
                           spec=unit.part.recipe.inputs[modality]).numpy()[:, 3]
        for arm in ARMS:
            logits = one[f"{arm.name}/{modality}"]
            assert logits.shape == (2, 4, 2)
            np.testing.assert_allclose(logits[:, 3], last, atol=1e-5)  # one trunk for all arms
            assert not np.array_equal(logits[:, :3], other[f"{arm.name}/{modality}"][:, :3])
        assert not np.array_equal(one[f"pkd/{modality}"], one[f"ce/{modality}"])
    # the I-frame network is its own last teacher
    assert np.array_equal(one["pkd/iframe"], one["pkd_last_iframe/iframe"])
    assert not np.array_equal(one["pkd/mv"], one["pkd_last_iframe/mv"])


@pytest.mark.slow
def test_only_seeds_that_are_missing_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = tiny_unit(tmp_path, exit_seeds=(7, 8))
    trained = []

    def answers(unit: Unit, ready: object, seed: int) -> dict[object, np.ndarray]:
        trained.append(seed)
        return {("ce", "mv"): np.zeros((2, 4, 2))}

    monkeypatch.setattr(jobs, "_answers_of_all_arms", answers)
    unit_job(replace(unit, exit_seeds=(7,)))
    unit_job(unit)
    assert trained == [7, 8]
    assert unit_job(unit) == "small trunk1-fold0: kept from an earlier run"
    longer = replace(unit.part.recipe, exits=replace(unit.part.recipe.exits, epochs=9))
    unit_job(replace(unit, part=replace(unit.part, recipe=longer)))
    assert trained == [7, 8, 7, 8]
