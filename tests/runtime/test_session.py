"""What is not needed is neither run nor decoded: both sides are counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Order, Position, positions
from edgepkd.config import NUM_CHANNELS, Modality
from edgepkd.errors import ConfigError, DecodeError, ModelError, UsageError
from edgepkd.runtime.answers import DecodeCounts
from edgepkd.runtime.session import Session
from tests.runtime.bundles import make_bundle
from tests.runtime.fake_runner import FakeRunner

ALL: Order = ("mv", "residual", "iframe")
SURE = np.array([0.0, 20.0], np.float32)


class FakeClip:
    """A clip that counts which tensors are asked for."""

    def __init__(self, index: int = 0) -> None:
        self.index, self.start_s, self.end_s = index, index * 2.0, index * 2.0 + 2.0
        self.asked: Counter[Modality] = Counter()
        self.num_released = 0
        self.counters = _Counters()

    def tensor(self, modality: Modality) -> NDArray[np.float32]:
        self.asked[modality] += 1
        self.counters.packets_decoded += 1
        return np.zeros((2, NUM_CHANNELS[modality], 32, 32), np.float32)

    def release(self) -> None:
        self.num_released += 1
        self.counters.packets_skipped = 7


class _Counters:
    packets_read = 9
    packets_decoded = 0
    packets_skipped = 0
    frames_rgb = motion_fields = residuals = errors = 0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def runner(*sure_at: Position) -> FakeRunner:
    """Sure of 'right' at the positions given, undecided everywhere else."""
    return FakeRunner(dict.fromkeys(sure_at, SURE), num_classes=2)


@pytest.mark.parametrize("order", [ALL, ("iframe", "mv", "residual"), ("mv",)])
def test_nothing_behind_the_exit_taken_is_run_or_decoded(bundle: Bundle, order: Order) -> None:
    for number, place in enumerate(positions(order), start=1):
        fake, clip = runner(place), FakeClip()
        answer = Session(bundle, fake, order=order).classify(clip)
        assert (answer.exit, answer.exit_number) == (place, number)
        assert fake.calls == Counter(positions(order)[:number])
        assert fake.prepared == Counter(positions(order)[:number]), "nor even compiled"
        assert clip.asked == Counter({p.modality: 1 for p in positions(order)[:number]})
        assert answer.segments_run == positions(order)[:number]
        assert answer.segments_skipped == positions(order)[number:]
        assert answer.modalities_skipped == tuple(m for m in order if m not in clip.asked)


def test_an_undecided_cascade_runs_everything_and_still_answers(bundle: Bundle) -> None:
    fake, clip = runner(), FakeClip()
    answer = Session(bundle, fake).classify(clip)
    assert fake.calls == Counter(positions(ALL))
    assert clip.asked == Counter(ALL)
    assert answer.exit_number == 12
    assert answer.confidence == pytest.approx(0.5)
    assert answer.modalities_skipped == ()


def test_threshold_one_is_the_static_chain(bundle: Bundle) -> None:
    fake = runner(*positions(ALL))
    assert Session(bundle, fake, threshold=1.0).classify(FakeClip()).exit_number == 12
    assert fake.calls == Counter(positions(ALL))


def test_max_exit_bounds_what_runs(bundle: Bundle) -> None:
    fake, clip = runner(), FakeClip()
    session = Session(bundle, fake, max_exit=5)
    answer = session.classify(clip)
    assert (answer.exit_number, len(answer.segments_skipped)) == (5, 7)
    assert clip.asked == Counter(("mv", "residual"))
    assert session.modalities == ("mv", "residual")
    session.warm_up()
    assert set(fake.prepared) == set(positions(ALL)[:5])


def test_threshold_replaces_the_policy(bundle: Bundle) -> None:
    weak = FakeRunner({Position("mv", 1): np.array([0, 1], np.float32)}, num_classes=2)
    assert Session(bundle, weak, max_exit=2).classify(FakeClip()).exit_number == 2
    assert Session(bundle, weak, threshold=0.7, max_exit=2).classify(FakeClip()).exit_number == 1


def test_the_answer(bundle: Bundle) -> None:
    fake = runner(Position("mv", 2))
    answer = Session(bundle, fake, top_k=9).classify(FakeClip(3), read_ms=4.0)
    assert (answer.index, answer.start_s, answer.end_s, answer.label) == (3, 6.0, 8.0, "right")
    assert [scored.label for scored in answer.top_k] == ["right", "left"]
    assert answer.confidence == answer.top_k[0].confidence == max(answer.probabilities) > 0.999
    assert answer.gmac == pytest.approx(2 * (0.001 + 0.002)), "two temporal segments"
    assert answer.gmac_static == pytest.approx(3 * 2 * 0.010)
    assert answer.read_ms == 4.0
    assert min(answer.decode_ms, answer.nets_ms, answer.decision_ms) >= 0
    line = answer.as_json()
    assert line["exit"] == {"network": "mv", "exit": 2, "position": 2, "of": 12}
    assert len(line["segments_skipped"]) == 10
    assert "probabilities" not in line


def test_temporal_segments_are_averaged_as_logits(bundle: Bundle) -> None:
    class TwoMinds(FakeRunner):
        def run(self, position: Position, x: object) -> tuple[object, NDArray[np.float32]]:
            features, _ = super().run(position, x)
            return features, np.array([[0, 8], [2, 0]], np.float32)

    answer = Session(bundle, TwoMinds({}, num_classes=2), max_exit=1).classify(FakeClip())
    assert answer.confidence == pytest.approx(1 / (1 + np.exp(-3)))


def test_stream_releases_each_clip_and_counts_after_that(bundle: Bundle) -> None:
    clips = [FakeClip(index) for index in range(3)]
    answers = list(Session(bundle, runner(Position("mv", 1))).stream(clips))
    assert [answer.index for answer in answers] == [0, 1, 2]
    assert all(clip.num_released == 1 for clip in clips)
    assert answers[0].decode == DecodeCounts(packets_read=9, packets_decoded=1, packets_skipped=7)


def test_clips_are_independent(bundle: Bundle) -> None:
    session = Session(bundle, runner(Position("residual", 1)))
    assert session.classify(FakeClip(0)).probabilities == session.classify(
        FakeClip(1)).probabilities


def test_a_clip_is_released_even_if_it_cannot_be_decoded(bundle: Bundle) -> None:
    class Broken(FakeClip):
        def tensor(self, modality: Modality) -> NDArray[np.float32]:
            raise DecodeError("broken")

    clip = Broken()
    with pytest.raises(DecodeError, match="broken"):
        list(Session(bundle, runner()).stream([clip]))
    assert clip.num_released == 1


@pytest.mark.smoke
def test_a_session_closes_its_runner_on_errors_too(bundle: Bundle) -> None:
    fake = runner(Position("mv", 1))
    with Session(bundle, fake) as session:
        assert session.classify(FakeClip()).exit_number == 1
        assert fake.closed == 0
    assert fake.closed == 1
    session.close()
    with pytest.raises(ModelError, match="the runner on fake is closed"):
        session.classify(FakeClip())
    other = runner()
    with pytest.raises(DecodeError), Session(bundle, other):
        raise DecodeError("broken")
    assert other.closed == 1


def test_order_without_weights_names_those_there_are(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"'residual,mv'.*available: iframe; iframe,mv,residual"):
        Session(bundle, runner(), order=("residual", "mv"))


def test_settings_out_of_range(bundle: Bundle) -> None:
    for settings in ({"max_exit": 13}, {"top_k": 0}, {"threshold": 1.5}):
        with pytest.raises(ConfigError):
            Session(bundle, runner(), **settings)  # type: ignore[arg-type]


def test_networks_that_do_not_fit_the_labels(bundle: Bundle) -> None:
    with pytest.raises(ModelError, match=r"logits have shape \(2, 3\).*2 labels"):
        Session(bundle, FakeRunner({}, num_classes=3)).classify(FakeClip())


def test_stacked_fields_cost_one_pass(tmp_path: Path) -> None:
    stacked, apart = (Session(make_bundle(tmp_path / name, stack=name == "stack"), runner(),
                              order=("mv",)).classify(FakeClip()) for name in ("stack", "apart"))
    assert apart.gmac == pytest.approx(2 * (0.001 + 0.002 + 0.003 + 0.004))
    assert stacked.gmac == pytest.approx(apart.gmac / 2)
