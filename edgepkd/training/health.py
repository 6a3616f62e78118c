"""Whether a trained network learned anything: dead features, answers near chance, a flat loss.

Measured once, at the end of training, and kept in the network's JSON, so that `eval` and `export`
can say it again. All of it is a warning: a network may be wanted all the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgepkd import plain_json
from edgepkd.config import NUM_EXITS, InputSpec, Modality, from_mapping
from edgepkd.errors import ConfigError
from edgepkd.logits.metrics import Accuracy
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.training.cache import ClipArrays
from edgepkd.training.loader import LabelledClips
from edgepkd.training.views import test_view

KEY = "health"
"""In the `extra` of a network's JSON."""
MOST_FEATURE_CLIPS = 64
MOST_CLIPS = 128
"""Of each split, spread over it: enough for an interval of 9 points each way."""
FEWEST_CLIPS = 10
"""From fewer nothing is concluded: their interval holds chance whatever they say."""
_ZERO = 1e-8
_DEAD_SHARE, _DEAD_MORE, _MUTE_SHARE = 0.5, 0.25, 0.9
"""Of the last features, always zero: the first share and the second more than at the start, or the
third."""
_FALL = 0.02
"""Of the first epoch's loss: falling by less is not falling."""
_LEARNED = 0.9
"""Right answers above which a loss that does not fall had nowhere to fall to."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """How the exits answer the test views of some clips of one split."""

    num_clips: int
    num_most_frequent: int
    """Clips of the most frequent label: what a constant answer gets right."""
    num_right: tuple[int, ...]
    """Of each exit in `Health.exits`."""

    @property
    def chance(self) -> float:
        """Share of the most frequent label."""
        return self.num_most_frequent / self.num_clips

    def accuracy(self, index: int) -> Accuracy:
        """Of the exit at `index` of `Health.exits`."""
        return Accuracy(self.num_right[index], self.num_clips)

    def is_near_chance(self, index: int) -> bool:
        """Whether the 95 % interval begins at or below what a constant answer gets."""
        return (self.num_clips >= FEWEST_CLIPS
                and self.accuracy(index).interval[0] <= self.chance)


@dataclass(frozen=True, kw_only=True)
class Health:
    """What was looked at in a network when its training ended."""

    exits: tuple[int, ...]
    """Which were trained so far: 4, or 1 to 4."""
    num_features: int
    """Inputs of the last classifier."""
    num_zero: int
    """Those that are zero in every frame of up to MOST_FEATURE_CLIPS training clips."""
    num_zero_at_start: int | None
    """The same before training; None: not known."""
    first_loss: float | None
    """Of the trunk's first epoch; None: not known."""
    lowest_loss: float | None
    """Of its later epochs; None: there was one epoch."""
    train: Answered
    calibration: Answered | None

    @property
    def is_dead(self) -> bool:
        """Whether most of the last features went out in training, or hardly one is left."""
        share = self.num_zero / self.num_features
        start = (self.num_zero_at_start or 0) / self.num_features
        return share >= _MUTE_SHARE or share >= max(_DEAD_SHARE, start + _DEAD_MORE)

    @property
    def has_flat_loss(self) -> bool:
        """Whether the trunk's loss never fell, and had where to fall to."""
        if self.first_loss is None or self.lowest_loss is None:
            return False
        return (self.lowest_loss > (1 - _FALL) * self.first_loss
                and self.train.accuracy(-1).value < _LEARNED)

    @property
    def failed_exits(self) -> tuple[int, ...]:
        """Exits near chance on training clips."""
        return tuple(e for i, e in enumerate(self.exits) if self.train.is_near_chance(i))

    @property
    def unseen_failed(self) -> bool:
        """Whether the last exit learned training clips, and calibration clips are near chance."""
        return (self.calibration is not None and NUM_EXITS not in self.failed_exits
                and self.calibration.is_near_chance(-1))


def measure_health(
    network: SegmentedNetwork, train: LabelledClips, calibration: LabelledClips | None = None, *,
    spec: InputSpec, exits: Sequence[int], num_zero_at_start: int | None = None,
    losses: Sequence[float] = (),
) -> Health:
    """Look at `network`, on the device where it is; `losses`: of the trunk's epochs, in order.

    Changes neither the network, but for eval mode, nor any random state.
    """
    return Health(
        exits=tuple(exits), num_features=num_features(network),
        num_zero=zero_features(network, train.clips, spec=spec),
        num_zero_at_start=num_zero_at_start,
        first_loss=losses[0] if losses else None, lowest_loss=min(losses[1:], default=None),
        train=_answered(network, train, spec=spec, exits=exits),
        calibration=(_answered(network, calibration, spec=spec, exits=exits)
                     if calibration and len(calibration) else None))


def num_features(network: SegmentedNetwork) -> int:
    """Inputs of the last classifier."""
    return int(network.heads[-1].fc.in_features)


