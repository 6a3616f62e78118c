"""Flatness of the trunks of a fold: measured on its training side, kept in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgepkd.config import MODALITIES
from edgepkd.errors import DataError
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.studies.exits.flatness import flatness_job, flatness_path, read_flatness
from edgepkd.studies.parts import TRUNK, load_clips
from edgepkd.studies.units import Unit
from edgepkd.training.flatness import epsilon_sharpness
from edgepkd.training.views import test_view as centre_view
from tests.models.networks import small_network
from tests.studies.tiny_parts import tiny_unit

pytestmark = pytest.mark.usefixtures("fake_clips")


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    unit = tiny_unit(tmp_path)
    for modality in MODALITIES:
        save_network(small_network(modality=modality, num_classes=2),
                     unit.part.network_path(modality, TRUNK))
    return unit


@pytest.mark.slow
def test_it_is_that_of_the_trunks_on_their_own_clips(unit: Unit) -> None:
    assert flatness_job(unit, num_clips=9, num_probes=2) == "small trunk1-fold0: flatness"
    found = read_flatness(unit)
    assert tuple(found) == MODALITIES
    assert found["mv"]["backbone"] == "resnet18"
    assert found["mv"]["trace_per_parameter"] == pytest.approx(
        found["mv"]["trace"]["mean"] / found["mv"]["trace"]["num_parameters"])
    network, _ = load_network(unit.part.network_path("mv", TRUNK))
    data = load_clips(unit.part, unit.part.fit)  # four clips, in batches of three
    views = [centre_view(clip, unit.part.recipe.inputs["mv"]) for clip in data.clips]
    labels = torch.tensor(data.labels)
    own = epsilon_sharpness(network, [(torch.stack(views[:3]), labels[:3]),
                                      (torch.stack(views[3:]), labels[3:])])
    assert found["mv"]["sharpness"]["value"] == pytest.approx(own.value, rel=1e-3)


@pytest.mark.slow
def test_it_is_measured_again_where_settings_or_trunks_are_others(unit: Unit) -> None:
    flatness_job(unit, num_clips=2, num_probes=2)
    assert flatness_job(unit, num_clips=2, num_probes=2).endswith("kept from an earlier run")
    assert flatness_job(unit, num_clips=3, num_probes=2).endswith("flatness")
    flatness_path(unit).write_text("{")
    assert flatness_job(unit, num_clips=3, num_probes=2).endswith("flatness")
    network = small_network(num_classes=2)
    network.segments[0].trunk.conv1.weight.data += 0.1  # type: ignore[union-attr,operator]
    save_network(network, unit.part.network_path("mv", TRUNK))
    assert flatness_job(unit, num_clips=3, num_probes=2).endswith("flatness")


def test_what_was_never_measured_is_an_error_with_a_way_on(unit: Unit) -> None:
    with pytest.raises(DataError, match=r"flatness\.json cannot be read.*--report-only"):
        read_flatness(unit)
