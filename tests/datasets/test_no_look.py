"""The no-look floor: what traits give away, and what they do not."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from edgepkd.datasets.no_look import no_look
from edgepkd.errors import MissingExtraError

NEEDS_TREES = pytest.mark.skipif(
    not importlib.util.find_spec("sklearn"), reason="a device has no scikit-learn")

LABELS = [label for _ in range(12) for label in ("run", "walk", "run", "walk")]
GROUPS = [f"g{n}" for n in range(12) for _ in range(4)]


def noise(seed: int = 0) -> list[float]:
    return [float(x) for x in np.random.default_rng(seed).integers(50, 90, len(LABELS))]


@NEEDS_TREES
@pytest.mark.slow
def test_a_trait_that_goes_with_the_label_gives_it_away() -> None:
    rows = [{"width": 640.0, "codec": "h264", "b_frames": float(label == "run"), "frames": frames}
            for label, frames in zip(LABELS, noise(), strict=True)]
    found = no_look(rows, LABELS, GROUPS)
    assert found is not None
    assert (found.accuracy, found.spread, found.largest_class) == (1.0, 0.0, 0.5)
    assert found.telling == ("b_frames",)
    assert found.length is not None
    assert 0.25 < found.length < 0.75
    assert (found.num_clips, found.num_groups) == (48, 12)
    assert found.in_words().startswith(
        "no-look floor 100.0 % ± 0.0: what a small tree guesses right of 48 clips from 4 traits of "
        "the files, most by b_frames, on groups it was not fitted on (largest class 50.0 %; length")


@NEEDS_TREES
@pytest.mark.slow
def test_text_is_a_trait_too_and_groups_are_not_learned_by_heart() -> None:
    texts = [{"codec": "h264" if label == "run" else "mpeg4"} for label in LABELS]
    found = no_look(texts, LABELS, GROUPS)
    assert found is not None
    assert (found.accuracy, found.length) == (1.0, None)
    # The trait names the group, and the label goes with the group: of no use on other groups.
    labels = ["run" if int(group[1:]) % 2 else "walk" for group in GROUPS]
    by_group = no_look([{"width": float(group[1:]) * 7 % 5} for group in GROUPS], labels, GROUPS)
    assert by_group is not None
    assert by_group.accuracy < 0.7
    assert by_group.group == 1.0
    assert "other clips of the group 100.0 %" in by_group.in_words()


@NEEDS_TREES
@pytest.mark.slow
def test_noise_gives_nothing_away_and_traits_that_some_lack_are_left_out() -> None:
    rows: list[dict[str, float | str]] = [{"frames": frames} for frames in noise(1)]
    rows[3]["fps"] = 25.0
    found = no_look(rows, LABELS, GROUPS)
    assert found is not None
    assert found.traits == ("frames",)
    assert 0.3 < found.accuracy < 0.7
    assert found.spread > 0
    assert no_look(rows, LABELS, GROUPS) == found


def test_too_little_to_say_anything_is_none() -> None:
    rows = [{"frames": frames} for frames in noise()]
    assert no_look(rows[:19], LABELS[:19], GROUPS[:19]) is None
    assert no_look(rows, LABELS, ["one"] * 48) is None
    assert no_look(rows, ["run"] * 48, GROUPS) is None
    assert no_look([{} for _ in rows], LABELS, GROUPS) is None
    assert no_look([], [], []) is None


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match="needs the package 'scikit-learn'") as caught:
        no_look([{"frames": frames} for frames in noise()], LABELS, GROUPS)
    assert "edgepkd[train]" in str(caught.value)
