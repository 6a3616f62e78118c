"""Annotated video: whole or absent, same times, the bar where the answer is."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edgepkd.errors import MissingExtraError, StorageError, UsageError
from edgepkd.runtime import annotate
from edgepkd.runtime.annotate import check_target, save_annotated
from tests.clips import encode_clip
from tests.outputs import place
from tests.runtime.drawing import FPS, answer, frames, grey, has_bar, save


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "codec"), [
    (".mp4", "h264"), (".mkv", "h264"), (".mov", "h264"), (".avi", "mpeg4")])
def test_bar_shows_while_a_clip_lasts(tmp_path: Path, suffix: str, codec: str) -> None:
    source = encode_clip(tmp_path / "in.mp4", grey(30), fps=FPS)
    out = tmp_path / f"out{suffix}"
    save(source, out, [answer(0.2, 0.6), answer(0.8, 1.0)])
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.name == codec
    got = frames(out)
    assert [frame.time for frame in got] == pytest.approx([n / FPS for n in range(30)], abs=2e-3)
    # No answer before the first clip and between two; the last one stays to the end.
    assert [has_bar(frame) for frame in got] == [
        0.2 <= n / FPS < 0.6 or n / FPS >= 0.8 for n in range(30)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, out.name])


def test_text_is_drawn(tmp_path: Path) -> None:
    source = encode_clip(tmp_path / "in.mp4", grey(2, (320, 240)), fps=FPS)
    pictures = {}
    for label in ("wave", "punch"):
        save(source, tmp_path / f"{label}.mp4", [answer(0, 1, label=label)])
        pictures[label] = frames(tmp_path / f"{label}.mp4")[0].to_ndarray(format="gray")
    assert pictures["wave"][-16:].max() > 200
    assert np.abs(pictures["wave"].astype(int) - pictures["punch"]).max() > 100


def test_a_file_that_came_into_being_meanwhile_stays(tmp_path: Path) -> None:
    source = encode_clip(tmp_path / "in.mp4", grey(60), fps=FPS)
    out = place(tmp_path / "out.mp4")
    writing = save_annotated(str(source), [answer(0, 3)], out, fps=FPS)
    next(writing)
    out.place.write_text("of another process")
    with pytest.raises(StorageError, match="another file has this name by now"):
        list(writing)
    assert out.place.read_text() == "of another process"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_missing_pillow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "PIL" or name.startswith("PIL."):
            raise ModuleNotFoundError("No module named 'PIL'", name="PIL")
        return real(name, *rest, **more)

    source = encode_clip(tmp_path / "in.mp4", grey(2), fps=FPS)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="pillow"):
        save(source, tmp_path / "out.mp4", [answer(0, 1)])
    assert not (tmp_path / "out.mp4").exists()


def test_targets_that_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(b"x")
    link = tmp_path / "link.mp4"
    link.symlink_to(source)
    old, pipe = tmp_path / "old.mp4", tmp_path / "pipe.mp4"
    old.write_bytes(b"y")
    os.mkfifo(pipe)
    one = [str(source)]
    for out, sources, message in (
        (source, one, "is the same file as .*in.mp4, which is read"),
        (link, one, "is the same file as .*in.mp4, which is read"),
        (tmp_path / "out.gif", one, "allowed suffixes"),
        (tmp_path / "none" / "out.mp4", one, "cannot be written"),
        (old, one, "is there already"), (pipe, one, "a pipe or a device"),
        (tmp_path / "out.mp4", one * 2, "2 sources"),
        (tmp_path / "out.mp4", ["-"], "exactly one video file"),
        (tmp_path / "out.mp4", ["rtsp://camera"], "exactly one video file"),
    ):
        with pytest.raises(UsageError, match=message):
            check_target(out, sources=sources, model=tmp_path / "no.edgepkd")
    check_target(tmp_path / "out.mp4", sources=one, model=tmp_path / "no.edgepkd")


@pytest.mark.parametrize("label", [
    "a\nb", "a\x1b[31m\x07\r", "[bold]x[/bold]", "\u0938\u0902", "walk \U0001f6b6", "\udce9", ""])
def test_any_label_is_drawn(tmp_path: Path, label: str) -> None:
    source = encode_clip(tmp_path / "in.mp4", grey(3))
    save(source, tmp_path / "out.mp4", [answer(0, 1, label=label)])
    assert all(has_bar(frame) for frame in frames(tmp_path / "out.mp4"))


def test_a_label_is_drawn_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert annotate._caption(answer(0, 1, label="a\n\x1b[1mb")).left == r"a\n\x1b[1mb  90%"
