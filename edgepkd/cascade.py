"""The cascade: order of segments, WISE prefix ensemble, exit decision.

numpy only, so that training and device run the same code. With z_k the combined logits at the
k-th position of the cascade, logits_j the exit's own ones and C classes (paper.md 4.1):

    z_k = sum_{j<=k} w_kj logits_j          p_k = softmax(z_k / temperature_k)
    exit at k when max p_k > threshold_k, or when k is the last position allowed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgepkd.config import MODALITIES, NUM_EXITS, Modality, check
from edgepkd.errors import ModelError, UsageError

Order = tuple[Modality, ...]
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Position:
    """One place to answer: exit `exit` (1..4) of the network of `modality`."""

    modality: Modality
    exit: int

    def __str__(self) -> str:
        return f"{self.modality}_{self.exit}"


def parse_order(text: str) -> Order:
    """Order written as `mv,residual,iframe`: any permutation of one or more modalities.

    Raises:
        UsageError: an unknown or repeated modality, or none.
    """
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(MODALITIES) or len(set(names)) != len(names):
        raise UsageError(
            f"order is {text!r}; allowed: each of {', '.join(MODALITIES)} at most once,"
            " separated by commas, at least one.",
            hint="Example: --order mv,residual,iframe",
        )
    return cast(Order, names)


def order_key(order: Order) -> str:
    """Name of `order` in wise.json and policy.json."""
    return ",".join(order)


def positions(order: Order) -> tuple[Position, ...]:
    """Places to answer, in the order in which they are reached: 4 for each modality."""
    parse_order(order_key(order))
    return tuple(Position(modality, k) for modality in order for k in range(1, NUM_EXITS + 1))


def for_order(table: Mapping[str, _T], order: Order, *, what: str) -> _T:
    """Entry of `table` fitted for exactly `order`; `what` names the table in the error.

    Raises:
        UsageError: nothing was fitted for this order; the message lists the orders that were.
    """
    key = order_key(order)
    if key not in table:
        raise UsageError(
            f"{what} for the order {key!r}: not in this bundle;"
            f" available: {'; '.join(sorted(table)) or 'none'}.",
            hint="Choose one of these with --order, or fit this order and write the bundle again.",
        )
    return table[key]


def combine(logits: ArrayLike, weights: ArrayLike) -> Floats:
    """Prefix ensemble z_k [C] of `logits` [k, C] under `weights` [k], in float64."""
    combined: Floats = np.asarray(weights, np.float64) @ np.asarray(logits, np.float64)
    return combined


def softmax(logits: ArrayLike, *, temperature: float = 1.0) -> Floats:
    """Probabilities over the last axis of `logits` / `temperature`, in float64."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def confidence(probabilities: ArrayLike) -> Floats:
    """Largest probability over the last axis; what is held against the threshold."""
    largest: Floats = np.max(np.asarray(probabilities, np.float64), axis=-1)
    return largest


@dataclass(frozen=True)
class WiseWeights:
    """WISE weights of one order: a vector of length k for the k-th position."""

    order: Order
    vectors: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        expected = tuple(range(1, len(positions(self.order)) + 1))
        lengths = tuple(len(vector) for vector in self.vectors)
        check(lengths == expected, "lengths of the WISE weight vectors", got=lengths,
              allowed=f"1..{expected[-1]} in this sequence for {order_key(self.order)}")
        check(all(np.isfinite(vector).all() for vector in self.vectors), "WISE weights",
              got="a value that is not finite", allowed="finite numbers")

    @classmethod
    def ones(cls, order: Order) -> WiseWeights:
        """Plain sums of all logits so far ("no scaling, no division", paper.md 4.2)."""
        return cls(order, tuple((1.0,) * k for k in range(1, len(positions(order)) + 1)))

    def matrix(self) -> Floats:
        """The vectors as rows of a lower triangular [K, K] matrix, zeros above."""
        rows = np.zeros((len(self.vectors), len(self.vectors)))
        for k, vector in enumerate(self.vectors):
            rows[k, : k + 1] = vector
        return rows


@dataclass(frozen=True)
class ExitPolicy:
    """When to answer: temperature (> 0) and threshold (0..1) for each position of `order`."""

    order: Order
    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(positions(self.order))
        got = (len(self.temperatures), len(self.thresholds))
        check(got == (count, count), "numbers of temperatures and thresholds", got=got,
              allowed=f"{count} each for {order_key(self.order)}")
        check(all(0 < value < np.inf for value in self.temperatures), "temperatures",
              got=self.temperatures, allowed="finite numbers above 0")
        check(all(0 <= value <= 1 for value in self.thresholds), "thresholds",
              got=self.thresholds, allowed="0..1 (1: never exit here)")

    @classmethod
    def constant(
        cls, order: Order, *, threshold: float, temperatures: Sequence[float] | None = None
    ) -> ExitPolicy:
        """One global `threshold`, the paper's mode; 1.0 means: never exit early."""
        count = len(positions(order))
        return cls(order, tuple(temperatures or (1.0,) * count), (threshold,) * count)


