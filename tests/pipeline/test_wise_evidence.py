"""Which held-out clips a fit rests on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepkd.errors import DataError
from edgepkd.logits.clip_logits import ClipLogits, FoldsFacts, save_logits
from edgepkd.pipeline.held_out import belongs_to, network_hashes
from edgepkd.pipeline.wise_evidence import evidence_of, gather
from edgepkd.training.predict import views_protocol
from edgepkd.training.runs import read_run
from tests.logits.made_logits import make_logits
from tests.training.tiny_set import change_index, make_run, make_set


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder / "a", make_set(folder / "data"))


def of_run(run: Path, num_clips: int, *, split: str) -> ClipLogits:
    """Made-up answers of the run's networks."""
    inputs = read_run(run).recipe.inputs
    made = make_logits(num_clips=num_clips, split=split, weights_sha256=network_hashes(run),
                       views=views_protocol(inputs))
    return replace(made, groups=tuple(f"{split}-{group}" for group in made.groups))


def with_folds(answered: ClipLogits, run: Path) -> ClipLogits:
    fold_of = tuple(i % 2 for i in range(len(answered)))
    return replace(answered, folds=FoldsFacts(fold_of, ({"mv": "a"}, {"mv": "b"}),
                                              belongs_to(run), 1))


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    save_logits(make_logits(labels=np.arange(60) % 2), tmp_path / "a.npz")
    rests = gather(tmp_path / "a.npz", cache=tmp_path)
    assert rests.files == (tmp_path / "a.npz",)
    assert rests.sha256 == hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    assert str(rests) == "60 held-out clips of 5 groups (calibration); none of walk"


def test_folds_and_calibration_clips_are_pooled(run: Path) -> None:
    folds, own = run / "folds" / "logits.npz", run / "eval" / "calibration-centre" / "logits.npz"
    save_logits(with_folds(of_run(run, 40, split="folds"), run), folds)
    save_logits(of_run(run, 20, split="calibration"), own)
    rests = gather(run, cache=run)
    assert rests.files == (folds, own)
    assert (len(rests.answered), rests.num_folds) == (60, 3)
    assert str(rests).startswith("60 held-out clips of 10 groups (folds and calibration), answered"
                                 " by 3 sets of networks")
    parts = evidence_of(rests.answered).parts
    assert parts[:4].tolist() == [0, 1, 0, 1]
    assert set(parts[40:].tolist()) == {2}
    assert rests.answered.weights_sha256 == network_hashes(run)


def test_folds_of_another_recipe_or_of_other_clips_are_refused(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "b", make_set(tmp_path / "data"))
    stale = with_folds(of_run(other, 40, split="folds"), run)
    save_logits(stale, other / "folds" / "logits.npz")
    assert belongs_to(other) == belongs_to(run)  # the same clips, somewhere else
    document = (other / "run.json").read_text()
    (other / "run.json").write_text(document.replace('"epochs": 3', '"epochs": 4'))
    with pytest.raises(DataError, match=r"another recipe, seed or clips.*train folds .*b --force"):
        gather(other, cache=tmp_path)
    (other / "run.json").write_text(document)
    change_index(tmp_path / "data", lambda row: {**row, "group": f"{row['group']}x"})
    with pytest.raises(DataError, match="another recipe, seed or clips"):
        gather(other, cache=tmp_path)
