"""The floor of an index: from prepare.json, from its columns, or from the files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.index import read_index
from edgepkd.datasets.no_look import NoLook
from edgepkd.pipeline import no_look_floor
from edgepkd.pipeline.no_look_floor import floor_of_index
from tests.clips import encode_clip, moving_scene

COLUMNS = "path,label,group,split,width,height,frames"


def make_index(folder: Path, *, columns: bool = True, clips: int = 24) -> Path:
    """Runs are wide and walks are not; test clips are the other way round."""
    lines = [COLUMNS if columns else "path,label,group,split"]
    for number in range(clips + 8):
        label, is_test = ("run", "walk")[number % 2], number >= clips
        (folder / f"{number}.avi").touch()
        cells = [f"{number}.avi", label, f"g{number // 2}", "test" if is_test else "train"]
        wide = (label == "run") != is_test
        lines.append(",".join(cells + (["640" if wide else "320", "240", "9"] if columns else [])))
    index = folder / "index.csv"
    index.write_text("\n".join(lines) + "\n")
    return index


@pytest.mark.slow
def test_columns_of_the_index_are_taken_and_test_clips_are_not(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    found, notes = floor_of_index(index, read_index(index))
    assert found is not None
    assert (found.accuracy, found.num_clips, found.telling) == (1.0, 24, ("width",))
    assert notes == ()


@pytest.mark.slow
def test_without_columns_files_are_opened_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index(tmp_path, columns=False)
    for number in range(24):
        encode_clip(tmp_path / f"{number}.avi", moving_scene(4 + 4 * (number % 2), seed=number))
    found, _ = floor_of_index(index, read_index(index))
    assert found is not None
    assert (found.accuracy, found.num_clips) == (1.0, 24)
    monkeypatch.setattr(no_look_floor, "MAX_PROBED", 21)
    found, _ = floor_of_index(index, read_index(index))
    assert found is not None
    assert found.num_clips == 21


def test_what_prepare_found_counts_for_its_own_index(tmp_path: Path) -> None:
    index = make_index(tmp_path, clips=8)
    told = NoLook(0.4, 0.1, 0.3, None, None, ("width",), (), 30, 5)
    values = {**told.__dict__, "traits": ["width"], "telling": []}
    document = {"index_sha256": sha256_of(index), "no_look": values}
    (tmp_path / "prepare.json").write_text(json.dumps(document))
    assert floor_of_index(index, read_index(index)) == (told, ())
    index.write_text(index.read_text() + "\n")
    assert floor_of_index(index, read_index(index)) == (None, ())


def test_without_scikit_learn_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    index = make_index(tmp_path)
    found, (note,) = floor_of_index(index, read_index(index))
    assert found is None
    assert "pip install 'edgepkd[train]'" in note
