"""Which clips a demo bundle is trained on, which it is fitted on, and which it only answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgepkd.datasets.index import read_index
from edgepkd.int8 import load_int8_recipe
from edgepkd.studies.demo import build as module
from edgepkd.studies.demo.build import BuildSettings, build, cross_fit
from edgepkd.studies.parts import Part
from tests.studies.tiny_parts import tiny_recipe, write_index


class Seen(Exception):
    """The parts that were to be trained."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildSettings:
    """Eight training clips in four groups, two test clips in one; nothing is trained."""
    write_index(tmp_path / "index.csv", num_groups=5, num_test=1)

    def run(parts: Sequence[Part], **_: Any) -> None:
        raise Seen(parts)

    monkeypatch.setattr(module, "run_stages", run)
    recipe = replace(tiny_recipe(), name="made", dataset="Made", index="index.csv", num_folds=2)
    return BuildSettings(recipe, load_int8_recipe("int8"), data=tmp_path, out=tmp_path / "out",
                         cache=tmp_path / "cache", console=Console(stderr=True))


def test_the_test_clips_are_answered_by_the_final_part_alone(settings: BuildSettings) -> None:
    with pytest.raises(Seen) as seen:
        build(settings)
    *folds, final = seen.value.args[0]
    clips = read_index(settings.data / "index.csv")
    train, test = clips[:8], clips[8:]
    assert [part.name for part in (*folds, final)] == ["fold0", "fold1", "final"]
    assert (final.fit, final.answer) == (train, test)
    assert sorted(s.path for fold in folds for s in fold.answer) == [s.path for s in train]
    for fold in folds:
        assert set(fold.fit) | set(fold.answer) == set(train)
        assert not {s.group for s in fold.fit} & {s.group for s in fold.answer}
    assert {part.folder for part in (*folds, final)} == {settings.out / "made"}


def test_cross_fitting_looks_at_no_test_clip(settings: BuildSettings) -> None:
    with pytest.raises(Seen) as seen:
        cross_fit(settings)
    folds = seen.value.args[0]
    assert [part.name for part in folds] == ["fold0", "fold1"]
    assert not {s.group for part in folds for s in (*part.fit, *part.answer)} & {"g4"}
