"""What torch and what is deployed answer to the same clips, side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgepkd.config import InputSpec
from edgepkd.deploy.answers import deployed_answers, torch_answers
from edgepkd.deploy.segments import export_segments
from edgepkd.training.views import test_view as central_view
from tests.models.networks import small_network
from tests.training.fake_clips import fake_clip

INPUTS = {"residual": InputSpec("residual", num_segments=2, resize_px=64, crop_px=64)}
CLIPS = [fake_clip(seed=i, brightness=170 * (i % 2)) for i in range(3)]


@pytest.mark.slow
def test_torch_and_deployed_segments_answer_alike_clip_by_clip() -> None:
    network = small_network(modality="residual")
    mine = torch_answers({"residual": network}, INPUTS, CLIPS)["residual"]
    theirs = deployed_answers(export_segments({"residual": network}, INPUTS), INPUTS, CLIPS)
    assert list(theirs) == ["residual"]
    assert mine.shape == theirs["residual"].shape == (3, 4, 5)
    assert mine.dtype == np.float64
    assert np.abs(mine - theirs["residual"]).max() < 1e-4 * np.abs(mine).max()
    assert np.abs(mine[0] - mine[1]).max() > 0.1, "clips are told apart"


def test_an_answer_is_the_mean_over_the_temporal_segments_of_the_central_view() -> None:
    network = small_network(modality="residual")
    with torch.no_grad():
        logits = network(central_view(CLIPS[0], INPUTS["residual"]))
    expected = np.stack([each.double().mean(dim=0).numpy() for each in logits])
    mine = torch_answers({"residual": network}, INPUTS, CLIPS[:1])["residual"][0]
    assert np.abs(mine - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_stacked_fields_are_one_pass_in_torch_and_deployed() -> None:
    network = small_network(modality="mv", frames_per_pass=2)
    inputs = {"mv": InputSpec("mv", num_segments=2, resize_px=64, crop_px=64, stack=True)}
    mine = torch_answers({"mv": network}, inputs, CLIPS)["mv"]
    theirs = deployed_answers(export_segments({"mv": network}, inputs), inputs, CLIPS)["mv"]
    assert np.abs(mine - theirs).max() < 1e-4 * np.abs(mine).max()
    fields = central_view(CLIPS[0], InputSpec("mv", 2, resize_px=64, crop_px=64))
    with torch.no_grad():
        exits = network(fields.reshape(1, 4, 64, 64))
    assert np.allclose(mine[0], torch.cat(exits).double().numpy(), rtol=1e-5)
    fixed = export_segments({"mv": network}, inputs, batch=1)
    assert np.allclose(deployed_answers(fixed, inputs, CLIPS)["mv"], theirs, atol=1e-5)
