"""From networks to a bundle: what may drift, where it comes from, what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.bundle.reading import read_bundle
from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.config import MODALITIES, InputSpec, Modality, facts_of
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32
from edgepkd.deploy.bundle import Origin, Parity, checked_parity, write_trained
from edgepkd.deploy.segments import export_segments
from edgepkd.engines.targets import load_target
from edgepkd.errors import BundleError, ModelError
from edgepkd.models.macs import clip_gmac
from edgepkd.training.recipe import load_train_recipe
from tests.models.networks import small_network

TARGET = replace(load_target("openvino"), agreement_floor=0.9, float_agreement_floor=0.5)
RECIPE = load_train_recipe("small")


def answers(flipped: int = 0) -> dict[Modality, np.ndarray]:
    """Ten clips; `flipped` of them get the other label at exit 3 of mv."""
    logits = {m: np.tile([1.0, 0.0], (10, 4, 1)) for m in MODALITIES}
    logits["mv"][:flipped, 2] = [0.0, 1.0]
    return logits


def test_a_float_network_is_held_against_its_twin() -> None:
    found = checked_parity({DEPLOYED: answers(1), FP32: answers()}, [(DEPLOYED, FP32)],
                           target=TARGET, allow_drift=False)
    assert found.drifts == ()  # 90 % is allowed
    assert [row.agreement for row in found.rows[:4]] == [1, 1, 0.9, 1]
    with pytest.raises(ModelError, match="mv_3 of OpenVINO gives the label of torch FP32 for 80"):
        checked_parity({DEPLOYED: answers(2), FP32: answers()}, [(DEPLOYED, FP32)],
                       target=TARGET, allow_drift=False)


def test_an_int8_network_is_held_against_both_forms_it_came_from() -> None:
    pairs = [(DEPLOYED, FAKE_QUANT), (DEPLOYED, FP32)]

    def drifts(deployed: int, twin: int, pairs: list[tuple[str, str]] = pairs) -> list[str]:
        forms = {DEPLOYED: answers(deployed), FAKE_QUANT: answers(twin), FP32: answers()}
        found = checked_parity(forms, pairs, target=TARGET, allow_drift=True)
        return [text.split(" for ")[0] for text in found.drifts]

    assert drifts(5, 5) == []
    assert drifts(5, 3) == ["mv_3 of OpenVINO gives the label of torch INT8"]
    assert drifts(6, 6) == ["mv_3 of OpenVINO gives the label of torch FP32"]
    assert drifts(6, 6, pairs[:1]) == []  # the FP32 run is not there


def origin(**changes: object) -> Origin:
    given = {"recipe": RECIPE, "quantization": None, "parity": Parity((), ("drift",)),
             "run": {"seed": 3}, "clips": {"data": {"n": 2}}, **changes}
    return Origin(**given)  # type: ignore[arg-type]


def test_a_manifest_tells_its_origin_in_one_order() -> None:
    facts = origin().facts()
    assert list(facts)[-6:] == [
        "cpu_capability", "recipe", "seed", "quantization", "parity", "data"]
    assert list(origin(run={}).facts())[-5:] == [
        "cpu_capability", "recipe", "quantization", "parity", "data"]
    assert facts["recipe"] == facts_of(RECIPE)
    assert facts["parity"] == {"exits": [], "allowed_drift": ["drift"]}
    assert facts["packages"]["torch"]
    assert origin(quantization={"method": "qad"}).facts()["quantization"] == {"method": "qad"}


@pytest.mark.slow
def test_a_bundle_says_what_its_recipe_and_networks_are(tmp_path: Path) -> None:
    order: Order = ("mv",)
    inputs = {"mv": InputSpec("mv", num_segments=2, resize_px=32, crop_px=32)}
    networks = {"mv": small_network(num_classes=2)}
    policy = ExitPolicy.constant(order, threshold=0.75)
    path = tmp_path / "a.edgepkd"

    def write(**changes: bool) -> None:
        write_trained(path, origin(), name="tiny", labels=("a", "b"), inputs=inputs,
                      default_order=order, networks=networks, model_card="# A",
                      segments=export_segments(networks, inputs),
                      fitted={order: (WiseWeights.ones(order), policy)}, **changes)

    write()
    with pytest.raises(BundleError, match="exists already"):
        write(overwrite=False)
    bundle = read_bundle(path)
    manifest = bundle.manifest
    assert (manifest.name, manifest.labels) == ("tiny", ("a", "b"))
    assert (manifest.clip, manifest.decode) == (RECIPE.clip, RECIPE.decode)
    assert manifest.cascade.default_order == order
    assert manifest.provenance["seed"] == 3
    assert [(s.modality, s.exit, s.precision) for s in manifest.segments] == [
        ("mv", k, "fp32") for k in (1, 2, 3, 4)]
    assert [s.gmac for s in manifest.segments] == pytest.approx(
        [gmac / 2 for gmac in clip_gmac(networks, inputs)["mv"]])  # of a frame; a clip has two
    assert manifest.segments[3].features_shape is None
    assert bundle.policy["mv"].thresholds == policy.thresholds
    assert (path / "MODEL_CARD.md").read_text() == "# A"
