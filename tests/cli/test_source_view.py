"""What verbs that read sources show alike: whatever ends them, what was done is shown first."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgepkd.cli import output
from edgepkd.cli.source_view import SourceView, drain, is_endless, troubles
from edgepkd.errors import ConfigError, EdgepkdError, SourceError
from edgepkd.pipeline.run import SourceFailed, SourceWarning


@dataclass(frozen=True)
class End:
    ended: str = "complete"
    num_sources: int = 1
    num_failed: int = 0
    num_warnings: int = 0


class View(SourceView[End]):
    """Shows words."""

    def take(self, event: Any) -> None:
        if isinstance(event, End):
            self.summary = event
        else:
            self.take_source(event)

    def write(self, lines: output.JsonLines, event: Any) -> None:
        lines.write("end" if isinstance(event, End) else "word", {"what": str(event)})
        if isinstance(event, End):
            lines.keep()

    def finish(self) -> None:
        self._out.print(f"finished: {self.summary}")


def shown(events: Generator[Any, None, None], tmp_path: Path) -> tuple[View, list[str]]:
    """The view after the events, and the kinds of the JSON lines."""
    view = View(as_lines=False, on_stdout=True, quiet=True)
    place = tmp_path / "out.jsonl"
    try:
        drain(events, view, json_to=output.json_target(str(place), force=False), endless=False)
    finally:
        lines = place.read_text().splitlines() if place.exists() else []
    return view, [json.loads(line)["kind"] for line in lines]


def test_events_are_shown_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def events() -> Generator[Any, None, None]:
        yield "a word"
        yield SourceWarning("a.mp4", "it breaks off.")
        yield SourceWarning("a.mp4", "a.mp4 is odd.")
        yield SourceFailed("b.mp4", SourceError("b.mp4 is empty.", hint="Copy it again."))
        yield End(num_sources=2, num_failed=1)

    view, kinds = shown(events(), tmp_path)
    said = capsys.readouterr()
    assert kinds == ["word", "warning", "warning", "error", "end"]
    assert said.err.splitlines() == [
        "warning: a.mp4: it breaks off.", "warning: a.mp4 is odd.", "error: b.mp4 is empty.",
        "  next: Copy it again."]
    assert said.out.startswith("finished: End(")
    assert view.exit_code == 1


@pytest.mark.parametrize(("error", "code"), [(SourceError("no."), 1), (ConfigError("no."), 2)])
def test_the_error_of_the_only_source_is_the_exit_code_and_not_raised_again(
    tmp_path: Path, error: EdgepkdError, code: int
) -> None:
    def events() -> Generator[Any, None, None]:
        yield SourceFailed("a.mp4", error)
        yield End(num_failed=1)
        raise error

    assert shown(events(), tmp_path)[0].exit_code == code


def test_ctrl_c_between_events_is_summed_up_then_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def events() -> Generator[Any, None, None]:
        try:
            yield "a word"
        except KeyboardInterrupt:
            yield End(ended="interrupted")

    def interrupted(self: View, source: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(View, "take_source", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shown(events(), tmp_path)
    assert "finished: End(ended='interrupted'" in capsys.readouterr().out
    assert '"end"' in (tmp_path / "out.jsonl").read_text()


def test_an_error_before_there_is_a_summary_is_raised_and_nothing_written(tmp_path: Path) -> None:
    def events() -> Generator[Any, None, None]:
        yield "a word"
        raise SourceError("no.")

    with pytest.raises(SourceError):
        shown(events(), tmp_path)
    assert not (tmp_path / "out.jsonl").exists()


def test_words() -> None:
    assert troubles(End()) == []
    assert troubles(End("interrupted", 3, 1, 2)) == ["1 of 3 sources failed", "2 warnings",
                                                     "interrupted"]
    assert troubles(End("error")) == ["ended by an error"]
    assert [is_endless([s]) for s in ("a.mp4", "-", "rtsp://x/y", "/dev/video0")] == [
        False, True, True, True]
