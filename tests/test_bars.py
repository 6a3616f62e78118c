"""Bars at the widths that terminals have: what says how far it is stays whole."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from edgepkd.bars import Steps, clock, progress

LOSSES = ("loss 0.812  loss calibration 1.234  accuracy calibration exit 1 0.812"
          "  accuracy calibration exit 2 0.731")


def drawn(width: int, title: str, *, counts: bool = True) -> str:
    """A bar of 12 of 60 epochs that have taken 10 s each."""
    out, now = io.StringIO(), [0.0]
    console = Console(file=out, width=width, force_terminal=True, color_system=None,
                      get_time=lambda: now[0])
    bars = progress(console, counts=counts)
    task = bars.add_task(title, total=60, numbers=LOSSES)
    for epoch in range(13):
        bars.update(task, completed=epoch)
        now[0] += 10.0
    console.print(bars.get_renderable())
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("title", ["exits residual", "decode " + 20 * "long-name-"])
def test_bar_count_and_time_left_survive_and_losses_give_way(width: int, title: str) -> None:
    [line] = drawn(width, title).rstrip("\n").split("\n")
    assert len(line.rstrip()) <= width
    assert title[:10] in line
    assert len(re.findall("━", line)) >= 2
    assert re.search(r" 12/60 ", line)
    assert re.search(r" left (0:0)?[0-9]:?[0-9]{2}", line) or " left 08:00" in line
    assert "loss 0.812" in line or width < 120


def test_without_a_count_the_numbers_stay() -> None:
    line = drawn(80, "clip.mp4", counts=False)
    assert "12/60" not in line
    assert "left 08:00" in line
    assert "loss" in line


def test_without_a_terminal_there_is_a_line_at_every_tenth_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    out, now = io.StringIO(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Steps(Console(file=out, width=60)) as steps:
        for done in range(1, 21):
            now[0] += 60
            steps.update("decode", done, 20, numbers="loss 0.5")
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[1] == "decode  4/20  left 0:16:00  loss 0.5"
    assert lines[-1] == "decode  20/20  loss 0.5"


def test_what_was_done_before_counts_for_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    out, now = io.StringIO(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Steps(Console(file=out, width=60), every=1) as steps:
        steps.begin("mv", 10)
        steps.begin("mv", 10, done=8)
        now[0] = 30.0
        steps.update("mv", 9, 10)
    assert out.getvalue() == "mv  9/10  left 0:00:30\n"


def test_quiet_is_quiet() -> None:
    for console in (Console(file=io.StringIO(), width=60),
                    Console(file=io.StringIO(), width=60, force_terminal=True)):
        with Steps(console, quiet=True) as steps:
            steps.update("decode", 5, 5)
        assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_hostile_title_moves_nothing() -> None:
    assert "\x1b[2J" not in drawn(80, "a\x1b[2Jb")


def test_a_clock() -> None:
    assert [clock(s) for s in (0.4, 59.6, 3725)] == ["0:00:00", "0:01:00", "1:02:05"]