@dataclass(frozen=True)
class Decision:
    """What the cascade knows after one more exit."""

    label_index: int
    confidence: float
    """Largest probability of the ensemble so far, at this exit's temperature."""
    probabilities: Floats
    """[C], float64."""
    exit: bool
    """True: this is the answer; no further segment is needed."""


ExitRule = Callable[[Position, Floats], bool]
"""An own rule of when to answer: (exit just reached, probabilities [labels] of the ensemble so far)
-> True to answer there. The last exit that may run always answers."""


class Cascade:
    """Steps one clip through the decision: push logits until a Decision says exit."""

    def __init__(
        self, weights: WiseWeights, policy: ExitPolicy, *, max_exit: int | None = None,
        exit_rule: ExitRule | None = None,
    ) -> None:
        """Make a cascade that answers at position `max_exit` (1-based) at the latest.

        `exit_rule` decides instead of the policy's thresholds; its temperatures stay.

        Raises:
            ConfigError: weights and policy are for different orders, or `max_exit` is no position.
        """
        check(weights.order == policy.order, "order of the policy", got=order_key(policy.order),
              allowed=f"{order_key(weights.order)}, the order of the weights")
        self.positions = positions(weights.order)
        self.last = len(self.positions) if max_exit is None else max_exit
        check(1 <= self.last <= len(self.positions), "max_exit", got=max_exit,
              allowed=f"1..{len(self.positions)} for {order_key(weights.order)}")
        self.weights = weights
        self.policy = policy
        self._exit_rule = exit_rule
        self._logits: list[Floats] = []

    def reset(self) -> None:
        """Forget the logits: the next push is the first exit of a new clip."""
        self._logits = []

    @property
    def num_pushed(self) -> int:
        """Exits reached so far; the position of the answer once a Decision says exit."""
        return len(self._logits)

    def push(self, logits: ArrayLike) -> Decision:
        """Take the next exit's own `logits` [C], averaged over temporal segments, and decide.

        Raises:
            ModelError: the logits are not finite, or do not fit those before.
        """
        k = self.num_pushed
        assert k < self.last, "pushed past the last exit; reset() starts the next clip"
        own = np.asarray(logits, np.float64)
        self._check_logits(own, self.positions[k])
        self._logits.append(own)
        probabilities = softmax(combine(self._logits, self.weights.vectors[k]),
                                temperature=self.policy.temperatures[k])
        sure = float(confidence(probabilities))
        return Decision(int(probabilities.argmax()), sure, probabilities,
                        exit=k + 1 == self.last or self._is_enough(k, sure, probabilities))

    def _is_enough(self, k: int, sure: float, probabilities: Floats) -> bool:
        if self._exit_rule is not None:
            return bool(self._exit_rule(self.positions[k], probabilities))
        return sure > self.policy.thresholds[k]

    def _check_logits(self, own: Floats, position: Position) -> None:
        expected = self._logits[0].shape if self._logits else own.shape
        if own.ndim != 1 or own.shape != expected:
            raise ModelError(f"logits of {position} have shape {own.shape};"
                             f" allowed: {expected if len(expected) == 1 else '[classes]'}.")
        if not np.isfinite(own).all():
            raise ModelError(f"logits of {position} are not finite.",
                             hint="The segment or its input is broken; see `edgepkd inspect`.")


def prefix_logits(logits: ArrayLike, weights: WiseWeights) -> Floats:
    """z_k of every position at once: `logits` [..., K, C] -> [..., K, C], in float64."""
    combined: Floats = np.einsum("kj,...jc->...kc", weights.matrix(),
                                 np.asarray(logits, np.float64))
    return combined


@dataclass(frozen=True)
class Replay:
    """Answers of a cascade over stored logits of N clips."""

    exits: NDArray[np.int64]
    """[N], position taken, 1-based."""
    labels: NDArray[np.int64]
    """[N], label index answered."""
    confidences: Floats
    """[N], at the exit taken."""


def replay(
    logits: ArrayLike, weights: WiseWeights, policy: ExitPolicy, *, max_exit: int | None = None
) -> Replay:
    """Run the cascade over stored `logits` [N, K, C] at once: what `Cascade` answers clip by clip.

    Raises:
        ConfigError: as `Cascade`.
    """
    last = Cascade(weights, policy, max_exit=max_exit).last
    return decide(prefix_logits(logits, weights)[:, :last], policy)


def decide(combined: Floats, policy: ExitPolicy) -> Replay:
    """Exit by `policy` on what the ensemble says at each position: `combined` [N, K, C].

    K may be less than the policy has positions; the last of them always answers.
    """
    last = combined.shape[1]
    probabilities = softmax(combined / np.asarray(policy.temperatures)[:last, None])
    sure = confidence(probabilities)
    exits_here = sure > np.asarray(policy.thresholds)[:last]
    exits_here[:, -1] = True
    taken = exits_here.argmax(axis=1)
    rows = np.arange(len(taken))
    return Replay(exits=taken + 1, labels=probabilities.argmax(axis=-1)[rows, taken],
                  confidences=sure[rows, taken])