@torch.no_grad()
def zero_features(
    network: SegmentedNetwork, clips: Sequence[ClipArrays], *, spec: InputSpec
) -> int:
    """How many inputs of the last classifier are zero in every test view of `clips`."""
    network.eval()
    peak = torch.zeros(num_features(network))
    for row in spread(len(clips), MOST_FEATURE_CLIPS):
        x = _frames(network, clips[row], spec)
        for segment in network:
            x = segment.trunk(x)
        pooled = network.heads[-1].pooled_input(x)
        peak = torch.maximum(peak, pooled.abs().amax(dim=0).cpu())
    return int((peak <= _ZERO).sum())


@torch.no_grad()
def _answered(
    network: SegmentedNetwork, data: LabelledClips, *, spec: InputSpec, exits: Sequence[int]
) -> Answered:
    network.eval()
    rows = spread(len(data), MOST_CLIPS)
    right = np.zeros(len(exits), np.int64)
    for row in rows:
        inputs = network.pooled_inputs(_frames(network, data.clips[row], spec))
        for place, number in enumerate(exits):
            logits = network.heads[number - 1].from_pooled(inputs[number - 1]).mean(dim=0)
            right[place] += int(logits.argmax()) == data.labels[row]
    most = max(Counter(data.labels[row] for row in rows).values())
    return Answered(num_clips=len(rows), num_most_frequent=most, num_right=tuple(right.tolist()))


def _frames(network: SegmentedNetwork, clip: ClipArrays, spec: InputSpec) -> Tensor:
    return test_view(clip, spec).to(next(network.parameters()).device)


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of `count` rows, evenly spread, so that no class is left out by its place."""
    rows = np.linspace(0, count - 1, min(count, most)).round()
    return [int(row) for row in rows]


# ---- kept in the network's JSON


def health_facts(health: Health | None) -> dict[str, Any]:
    """Part of a network's `extra`."""
    return {KEY: asdict(health)} if health else {}


def read_health(extra: Mapping[str, Any]) -> Health | None:
    """Undo `health_facts`; None where an older network, or another hand, has nothing of the kind.

    What is said about a network must not stand in the way of using it.
    """
    try:
        values = dict(extra[KEY])
        calibration = values["calibration"]
        health = from_mapping(Health, {
            **values, "train": from_mapping(Answered, values["train"], where=KEY),
            "calibration": calibration and from_mapping(Answered, calibration, where=KEY)},
            where=KEY)
        return health if _is_sound(health) else None
    except (ConfigError, KeyError, TypeError, ValueError):
        return None


def health_of_network(path: Path) -> Health | None:
    """Health of the network whose files `path` names without suffix; None: not known."""
    try:
        document = plain_json.loads(path.with_name(f"{path.name}.json").read_bytes())
        return read_health(document["extra"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_sound(health: Health) -> bool:
    """Whether the numbers fit together; TypeError or ValueError where they are none."""
    parts = [part for part in (health.train, health.calibration) if part]
    losses = [x for x in (health.first_loss, health.lowest_loss) if x is not None]
    return (0 <= health.num_zero <= health.num_features and health.num_features > 0
            and (health.num_zero_at_start or 0) >= 0 and all(map(math.isfinite, losses))
            and all(number in range(1, NUM_EXITS + 1) for number in health.exits)
            and all(0 < part.num_most_frequent <= part.num_clips
                    and len(part.num_right) == len(health.exits) > 0
                    and all(0 <= n <= part.num_clips for n in part.num_right) for part in parts))


# ---- said


def findings(modality: Modality, health: Health) -> tuple[str, ...]:
    """What is wrong with a network, a line each; empty: nothing was seen."""
    said = []
    if health.is_dead:
        start = ("" if health.num_zero_at_start is None else
                 f" ({health.num_zero_at_start:,} before training)")
        said.append(f"{modality}: {health.num_zero:,} of {health.num_features:,} last features are"
                    f" always zero{start}: the trunk is dead")
    if health.has_flat_loss:
        said.append(f"{modality}: the training loss never fell: {health.first_loss:.3f} in the"
                    f" first epoch, {health.lowest_loss:.3f} at best after it")
    if failed := health.failed_exits:
        first = health.exits.index(failed[0])
        more = f" (exit {failed[0]})" if len(failed) > 1 else ""
        said.append(f"{modality}: {_named(failed)} at chance on training clips:"
                    f" {_against_chance(health.train, first)}{more}")
    if health.unseen_failed and health.calibration:
        said.append(f"{modality}: at chance on calibration clips:"
                    f" {_against_chance(health.calibration, -1)}, and"
                    f" {100 * health.train.accuracy(-1).value:.0f} % on training clips: what it"
                    " learned does not hold for other groups")
    return tuple(said)


def _named(exits: Sequence[int]) -> str:
    numbers = ", ".join(map(str, exits))
    return f"exit {numbers} is" if len(exits) == 1 else f"exits {numbers} are"


def _against_chance(answered: Answered, index: int) -> str:
    return (f"{answered.accuracy(index)} of {answered.num_clips}, and one answer to all gets"
            f" {100 * answered.chance:.1f} %")
