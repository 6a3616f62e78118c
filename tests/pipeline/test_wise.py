"""`wise fit` as a function: what it writes, what it refuses, what it remarks on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepkd.bundle.reading import read_bundle
from edgepkd.cascade import ExitPolicy, WiseWeights, prefix_logits, replay
from edgepkd.errors import ConfigError, DataError, UsageError
from edgepkd.logits.clip_logits import save_logits
from edgepkd.logits.fit import WiseRecipe, fit_deployed
from edgepkd.logits.fit_files import read_fitted
from edgepkd.logits.policy import fit_policy
from edgepkd.logits.wise import Convex, fit_orders, in_order
from edgepkd.models.checkpoint import save_network
from edgepkd.pipeline.wise import WiseFitConfig, WiseFitResult, fit_wise_file
from edgepkd.training.predict import weights_sha256
from tests.logits.made_logits import NAMES, make_logits
from tests.models.networks import small_network
from tests.runtime.bundles import make_bundle

Fit = Callable[..., WiseFitResult]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Save logits (changed as asked) and fit on them."""
    def run(*, changes: dict[str, Any] | None = None, **settings: Any) -> WiseFitResult:
        save_logits(make_logits(**(changes or {})), tmp_path / "calibration.npz")
        return fit_wise_file(WiseFitConfig(
            **{"logits": tmp_path / "calibration.npz", "out": tmp_path / "run", "order": "mv",
               "force": True, **settings}))
    return run


# ---- what is written


def test_files_hold_the_fit_of_every_order(fit: Fit) -> None:
    result = fit(order="all")
    fitted, _ = read_fitted(result.out)
    assert len(fitted) == len(result.orders) == 15
    data = make_logits()
    expected = fit_deployed(data.logits, data.labels, groups=data.groups, settings=WiseRecipe(),
                            orders=[("mv",), ("residual", "iframe"), ("iframe", "mv", "residual")])
    for order, fit_of_order in expected.items():
        assert fitted[order] == fit_of_order


def test_a_method_that_is_named_is_taken_with_a_policy_for_held_out_answers(fit: Fit) -> None:
    result = fit(l2=0.01, order="mv,iframe")
    data, order = make_logits(), ("mv", "iframe")
    weights = fit_orders(data.logits, data.labels, orders=[order], method=Convex(l2=0.01))[order]
    fitted = result.orders[0]
    assert (fitted.weights, fitted.choice.taken.kind) == (weights, "wise")
    assert result.facts["take"] == "wise"
    seen = fit_policy(in_order(data.logits, order), data.labels, weights=weights,
                      accuracy_loss=0.01, min_confidence=0.8, safety_clips=2)
    assert fitted.policy.temperatures[:4] == pytest.approx(seen.temperatures[:4], rel=0.3)
    assert fitted.policy.temperatures[3] > 1.1 * seen.temperatures[3]  # less sure of new clips


# ---- what is taken, and what is refused


LOUD = make_logits(num_clips=60).logits
LOUD = {**LOUD, "iframe": 9 * np.random.default_rng(5).normal(size=(60, 4, 3))}
"""Two networks that know something, and a loud one at chance."""


def test_the_record_compares_what_was_not_taken(fit: Fit) -> None:
    result = fit(changes={"logits": LOUD}, order="mv,iframe")
    _, record = read_fitted(result.out)
    of = record["orders"]["mv,iframe"]
    assert of["taken"] != "sums"
    assert [row["position"] for row in of["held_out"]] == ["mv_4", "iframe_4"]
    last = of["held_out"][-1]["scores"]
    assert last[of["taken"]]["accuracy"] > last["sums"]["accuracy"] + 0.2
    assert f"{100 * last['sums']['accuracy']:.1f} % of plain sums" in of["why"]
    assert record["num_groups"] == 5
    assert record["classes_missing"] == []


def test_few_clips_are_summed(fit: Fit) -> None:
    result = fit(changes={"num_clips": 30}, order="mv,iframe")
    assert result.orders[0].weights == WiseWeights.ones(("mv", "iframe"))
    assert "30 clips of at least 40" in result.orders[0].choice.why


