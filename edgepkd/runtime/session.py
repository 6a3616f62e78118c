"""One clip after another through the cascade; what is not needed is neither run nor decoded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import (
    Cascade,
    Decision,
    ExitPolicy,
    ExitRule,
    Order,
    WiseWeights,
    for_order,
    order_key,
)
from edgepkd.closing import Closing
from edgepkd.config import Modality, check
from edgepkd.errors import ModelError
from edgepkd.runtime.answers import ClipAnswer, Counters, DecodeCounts, ScoredLabel
from edgepkd.runtime.runner import Features, SegmentRunner


class Clip(Protocol):
    """What a session needs of a clip (video.clips.Clip); tensors are made when asked for."""

    @property
    def index(self) -> int: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...
    @property
    def counters(self) -> Counters: ...

    def tensor(self, modality: Modality) -> NDArray[np.float32]:
        """Network input float32, `InputSpec.input_shape`; decodes what it needs."""

    def release(self) -> None:
        """Let go of the clip's packets and pictures."""


class Session(Closing):
    """A bundle on a runner with one order and one policy, ready to classify clips.

    As a context manager it closes itself, and with it the runner, on the way out.

    Attributes:
        order: modalities in the order they are asked. cascade: the decision. runner: the backend.
    """

    def __init__(
        self,
        bundle: Bundle,
        runner: SegmentRunner,
        *,
        order: Order | None = None,
        threshold: float | None = None,
        max_exit: int | None = None,
        top_k: int = 3,
        exit_rule: ExitRule | None = None,
    ) -> None:
        """Make a session; by default the bundle's own order and fitted policy.

        `threshold` replaces every fitted threshold by one (1.0: never exit early) and keeps the
        fitted temperatures, so that a confidence means the same. `max_exit` is the last cascade
        position that may run. `exit_rule` decides instead of thresholds.

        Raises:
            UsageError: the bundle has no weights or policy for `order`, or a value is out of range.
        """
        self.order: Order = order or bundle.manifest.cascade.default_order
        check(top_k >= 1, "top_k", got=top_k, allowed="1 or more")
        weights = WiseWeights(self.order, for_order(bundle.wise, self.order, what="WISE weights"))
        self.cascade = Cascade(weights, _policy(bundle, self.order, threshold), max_exit=max_exit,
                               exit_rule=exit_rule)
        self.runner = runner
        self._bundle = bundle
        self._labels = bundle.manifest.labels
        self._top_k = min(top_k, len(self._labels))
        inputs, segment = bundle.manifest.inputs, bundle.manifest.segment
        self._gmac = [inputs[p.modality].num_passes * segment(p.modality, p.exit).gmac
                      for p in self.cascade.positions]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities that may be asked for, in order; `max_exit` may leave some out."""
        reachable = self.cascade.positions[: self.cascade.last]
        return tuple(dict.fromkeys(position.modality for position in reachable))

    def close(self) -> None:
        """Close the runner: nothing can be classified any more; harmless if done before."""
        self.runner.close()

    def warm_up(self) -> None:
        """Make every segment that may run ready now, so that no clip pays for it."""
        for position in self.cascade.positions[: self.cascade.last]:
            self.runner.prepare(position)

    def stream(self, clips: Iterable[Clip]) -> Iterator[ClipAnswer]:
        """Classify clips as they come; each is released once it is answered."""
        iterator = iter(clips)
        while True:
            started = time.perf_counter()
            clip = next(iterator, None)
            if clip is None:
                return
            read_ms = _ms_since(started)
            try:
                answer = self.classify(clip, read_ms=read_ms)
            finally:
                clip.release()
            # Only now is it known which packets were never decoded.
            yield replace(answer, decode=DecodeCounts.of(clip.counters))

    def classify(self, clip: Clip, *, read_ms: float = 0.0) -> ClipAnswer:
        """Run segments in order until one is sure enough; `read_ms` is what reading it took.

        Raises:
            DecodeError: the clip holds nothing that can be decoded.
            BundleError: a segment's file was changed after the bundle was read.
            ModelError: a segment fails, or its logits do not fit the labels.
        """
        self.cascade.reset()
        spent = {"read": read_ms, "decode": 0.0, "load": 0.0, "nets": 0.0, "decision": 0.0}
        x: Features = None
        for position in self.cascade.positions:
            started = time.perf_counter()
            self.runner.prepare(position)
            started = _charge(spent, "load", started)
            if position.exit == 1:
                x = clip.tensor(position.modality)
            started = _charge(spent, "decode", started)
            x, logits = self.runner.run(position, x)
            started = _charge(spent, "nets", started)
            decision = self._decide(logits)
            _charge(spent, "decision", started)
            if decision.exit:
                break
        return self._answer(clip, decision, spent)

    def _decide(self, logits: NDArray[np.float32]) -> Decision:
        if logits.ndim != 2 or logits.shape[1] != len(self._labels):
            raise ModelError(f"logits have shape {logits.shape};"
                             f" allowed: [passes, {len(self._labels)} labels].",
                             hint="The bundle's labels and its networks do not belong together.")
        return self.cascade.push(logits.mean(axis=0, dtype=np.float64))

    def _answer(self, clip: Clip, decision: Decision, spent: dict[str, float]) -> ClipAnswer:
        places, number = self.cascade.positions, self.cascade.num_pushed
        best = np.argsort(-decision.probabilities, kind="stable")[: self._top_k]
        return ClipAnswer(
            index=clip.index, start_s=clip.start_s, end_s=clip.end_s,
            label=self._labels[decision.label_index], confidence=decision.confidence,
            top_k=tuple(ScoredLabel(self._labels[i], float(decision.probabilities[i]))
                        for i in best),
            exit=places[number - 1], exit_number=number,
            segments_run=places[:number], segments_skipped=places[number:],
            read_ms=spent["read"], decode_ms=spent["decode"], load_ms=spent["load"],
            nets_ms=spent["nets"], decision_ms=spent["decision"],
            gmac=sum(self._gmac[:number]), gmac_static=sum(self._gmac),
            decode=DecodeCounts.of(clip.counters),
            probabilities=tuple(map(float, decision.probabilities)),
        )


def _policy(bundle: Bundle, order: Order, threshold: float | None) -> ExitPolicy:
    if threshold is None:
        entry = for_order(bundle.policy, order, what="an exit policy")
        return ExitPolicy(order, entry.temperatures, entry.thresholds)
    fitted = bundle.policy.get(order_key(order))
    return ExitPolicy.constant(order, threshold=threshold,
                               temperatures=fitted.temperatures if fitted else None)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


def _charge(spent: dict[str, float], what: str, started: float) -> float:
    """Book the time since `started` on `what`; returns now."""
    now = time.perf_counter()
    spent[what] += (now - started) * 1e3
    return now
