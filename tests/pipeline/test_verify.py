"""`data verify` as a function: what is found wrong with a set on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgepkd.datasets.training_form import training_form
from edgepkd.errors import DataError
from edgepkd.pipeline.synth import SynthConfig, synth
from tests.clips import encode_clip, moving_scene
from tests.datasets.sets import make_folder_set, problems
from tests.training.tiny_set import Row, change_index


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "set"
    list(synth(SynthConfig(folder, num_classes=2, num_clips=8, clip_frames=3)))
    return folder


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    """A copy, to be broken."""
    return Path(shutil.copytree(whole, tmp_path / "set"))


def test_verify_finds_what_happened_to_files(broken: Path) -> None:
    videos = broken / "videos"
    (videos / "left" / "scene00.mp4").unlink()
    (videos / "left" / "scene01.mp4").write_bytes(b"other")
    (videos / "right" / "stray.mp4").touch()
    assert problems(broken) == [
        ("index.csv", "does not list videos/right/stray.mp4"),
        ("videos/left/scene00.mp4", "is absent"),
        ("videos/left/scene01.mp4",
         "has other content than when it was prepared (SHA-256)"),
    ]


def test_verify_finds_a_changed_index_and_a_leak(broken: Path) -> None:
    moved = iter(["train"])

    def to_train(row: Row) -> Row:
        return {**row, "split": next(moved, "test")} if row["split"] == "test" else row

    change_index(broken, to_train)
    texts = [text for _, text in problems(broken)]
    assert any("train and test share the group scene0" in text for text in texts)
    assert any("is not the one that prepare.json was written with" in text for text in texts)


def test_verify_decodes_on_demand(broken: Path) -> None:
    path = broken / "videos" / "left" / "scene00.mp4"
    encode_clip(path, moving_scene(5))
    (broken / "prepare.json").unlink()
    change_index(broken, lambda row: {
        **row, **({"sha256": ""} if row["path"].endswith("left/scene00.mp4") else {})})
    assert problems(broken) == []
    assert problems(broken, decode=True) == [
        ("videos/left/scene00.mp4", "has 5 frames; the index says 3"),
        ("videos/left/scene00.mp4", f"is mpeg4 96x64, not in the form {training_form()}"),
    ]
    path.write_bytes(b"\0" * 900)
    ((_, text),) = problems(broken, decode=True)
    assert "cannot be opened" in text


def test_verify_without_an_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.csv cannot be read"):
        problems(tmp_path)


def test_verify_takes_a_set_made_by_hand(tmp_path: Path) -> None:
    make_folder_set(tmp_path, groups=3)
    parts = ("train", "val", "test")
    (tmp_path / "index.csv").write_text("path,label,group,split\n" + "".join(
        f"{label}/g{n}.avi,{label},p{n},{parts[n]}\n" for label in ("run", "walk")
        for n in range(3)))
    assert problems(tmp_path, decode=True) == []
