"""Which clips a demo bundle is trained on, which it is fitted on, and which it only answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgepkd.config import MODALITIES
from edgepkd.datasets.index import read_index
from edgepkd.deploy.answers import DEPLOYED, FAKE_QUANT, FP32
from edgepkd.errors import ModelError
from edgepkd.int8 import load_int8_recipe
from edgepkd.logits.fit import fit_deployed
from edgepkd.studies.demo import answers as demo_answers
from edgepkd.studies.demo import build as module
from edgepkd.studies.demo.build import BuildSettings, build, cross_fit
from edgepkd.studies.parts import Part
from tests.studies.tiny_parts import samples, tiny_recipe, write_index


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


@pytest.mark.parametrize("noise", [0.02, 8.0])
def test_the_gate_judges_held_out_clips_and_the_test_clips_without_labels(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch, noise: float
) -> None:
    rng = np.random.default_rng(0)

    def read(part: Part) -> tuple[dict[str, dict[Any, np.ndarray]], np.ndarray]:
        labels = np.arange(60) % 2
        true: dict[Any, np.ndarray] = {
            m: np.eye(2)[labels][:, None] + 0.3 * rng.normal(size=(60, 4, 2)) for m in MODALITIES}
        int8 = {m: x + noise * rng.normal(size=x.shape) for m, x in true.items()}
        if part.name == "final":  # whatever they are, they play no part
            labels = np.full(60, -1)
        return {FP32: true, FAKE_QUANT: int8, DEPLOYED: int8}, labels

    answers = {part.name: read(part) for part in module._parts(settings)}
    for place in (module, demo_answers):
        monkeypatch.setattr(place, "read_answers", lambda part: answers[part.name])
    parts = [replace(part, answer=samples(0, 60)) for part in module._parts(settings)]
    wise, orders = settings.recipe.wise, [settings.recipe.default_order]
    groups = [sample.group for part in parts[:-1] for sample in part.answer]
    fits = [fit_deployed(*module.answered_by(parts[:-1], form=form), groups=groups,
                         orders=orders, settings=wise) for form in (DEPLOYED, FP32)]
    if noise < 1:
        found = module._pass_gate(settings, parts, *fits)
        assert [(one.clips, one.gaps[0].agreement.num_clips) for one in found.along] == [
            ("test clips (without labels)", 60), ("test clips (without labels)", 60),
            ("held-out clips of the folds", 120), ("held-out clips of the folds", 120)]
        assert found.along[0].gaps[0].accuracy_loss is None
    else:
        with pytest.raises(ModelError, match=r"made\.parity\.md"):
            module._pass_gate(settings, parts, *fits)
        assert module._pass_gate(replace(settings, allow_drift=True), parts, *fits).drifts
    assert (settings.out / "made.parity.json").exists()
