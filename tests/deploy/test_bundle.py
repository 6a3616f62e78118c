"""From networks to a bundle: where it comes from, what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.bundle.reading import read_bundle
from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.config import InputSpec, facts_of
from edgepkd.deploy.bundle import Origin, write_trained
from edgepkd.deploy.gate import Parity
from edgepkd.deploy.segments import export_segments
from edgepkd.errors import BundleError
from edgepkd.models.macs import clip_gmac
from edgepkd.training.recipe import load_train_recipe
from tests.models.networks import small_network

RECIPE = load_train_recipe("small")


def origin(**changes: object) -> Origin:
    given = {"recipe": RECIPE, "quantization": None, "parity": Parity((), drifts=("drift",)),
             "run": {"seed": 3}, "clips": {"data": {"n": 2}}, **changes}
    return Origin(**given)  # type: ignore[arg-type]


def test_a_manifest_tells_its_origin_in_one_order() -> None:
    facts = origin().facts()
    assert list(facts)[-6:] == [
        "cpu_capability", "recipe", "seed", "quantization", "parity", "data"]
    assert list(origin(run={}).facts())[-5:] == [
        "cpu_capability", "recipe", "quantization", "parity", "data"]
    assert facts["recipe"] == facts_of(RECIPE)
    assert facts["parity"] == {
        "exits": [], "cascade": [], "doubts": [], "allowed_drift": ["drift"]}
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