def test_a_cascade_below_its_best_exit_is_refused_with_what_helps(fit: Fit) -> None:
    refused(fit, r"the cascade mv,iframe is right .* points less often than its best exit alone"
                 r" .*--take auto", changes={"logits": LOUD}, order="mv,iframe",
            take="sums", policy=False)


def test_of_all_orders_those_below_their_best_exit_are_left_out(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"recipe": {"default_order": ["residual", "mv"]}}')
    two = {"logits": {m: LOUD[m] for m in ("residual", "iframe")},
           "weights_sha256": dict.fromkeys(("residual", "iframe"), "a" * 64)}
    result = fit(changes=two, order="all", take="sums", policy=False)
    assert result.orders[0].order == ("residual",)  # of the run's order, what the file holds
    assert ("residual", "iframe") not in read_fitted(result.out)[0]
    assert any(note.startswith("left out: the cascade residual,iframe") for note in result.notes)


def test_a_constant_answer_is_refused(fit: Fit, tmp_path: Path) -> None:
    refused(fit, r"the full chain mv answers 'bend' for 100.0 % of 60 clips, of which 33.3 % are;"
                 r" allowed: less than 95 %.*wise fit .*--take auto", l1=50.0)
    assert not (tmp_path / "run").exists()


def test_the_longest_orders_come_first(fit: Fit) -> None:
    lengths = [len(fitted.order) for fitted in fit(order="all").orders]
    assert lengths == sorted(lengths, reverse=True)


def test_a_bundle_takes_the_files_as_they_are(fit: Fit, tmp_path: Path) -> None:
    result = fit(order="all")
    bundle = make_bundle(tmp_path).path
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in ("wise.json", "policy.json"):
        content = (result.out / name).read_bytes()
        (bundle / name).write_bytes(content)
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(),
                                   "bytes": len(content)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    read = read_bundle(bundle)
    assert len(read.wise) == len(read.policy) == 15
    fitted = next(f for f in result.orders if f.order == ("residual", "mv"))
    assert read.wise["residual,mv"] == fitted.weights.vectors
    assert read.policy["residual,mv"].thresholds == fitted.policy.thresholds


