"""The INT8 steps of a demo bundle: one network quantised, clips answered in three forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import MODALITIES
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32
from edgepkd.int8 import load_int8_recipe
from edgepkd.models.checkpoint import save_network
from edgepkd.studies.demo.answers import (
    INT8,
    answer_job,
    answered_by,
    int8_networks,
    quantize_job,
    read_answers,
)
from edgepkd.studies.parts import Part, load_clips, load_networks
from edgepkd.training.backbone import clip_logits
from tests.models.networks import small_network
from tests.studies.tiny_parts import samples, tiny_part

RECIPE = load_int8_recipe("int8", {"min_clips": 2, "finetune.epochs": 1,
                                   "finetune.batch_clips": 4})


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clips")
def test_the_forms_are_those_of_the_networks_that_lie_there(tmp_path: Path) -> None:
    part = tiny_part(tmp_path, "fold0")
    for modality in MODALITIES:
        save_network(small_network(modality=modality, num_classes=2), part.network_path(modality))
    for modality in MODALITIES:
        assert quantize_job(part, modality, RECIPE) == f"fold0 {modality}: INT8"
        assert part.network_path(modality, INT8) == tmp_path / f"run/fold0/{modality}-int8"
    assert quantize_job(part, "mv", RECIPE) == "fold0 mv: INT8 kept from an earlier run"

    assert answer_job(part) == "fold0: 2 clips answered in three forms"
    logits, labels = read_answers(part)
    assert labels.tolist() == [0, 1]
    clips = load_clips(part, part.answer).clips
    for form, networks in ((FP32, load_networks(part)), (FAKE_QUANT, int8_networks(part))):
        for modality in MODALITIES:
            expected = clip_logits(networks[modality], clips,
                                   spec=part.recipe.inputs[modality]).numpy()
            np.testing.assert_allclose(logits[form][modality], expected, atol=1e-5)
    for modality in MODALITIES:
        gap = np.abs(logits[DEPLOYED][modality] - logits[FAKE_QUANT][modality]).max()
        assert gap <= 0.1 * np.abs(logits[FAKE_QUANT][modality]).max()

    assert answer_job(part) == "fold0: answers kept from an earlier run"
    other = replace(part, answer=samples(20, 2))
    assert answer_job(other) == "fold0: 2 clips answered in three forms"
    part.path("answers.npz").write_bytes(b"PK\x03\x04 cut")
    assert answer_job(part) == "fold0: 2 clips answered in three forms"
    other_recipe = replace(RECIPE, calibration_clips=2)
    assert quantize_job(part, "mv", other_recipe) == "fold0 mv: INT8"


def test_parts_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(part: Part) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
        number = int(part.name[-1])
        return {form: {m: np.full((2, 4, 2), 10.0 * number + i) for m in MODALITIES}
                for i, form in enumerate((DEPLOYED, FP32))}, np.array([number, 1])

    monkeypatch.setattr("edgepkd.studies.demo.answers.read_answers", read)
    folds = [tiny_part(tmp_path, f"fold{i}") for i in range(2)]
    logits, labels = answered_by(folds, form=FP32)
    assert labels.tolist() == [0, 1, 1, 1]
    assert logits["residual"][:, 3, 1].tolist() == [1, 1, 11, 11]
    assert answered_by(folds)[0]["mv"][:, 0, 0].tolist() == [0, 0, 10, 10]
