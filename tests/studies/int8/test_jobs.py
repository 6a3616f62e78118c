"""One fold of the INT8 study: FP32, PTQ (plain, too), QAT and QAD of the same networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import MODALITIES
from edgepkd.int8 import METHODS, load_int8_recipe
from edgepkd.quantize.checkpoint import load_quantized
from edgepkd.studies.int8.jobs import FORMS, answers_path, int8_job
from edgepkd.studies.parts import load_clips, load_networks
from edgepkd.training.backbone import clip_logits
from tests.studies.tiny_parts import tiny_unit

RECIPE = load_int8_recipe("int8", {"min_clips": 2, "calibration_clips": 3, "finetune.epochs": 1,
                                   "finetune.batch_clips": 4, "finetune.select": "last"})


@pytest.mark.slow
@pytest.mark.usefixtures("fake_clips")
def test_every_form_answers_and_lies_where_it_is_looked_for(tmp_path: Path) -> None:
    unit = tiny_unit(tmp_path)
    part, path = unit.part, answers_path(unit, 7)
    assert path == tmp_path / "run" / "trunk1-fold0" / "int8-answers.npz"
    assert int8_job(unit, recipe=RECIPE).startswith("small trunk1-fold0: exits ")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert set(arrays) == {"facts", "truth", *(f"{f}/{m}" for f in FORMS for m in MODALITIES)}
    assert arrays["truth"].tolist() == [0, 1]
    clips, floats = load_clips(part, part.answer).clips, load_networks(part)
    for modality in MODALITIES:
        networks = {"fp32": floats[modality], **{
            method: load_quantized(part.network_path(modality, method))[0]
            for method in METHODS}}
        for form, network in networks.items():
            expected = clip_logits(network, clips, spec=part.recipe.inputs[modality]).numpy()
            np.testing.assert_allclose(arrays[f"{form}/{modality}"], expected, atol=1e-5)
        forms = [arrays[f"{form}/{modality}"] for form in FORMS]
        assert not any(np.array_equal(a, b) for i, a in enumerate(forms) for b in forms[:i])

    assert int8_job(unit, recipe=RECIPE) == "small trunk1-fold0: kept from an earlier run"
    again = int8_job(unit, recipe=replace(RECIPE, calibration_clips=2))
    assert again.startswith("small trunk1-fold0: exits ")
