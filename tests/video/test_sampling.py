"""Temporal sampling against the reference rule written out, and on layouts it never met."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgepkd.config import MODALITIES, Modality
from edgepkd.errors import ConfigError
from edgepkd.video.sampling import Place, place_of, sample_test, sample_train, segment_bounds


def regular(num_frames: int) -> list[int]:
    """GOPs of 12, the last one short."""
    full, rest = divmod(num_frames, 12)
    return [12] * full + [rest] * bool(rest)


def reference_test_place(num_frames: int, segment: int, segments: int, modality: Modality) -> Place:
    """CoViAR's rule for GOP 12 (paper.md 1.4), np.round and all."""
    p_frames = modality != "iframe"
    if p_frames:
        num_frames -= 1
    frame = int(np.round(float(num_frames - 1) / segments * (segment + 0.5))) + p_frames
    gop, t = divmod(frame, 12)
    if not p_frames:
        return Place(gop, 0)
    return Place(gop - 1, 11) if t == 0 else Place(gop, t)


@pytest.mark.parametrize("modality", MODALITIES)
def test_centre_rule_is_the_reference_rule(modality: Modality) -> None:
    for num_frames, segments in itertools.product(range(2, 151), (1, 2, 3, 8, 25)):
        expected = tuple(reference_test_place(num_frames, s, segments, modality)
                         for s in range(segments))
        got = sample_test(regular(num_frames), modality=modality, num_segments=segments)
        assert got == expected, (num_frames, segments)


@pytest.mark.parametrize("modality", MODALITIES)
def test_one_frame_is_its_own_answer(modality: Modality) -> None:
    assert sample_test([1], modality=modality, num_segments=3) == (Place(0, 0),) * 3


def test_a_p_modality_on_an_anchor_takes_the_frame_before_it() -> None:
    lengths = [5, 1, 7, 12]
    assert place_of(5, lengths, modality="mv") == Place(0, 4)
    assert place_of(6, lengths, modality="mv") == Place(1, 0)
    assert place_of(13, lengths, modality="residual") == Place(2, 6)
    assert place_of(0, lengths, modality="mv") == Place(0, 0)
    assert place_of(14, lengths, modality="mv") == Place(3, 1)
    assert place_of(14, lengths, modality="iframe") == Place(3, 0)
    assert place_of(99, lengths, modality="mv") == Place(3, 11)


def test_gop_rule_looks_at_one_position_of_the_centre_gops() -> None:
    lengths = [12, 12, 12, 3]
    mv = sample_test(lengths, modality="mv", num_segments=3, rule="gop", position=5)
    iframe = sample_test(lengths, modality="iframe", num_segments=3, rule="gop")
    assert [p.gop for p in mv] == [p.gop for p in iframe] == [0, 1, 2]
    assert {p.t for p in mv} == {5}
    assert {p.t for p in iframe} == {0}
    assert sample_test([3], modality="mv", num_segments=1, rule="gop", position=5) == (Place(0, 2),)


def test_bounds_round_to_even_and_are_never_empty() -> None:
    # seg_size 2.5: bounds 0, 2 (2.5), 5, 8 (7.5), 10
    bounds = [segment_bounds(11, num_segments=4, segment=s, p_frames=False) for s in range(4)]
    assert bounds == [(0, 2), (2, 5), (5, 8), (8, 10)]
    assert segment_bounds(3, num_segments=8, segment=0, p_frames=True) == (1, 2)


@pytest.mark.parametrize("rule", ["centre", "gop"])
@pytest.mark.parametrize("lengths", [[1], [2], [12, 12, 12, 4], [1, 1, 30, 2], [7]])
def test_training_places_exist_and_are_p_frames_where_there_are_any(rule, lengths) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = sample_train(lengths, num_segments={"mv": 3, "residual": 3, "iframe": 2}, rng=rng,
                              rule=rule)
        assert {m: len(p) for m, p in places.items()} == {"mv": 3, "residual": 3, "iframe": 2}
        for modality, place in ((m, p) for m, ps in places.items() for p in ps):
            assert 0 <= place.t < lengths[place.gop]
            if modality == "iframe":
                assert place.t == 0
            elif min(lengths) > 1:
                assert place.t > 0


@pytest.mark.slow
def test_training_draws_cover_the_clip_and_share_gops_only_under_the_gop_rule() -> None:
    rng = np.random.default_rng(1)
    same_segments: dict[Modality, int] = {"mv": 3, "residual": 3, "iframe": 3}
    shared = [sample_train([12] * 6, num_segments=same_segments, rng=rng, rule="gop")
              for _ in range(200)]
    assert all(d["mv"] == d["residual"] for d in shared)
    assert all([p.gop for p in d["mv"]] == [p.gop for p in d["iframe"]] for d in shared)
    assert {p.t for d in shared for p in d["mv"]} == set(range(1, 12))
    free = [sample_train([12] * 6, num_segments=same_segments, rng=rng) for _ in range(200)]
    assert any(d["mv"] != d["residual"] for d in free)
    assert {p.gop for d in free for p in d["mv"]} == set(range(6))


@pytest.mark.parametrize(("lengths", "segments"), [([], 3), ([12, 0], 3), ([12], 0)])
def test_impossible_layouts_are_refused(lengths, segments) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        sample_test(lengths, modality="mv", num_segments=segments)