def test_the_record_says_how(fit: Fit, tmp_path: Path) -> None:
    result = fit(l1=0.02, non_negative=False, order="mv,iframe", accuracy_loss=0.05)
    _, record = read_fitted(result.out)
    assert record["method"] == "convex"
    assert record["settings"] == {"l1": 0.02, "l2": 0.01, "non_negative": False}
    assert record["variant"] == {
        "name": "full", "scaling": True, "lateral": True, "division": False}
    assert record["policy"] == {"accuracy_loss": 0.05, "min_confidence": 0.8, "safety_clips": 2}
    assert record["num_clips"] == 60
    assert record["clips_per_label"] == dict.fromkeys(NAMES, 20)
    assert record["split"] == "calibration"
    assert record["weights_sha256"] == dict(make_logits().weights_sha256)
    content = (tmp_path / "calibration.npz").read_bytes()
    assert record["logits_sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.slow
def test_the_same_logits_give_the_same_files(fit: Fit) -> None:
    first = fit(order="all")
    contents = {path.name: path.read_bytes() for path in first.out.iterdir()}
    second = fit(order="all")
    assert {path.name: path.read_bytes() for path in second.out.iterdir()} == contents


def test_rows_are_what_the_device_would_answer(fit: Fit) -> None:
    result = fit(order="mv,iframe", l2=0.01)
    data = make_logits()
    logits = in_order(data.logits, ("mv", "iframe"))
    fitted = result.orders[0]
    for k, row in enumerate(fitted.rows):
        z = prefix_logits(logits, fitted.weights)[:, k]
        answers = replay(logits, fitted.weights,
                         ExitPolicy.constant(fitted.order, threshold=1.0), max_exit=k + 1)
        assert row.ensemble.num_right == (answers.labels == data.labels).sum()
        assert row.alone.num_right == (logits[:, k].argmax(1) == data.labels).sum()
        plain = logits[:, : k + 1].sum(axis=1).argmax(axis=1)
        assert row.plain_sum.num_right == (plain == data.labels).sum()
        own = z[np.arange(60), data.labels]
        assert row.loss == pytest.approx(np.mean(np.log(np.exp(z).sum(axis=1)) - own))
        assert row.kkt is not None
        assert row.kkt < 1e-6
    assert [row.position for row in fitted.rows[3:5]] == ["mv_4", "iframe_1"]


def test_without_a_policy_nothing_exits_early(fit: Fit) -> None:
    result = fit(policy=False)
    (_, policy), = read_fitted(result.out)[0].values()
    assert policy == ExitPolicy.constant(("mv",), threshold=1.0)
    assert result.facts["policy"] is None


@pytest.mark.slow
def test_a_second_fit_replaces_the_first_whole(fit: Fit) -> None:
    fit(order="all")
    result = fit(variant="no-scaling")
    fitted, record = read_fitted(result.out)
    assert {order: weights for order, (weights, _) in fitted.items()} == {
        ("mv",): WiseWeights.ones(("mv",))}
    assert record["variant"]["name"] == "no-scaling"


def test_a_fit_that_is_there_is_replaced_only_with_force(fit: Fit) -> None:
    first = fit(force=False)
    before = {path: path.read_bytes() for path in first.out.iterdir()}
    for name in list(before):
        name.rename(name.with_suffix(".away"))
        with pytest.raises(UsageError, match="is there already; it is not overwritten"):
            fit(force=False, variant="no-scaling")
        name.with_suffix(".away").rename(name)
    assert {path: path.read_bytes() for path in first.out.iterdir()} == before


def test_the_weights_of_a_bundle_are_never_replaced(fit: Fit, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    before = (bundle.path / "wise.json").read_bytes()
    for out in (bundle.path, bundle.path / "new"):
        with pytest.raises(UsageError, match="lies in the bundle"):
            fit(out=out)
    assert (bundle.path / "wise.json").read_bytes() == before
    assert not (bundle.path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["full", "no-scaling", "no-lateral", "division"])
@pytest.mark.parametrize("method", ["convex", "paper"])
def test_every_method_fits_every_variant(fit: Fit, method: str, variant: str) -> None:
    result = fit(method=method, variant=variant)
    assert result.facts["settings"] == (
        {"l1": 0.0, "l2": 0.01, "non_negative": True} if method == "convex" else
        {"learning_rate": 0.1, "num_steps": 500, "l1": 0.1, "free_length": 5})
    raw = method == "paper" or variant == "no-scaling"
    assert (result.orders[0].weights.vectors[0] == (1.0,)) == raw


def test_a_file_of_two_networks_gives_the_orders_of_two(fit: Fit) -> None:
    data = make_logits()
    two = {"logits": {m: data.logits[m] for m in ("mv", "iframe")},
           "weights_sha256": {m: data.weights_sha256[m] for m in ("mv", "iframe")}}
    assert {fitted.order for fitted in fit(changes=two, order="all").orders} == {
        ("mv",), ("iframe",), ("mv", "iframe"), ("iframe", "mv")}
    with pytest.raises(UsageError, match=r"has none of residual; allowed: orders of mv, iframe"):
        fit(changes=two, order="mv,residual")


# ---- what is refused: nothing is written then


def refused(fit: Fit, match: str, error: type[Exception] = DataError, **settings: Any) -> None:
    with pytest.raises(error, match=match):
        fit(**settings)


def test_logits_of_the_test_split_are_refused_unless_asked_for(fit: Fit, tmp_path: Path) -> None:
    refused(fit, r"logits are of the test split.*--allow-test", changes={"split": "test"})
    assert not (tmp_path / "run").exists()
    notes = fit(changes={"split": "test"}, allow_test=True).notes
    assert any("fitted on the test split" in note for note in notes)


def test_logits_that_are_not_finite_are_refused(fit: Fit, tmp_path: Path) -> None:
    logits = {m: x.copy() for m, x in make_logits().logits.items()}
    logits["iframe"][[7, 9], 2, 1] = np.nan, np.inf
    refused(fit, r"logits of iframe_3 for clip7.mp4 are not finite \(2 clips in all\)",
            changes={"logits": logits}, order="all")
    assert not (tmp_path / "run").exists()
    fit(changes={"logits": logits}, order="mv")  # the broken network takes no part


def test_logits_of_other_networks_are_refused(fit: Fit, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "mv.json").write_text(json.dumps({"weights_sha256": "m" * 64}))
    assert fit().facts["networks_compared"] == ["mv"]
    written = {path.name: path.read_bytes() for path in run.iterdir()}
    (run / "iframe.json").write_text(json.dumps({"weights_sha256": "f" * 64}))
    refused(fit, r"logits of iframe come from weights iiii.*iframe.json holds ffff")
    (run / "iframe.json").unlink()
    assert {path.name: path.read_bytes() for path in run.iterdir()} == written


def test_a_saved_network_is_told_from_one_trained_further(fit: Fit, tmp_path: Path) -> None:
    network = small_network()
    save_network(network, tmp_path / "run" / "mv")
    hashes = {**make_logits().weights_sha256, "mv": weights_sha256(network)}
    assert fit(changes={"weights_sha256": hashes}).facts["networks_compared"] == ["mv"]
    next(network.parameters()).data.add_(1e-6)
    save_network(network, tmp_path / "run" / "mv")
    refused(fit, "logits of mv come from weights", changes={"weights_sha256": hashes})


@pytest.mark.parametrize(("settings", "match"), [
    ({"method": "adam"}, "method is 'adam'; allowed: convex, paper"),
    ({"variant": "both"}, "variant is 'both'; allowed: full, no-scaling, no-lateral, division"),
    ({"method": "paper", "l1": 0.1}, "l1 is 0.1; allowed: nothing with method paper"),
    ({"method": "paper", "non_negative": True}, "non_negative is True; allowed: nothing with"),
    ({"variant": "no-scaling", "l2": 1.0}, "l2 is 1.0; allowed: nothing with variant no-scaling"),
    ({"l2": -1.0}, "l2 is -1.0; allowed: 0 or more"),
    ({"accuracy_loss": 1.5}, "accuracy_loss is 1.5"),
    ({"take": "both"}, "take is 'both'; allowed: auto, wise, sums"),
    ({"take": "sums", "l2": 0.1}, "take is 'sums'; allowed: wise where method, variant, l1"),
    ({"out": None}, "is no folder of a run, and no --out was named"),
    ({"order": "mv,mv"}, "order is 'mv,mv'"),
])
def test_settings_out_of_range_are_refused(fit: Fit, settings: dict[str, Any], match: str) -> None:
    refused(fit, match, UsageError, **settings)


def test_settings_are_checked_before_any_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="l1"):
        WiseFitConfig(logits=tmp_path / "none.npz", out=tmp_path, l1=-1.0)


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    config = WiseFitConfig(logits=tmp_path / "a.npz", out=tmp_path / "run")
    with pytest.raises(DataError, match="there is no logits file"):
        fit_wise_file(config)
    (tmp_path / "a.npz").write_bytes(b"not a file of logits")
    with pytest.raises(DataError, match="or damaged"):
        fit_wise_file(config)
    assert os.listdir(tmp_path) == ["a.npz"]


# ---- what is remarked on


def test_a_plain_fit_needs_no_remark(fit: Fit) -> None:
    assert fit().notes == ()


@pytest.mark.parametrize(("settings", "note"), [
    ({"changes": {"num_clips": 9}, "order": "mv,residual,iframe"}, "9 clips for vectors of up to"),
    ({"changes": {"labels": np.arange(60) % 2}}, "no clip of walk"),
    ({"changes": {"split": "train"}}, "of the training split"),
    ({"l1": 0.4, "order": "mv"}, "all weights are 0 at mv_1"),
    ({"variant": "no-lateral"}, "the last exit, too, decides alone"),
    ({"variant": "division"}, "the fitted temperatures undo it"),
])
def test_doubtful_fits_are_remarked_on(fit: Fit, settings: dict[str, Any], note: str) -> None:
    notes = fit(**settings).notes
    assert len([text for text in notes if note in text]) == 1, notes


def test_separated_clips_without_a_pull_have_no_optimum(fit: Fit) -> None:
    labels = np.arange(60) % 3
    logits = {"mv": np.tile(np.eye(3)[labels][:, None], (1, 4, 1))}
    perfect = {"logits": logits, "weights_sha256": {"mv": "m" * 64}}
    assert any("no finite optimum" in note for note in fit(changes=perfect, l2=0.0).notes)
    assert fit(changes=perfect).notes == ()
