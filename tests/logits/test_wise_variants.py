"""WISE variants change one factor each, and the device runs them; orders; comparison tables."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.cascade import (
    Cascade,
    ExitPolicy,
    Floats,
    Labels,
    Order,
    WiseWeights,
    confidence,
    prefix_logits,
    replay,
    softmax,
)
from edgepkd.config import MODALITIES, Modality
from edgepkd.errors import ConfigError
from edgepkd.logits import wise as module
from edgepkd.logits.wise import (
    ENSEMBLES,
    MIN_SCALE,
    Convex,
    PaperSgd,
    WiseVariant,
    all_orders,
    ensembles,
    fit,
    fit_orders,
    fit_vector,
    in_order,
)

ORDER: Order = ("mv",)
LONG: Order = ("residual", "mv", "iframe")
BOTH = pytest.mark.parametrize("method", [Convex(), PaperSgd(num_steps=20)], ids=["convex", "sgd"])


@pytest.fixture(scope="module")
def three_networks() -> tuple[dict[Modality, Floats], Labels]:
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 3, 60)
    logits = {
        modality: np.eye(3)[labels][:, None] * worth + rng.normal(size=(60, 4, 3))
        for modality, worth in zip(MODALITIES, (0.5, 1.0, 1.5), strict=True)
    }
    return logits, labels


@BOTH
def test_no_scaling_is_a_plain_sum(
    three_networks: tuple[dict[Modality, Floats], Labels], method: module.Method
) -> None:
    logits, labels = in_order(three_networks[0], LONG), three_networks[1]
    weights = fit(logits, labels, order=LONG, method=method, variant=WiseVariant(scaling=False))
    assert weights == WiseWeights.ones(LONG)


@BOTH
def test_no_lateral_answers_with_each_exit_alone(
    three_networks: tuple[dict[Modality, Floats], Labels], method: module.Method
) -> None:
    logits, labels = in_order(three_networks[0], LONG), three_networks[1]
    for scaling in (True, False):
        weights = fit(logits, labels, order=LONG, method=method,
                      variant=WiseVariant(lateral=False, scaling=scaling))
        matrix = weights.matrix()
        assert (np.diag(matrix) > 0).all()
        np.testing.assert_array_equal(matrix, np.diag(np.diag(matrix)))  # the last row as well
        answers = prefix_logits(logits, weights).argmax(axis=2)
        np.testing.assert_array_equal(answers, logits.argmax(axis=2))
        if not scaling:
            assert (np.diag(matrix) == 1).all()


def test_no_lateral_fits_a_scale_for_each_exit(
    three_networks: tuple[dict[Modality, Floats], Labels]
) -> None:
    logits, labels = in_order(three_networks[0], LONG), three_networks[1]
    weights = fit(logits, labels, order=LONG, method=Convex(),
                  variant=WiseVariant(lateral=False))
    own = [fit_vector(logits[:, k : k + 1], labels, l2=0.01)[0] for k in range(12)]
    np.testing.assert_array_equal(np.diag(weights.matrix()), own)
    assert len(set(own)) == 12


def test_a_worthless_exit_alone_keeps_its_answer() -> None:
    labels = np.arange(30) % 2
    logits = np.tile(np.where(labels == 1, 1.0, -1.0)[:, None, None] * [1.0, -1.0], (1, 4, 1))
    weights = fit(logits, labels, order=ORDER, method=Convex(),
                  variant=WiseVariant(lateral=False))  # always wrong: the best scale is 0
    assert [row[-1] for row in weights.vectors] == [MIN_SCALE] * 4
    answers = prefix_logits(logits, weights).argmax(axis=2)
    np.testing.assert_array_equal(answers, logits.argmax(axis=2))


@BOTH
@pytest.mark.parametrize("scaling", [True, False])
def test_division_keeps_answers_and_lowers_confidences(
    three_networks: tuple[dict[Modality, Floats], Labels], method: module.Method, scaling: bool
) -> None:
    logits, labels = in_order(three_networks[0], LONG), three_networks[1]
    plain, divided = (
        fit(logits, labels, order=LONG, method=method,
            variant=WiseVariant(scaling=scaling, division=division)) for division in (False, True)
    )
    counts = np.arange(1, 13)[:, None]
    np.testing.assert_allclose(divided.matrix() * counts, plain.matrix(), rtol=1e-14)
    before, after = (softmax(prefix_logits(logits, weights)) for weights in (plain, divided))
    np.testing.assert_array_equal(before.argmax(axis=2), after.argmax(axis=2))
    assert (confidence(after)[:, 1:] < confidence(before)[:, 1:]).all()


def test_division_without_lateral_divides_by_one(
    three_networks: tuple[dict[Modality, Floats], Labels]
) -> None:
    logits, labels = in_order(three_networks[0], LONG), three_networks[1]
    one, other = (
        fit(logits, labels, order=LONG, method=Convex(),
            variant=WiseVariant(lateral=False, division=division)) for division in (False, True)
    )
    assert one == other


@pytest.mark.slow
def test_the_device_runs_every_variant_as_it_is(
    three_networks: tuple[dict[Modality, Floats], Labels]
) -> None:
    logits, labels = in_order(three_networks[0], LONG), three_networks[1]
    for name, weights in ensembles(logits, labels, order=LONG).items():
        policy = ExitPolicy.constant(LONG, threshold=0.9)
        expected = replay(logits, weights, policy)
        cascade = Cascade(weights, policy)
        for clip in range(5):
            cascade.reset()
            for own in logits[clip]:
                decision = cascade.push(own)
                if decision.exit:
                    break
            assert decision.label_index == expected.labels[clip], name
            assert cascade.num_pushed == expected.exits[clip], name


# ---- orders and tables


def test_orders_are_all_permutations_of_all_subsets() -> None:
    orders = all_orders()
    assert len(orders) == len(set(orders)) == 15
    logits = {"mv": np.zeros((2, 4, 3)), "iframe": np.ones((2, 4, 3))}
    stacked = in_order(logits, ("iframe", "mv"))  # type: ignore[arg-type]
    assert stacked.shape == (2, 8, 3)
    assert stacked[:, :4].all()
    assert not stacked[:, 4:].any()


@pytest.mark.slow
def test_all_orders_share_prefixes_and_equal_single_fits(
    three_networks: tuple[dict[Modality, Floats], Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, labels = three_networks
    calls = []
    fit_one = module.fit_prefix
    monkeypatch.setattr(module, "fit_prefix",
                        lambda *data, **how: calls.append(1) or fit_one(*data, **how))
    fitted = fit_orders(logits, labels, orders=all_orders(), method=Convex())
    assert len(calls) == 60
    assert list(fitted) == list(all_orders())
    for order in (("iframe", "mv"), ("residual", "mv", "iframe"), ("mv",)):
        assert fitted[order] == fit(in_order(logits, order), labels, order=order,
                                    method=Convex())


def test_orders_of_some_modalities() -> None:
    assert all_orders(("mv", "iframe")) == (
        ("mv",), ("iframe",), ("mv", "iframe"), ("iframe", "mv"))


@pytest.mark.slow
def test_ensembles_are_what_their_names_say(
    three_networks: tuple[dict[Modality, Floats], Labels]
) -> None:
    logits, labels = in_order(three_networks[0], LONG), three_networks[1]
    table = ensembles(logits, labels, order=LONG)
    assert list(table) == list(ENSEMBLES) == [
        "wise", "wise_paper", "plain_sum", "mean", "no_lateral"]
    assert table["wise"] == fit(logits, labels, order=LONG, method=Convex())
    assert table["wise_paper"] == fit(logits, labels, order=LONG, method=PaperSgd())
    assert table["plain_sum"] == WiseWeights.ones(LONG)
    np.testing.assert_allclose(
        prefix_logits(logits, table["mean"])[:, -1], logits.mean(axis=1), atol=1e-12)
    np.testing.assert_array_equal(
        prefix_logits(logits, table["no_lateral"]).argmax(axis=2), logits.argmax(axis=2))
    assert list(ensembles(logits, labels, order=LONG, names=("mean",))) == ["mean"]
    with pytest.raises(ConfigError, match=r"ensembles is .*'best'.*allowed: wise, wise_paper"):
        ensembles(logits, labels, order=LONG, names=("best",))
