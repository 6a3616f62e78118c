"""Logits of clips: the views of the device, averaged; what cannot be answered is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Modality
from edgepkd.datasets.index import Sample
from edgepkd.errors import DataError, ModelError, UsageError
from edgepkd.models.checkpoint import save_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.backbone import clip_logits
from edgepkd.training.cache import CacheSpec, cached_clip
from edgepkd.training.predict import Predicted, predict, views_protocol, weights_sha256
from edgepkd.training.views import test_view as view_for_test
from edgepkd.video import transforms
from tests.clips import encode_clip, translating_texture
from tests.models.networks import small_network

LABELS = ("left", "none", "right")
MODALITIES: tuple[Modality, ...] = ("mv", "residual")
SPEC = CacheSpec(
    clip=ClipSpec(clip_frames=60), decode=DecodeSpec(),
    inputs={m: InputSpec(m, num_segments=3, resize_px=40, crop_px=32) for m in MODALITIES},
)
VIEWS = views_protocol(SPEC.inputs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def samples(folder: Path) -> tuple[Sample, ...]:
    made = []
    for name, speed in (("left", -2), ("right", 2)):
        path = encode_clip(folder / f"{name}.mp4", translating_texture(20, (128, 96), (speed, 0)))
        made.append(Sample(path, name, f"g_{name}", "test"))
    return tuple(made)


@pytest.fixture(scope="module")
def networks() -> dict[Modality, SegmentedNetwork]:
    return {m: small_network(modality=m, num_classes=len(LABELS)) for m in MODALITIES}


def answer(
    networks: dict[Modality, SegmentedNetwork], samples: tuple[Sample, ...], folder: Path,
    **settings: object,
) -> Predicted:
    given = {"views": VIEWS, "spec": SPEC, "labels": LABELS, "split": "test", **settings}
    return predict(networks, samples, folder=folder / "cache", root=folder,
                   **given)  # type: ignore[arg-type]


def test_the_default_views_are_those_of_the_device(
    networks: dict[Modality, SegmentedNetwork], samples: tuple[Sample, ...], folder: Path
) -> None:
    answered = answer(networks, samples, folder).answered
    clips = [cached_clip(s, spec=SPEC, folder=folder / "cache") for s in samples]
    for modality, network in networks.items():
        expected = clip_logits(network, clips, spec=SPEC.inputs[modality]).numpy()
        np.testing.assert_allclose(answered.logits[modality], expected, rtol=1e-5, atol=1e-5)
    assert answered.labels.tolist() == [0, 2]
    assert answered.groups == ("g_left", "g_right")
    assert answered.paths == ("left.mp4", "right.mp4")
    assert not np.allclose(*answered.logits["mv"])


def test_other_numbers_of_segments_are_those_of_such_a_recipe(
    networks: dict[Modality, SegmentedNetwork], samples: tuple[Sample, ...], folder: Path
) -> None:
    views = views_protocol(SPEC.inputs, segments={"residual": 5, "mv": 7})
    answered = answer(networks, samples, folder, views=views).answered
    assert str(answered.views) == "segments mv 7, residual 5; 1 crop"
    for modality, count in (("mv", 7), ("residual", 5)):
        inputs = {**SPEC.inputs, modality: replace(SPEC.inputs[modality], num_segments=count)}
        clip = cached_clip(samples[0], spec=replace(SPEC, inputs=inputs), folder=folder / "other")
        with torch.no_grad():
            exits = networks[modality](view_for_test(clip, inputs[modality]))
        expected = torch.stack(exits).mean(1).numpy()
        np.testing.assert_allclose(answered.logits[modality][0], expected, rtol=1e-5, atol=1e-5)


def test_ten_crops_are_averaged(
    networks: dict[Modality, SegmentedNetwork], samples: tuple[Sample, ...], folder: Path
) -> None:
    views = views_protocol(SPEC.inputs, crops=10)
    answered = answer(networks, samples[:1], folder, views=views).answered
    assert str(answered.views).endswith("10 crops")
    clip = cached_clip(samples[0], spec=SPEC, folder=folder / "cache")
    rows = []
    for geometry in transforms.ten_crop(resize_px=40, crop_px=32):
        x = torch.from_numpy(clip.tensor("mv", clip.test_places["mv"], geometry, crop_px=32))
        with torch.no_grad():
            rows.append(torch.stack(networks["mv"](x)).mean(1).numpy())
    np.testing.assert_allclose(answered.logits["mv"][0], np.mean(rows, axis=0), rtol=1e-5,
                               atol=1e-5)
    assert not np.allclose(rows[0], rows[1])


def test_the_hash_is_that_of_the_file(
    networks: dict[Modality, SegmentedNetwork], samples: tuple[Sample, ...], folder: Path,
    tmp_path: Path,
) -> None:
    import hashlib

    save_network(networks["mv"], tmp_path / "mv")
    on_disk = hashlib.sha256((tmp_path / "mv.safetensors").read_bytes()).hexdigest()
    assert answer(networks, samples[:1], folder).answered.weights_sha256["mv"] == on_disk
    assert weights_sha256(networks["residual"]) != on_disk


def test_an_unreadable_clip_is_listed_and_left_out(
    networks: dict[Modality, SegmentedNetwork], samples: tuple[Sample, ...], folder: Path,
    tmp_path: Path,
) -> None:
    broken = Sample(tmp_path / "broken.mp4", "left", "g", "test")
    broken.path.write_bytes(b"no video")
    seen: list[None] = []
    predicted = answer(networks, (broken, *samples), folder, on_clip=lambda: seen.append(None))
    assert [clip.path for clip in predicted.skipped] == [str(broken.path)]
    assert predicted.skipped[0].reason
    assert len(predicted.answered) == 2
    assert len(seen) == 3
    with pytest.raises(DataError, match=r"none of 1 clips can be read; the first: .*broken\.mp4"):
        answer(networks, (broken,), folder)


def test_logits_that_are_not_finite_name_modality_and_exit(
    samples: tuple[Sample, ...], folder: Path
) -> None:
    network = small_network(modality="residual", num_classes=3)
    with torch.no_grad():
        network.heads[1].fc.bias[0] = float("nan")
    with pytest.raises(ModelError, match=r"logits of residual exit 2 are not finite for .*left"):
        answer({"residual": network}, samples, folder)


def test_what_does_not_fit_is_refused(
    networks: dict[Modality, SegmentedNetwork], samples: tuple[Sample, ...], folder: Path
) -> None:
    with pytest.raises(ModelError, match="given for iframe was made for mv"):
        answer({"iframe": networks["mv"]}, samples, folder)
    with pytest.raises(ModelError, match="for mv has 3 classes; there are 2 labels"):
        answer(networks, samples, folder, labels=("left", "right"))
    with pytest.raises(DataError, match="labelled left, which the networks do not know"):
        answer(networks, samples, folder, labels=("a", "none", "right"))
    with pytest.raises(DataError, match="no clip to answer"):
        answer(networks, (), folder)


@pytest.mark.parametrize("crops", [1, 10])
def test_a_network_of_stacked_fields_answers_in_one_pass(
    samples: tuple[Sample, ...], folder: Path, crops: int
) -> None:
    network = small_network(modality="mv", num_classes=len(LABELS), frames_per_pass=3)
    inputs = {"mv": replace(SPEC.inputs["mv"], stack=True)}
    spec, views = replace(SPEC, inputs=inputs), views_protocol(inputs, crops=crops)
    answered = answer({"mv": network}, samples, folder, spec=spec, views=views).answered
    assert answered.views.segments == {"mv": 3}
    clip = cached_clip(samples[0], spec=SPEC, folder=folder / "cache")
    geometries = [transforms.centre_crop(resize_px=40, crop_px=32)] if crops == 1 \
        else transforms.ten_crop(resize_px=40, crop_px=32)
    rows = []
    for geometry in geometries:
        fields = clip.tensor("mv", clip.test_places["mv"], geometry, crop_px=32)
        with torch.no_grad():
            rows.append(torch.stack(network(torch.from_numpy(fields).flatten(0, 1)[None]))[:, 0])
    expected = torch.stack(rows).mean(0).numpy()
    np.testing.assert_allclose(answered.logits["mv"][0], expected, rtol=1e-5, atol=1e-5)


def test_stacked_fields_cannot_be_more_or_fewer(
    samples: tuple[Sample, ...], folder: Path
) -> None:
    network = small_network(modality="mv", num_classes=len(LABELS), frames_per_pass=3)
    views = views_protocol(SPEC.inputs, segments={"mv": 6})
    with pytest.raises(UsageError, match=r"segments of mv is 6; allowed: 3") as caught:
        answer({"mv": network}, samples, folder, views=views)
    assert "--segments" in str(caught.value.hint)
