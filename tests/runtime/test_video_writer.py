"""A video drawn on again: its times, its sizes, whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.errors import DecodeError, StorageError
from edgepkd.runtime import video_writer
from edgepkd.runtime.annotate import save_annotated
from tests.clips import encode_clip, translating_texture
from tests.disks import TOO_LARGE, largest_file
from tests.outputs import place
from tests.runtime.drawing import FPS, answer, frames, grey, has_bar, save


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    pts = [0, 1, 2, 10, 11, 30]
    source = encode_clip(tmp_path / "in.mkv", grey(6), fps=FPS, pts=pts)
    save(source, tmp_path / "out.mkv", [answer(0, 2)])
    assert [frame.time for frame in frames(tmp_path / "out.mkv")] == pytest.approx(
        [p / FPS for p in pts], abs=2e-3)


def test_until_s_cuts_the_rest_off(tmp_path: Path) -> None:
    source = encode_clip(tmp_path / "in.mp4", grey(30), fps=FPS)
    save(source, tmp_path / "out.mp4", [answer(0, 0.4)], until_s=0.4)
    assert len(frames(tmp_path / "out.mp4")) == 10


@pytest.mark.smoke
@pytest.mark.parametrize("size", [(16, 16), (33, 19), (640, 32), (48, 200)])
@pytest.mark.parametrize("label", ["x", "a very long label " * 8, "日本 [bold] é"])
def test_any_size_and_any_label(tmp_path: Path, size: tuple[int, int], label: str) -> None:
    source = encode_clip(tmp_path / "in.mkv", grey(2, size), codec="ffv1", fps=FPS)
    save(source, tmp_path / "out.mp4", [answer(0, 1, label=label)])
    first = frames(tmp_path / "out.mp4")[0]
    assert (first.width, first.height) == (size[0] & ~1, size[1] & ~1)


def test_pictures_that_get_another_size_are_drawn_on_too(tmp_path: Path) -> None:
    parts = [encode_clip(tmp_path / f"{width}.264", grey(6, (width, 120)), codec="libx264",
                         gop=6, fps=FPS).read_bytes() for width in (160, 96, 200)]
    source = tmp_path / "joined.264"
    source.write_bytes(b"".join(parts))
    save(source, tmp_path / "out.mp4", [answer(0, 9)])
    found = frames(tmp_path / "out.mp4")
    assert {(frame.width, frame.height) for frame in found} == {(160, 120)}
    assert len(found) == 18
    assert all(map(has_bar, found))


def test_nothing_is_left_when_the_caller_stops(tmp_path: Path) -> None:
    source = encode_clip(tmp_path / "in.mp4", grey(60), fps=FPS)
    writing = save_annotated(str(source), [answer(0, 3)], place(tmp_path / "out.mp4"),
                             fps=FPS)
    next(writing)
    writing.close()
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_an_older_output_survives_a_source_without_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = encode_clip(tmp_path / "in.mp4", grey(3), fps=FPS)
    (tmp_path / "out.mp4").write_text("from before")
    monkeypatch.setattr(video_writer, "_frames", lambda video: iter(()))
    with pytest.raises(DecodeError, match="no frame that decodes"):
        save(source, tmp_path / "out.mp4", [answer(0, 1)])
    assert (tmp_path / "out.mp4").read_text() == "from before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mkv", ".mov", ".avi"])
def test_an_older_output_survives_a_full_disk(tmp_path: Path, suffix: str) -> None:
    source = encode_clip(tmp_path / "in.mp4", translating_texture(12, (320, 240), (3, 1)))
    out = tmp_path / f"out{suffix}"
    save(source, out, [answer(0, 1)])
    size = out.stat().st_size
    assert size > 12_000
    out.write_text("from before")
    for room in (0, 1, size // 3, 2 * size // 3, size - 300):
        with largest_file(room), pytest.raises(
                StorageError, match=rf"out\{suffix} cannot be written: {TOO_LARGE}"):
            save(source, out, [answer(0, 1)])
        assert out.read_text() == "from before"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", out.name]
