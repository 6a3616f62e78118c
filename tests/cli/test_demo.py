"""`edgepkd demo`: whether the answer is right, and the options of `run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepkd.bundle.reading import Bundle
from tests.cli.calling import invoke, lines


@pytest.mark.slow
@pytest.mark.parametrize(("expected", "code", "verdict"), [
    ("right", 0, "The answer is right (2 of 2 clips)."),
    ("left", 1, "The answer is NOT right (0 of 2 clips)."),
])
def test_demo(
    clips: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    expected: str, code: int, verdict: str,
) -> None:
    facts = {"clip": str(clips / "right.mp4"), "expected_label": expected,
             "attribution": "A. Person, CC BY 4.0"}
    (tmp_path / "demo.json").write_text(json.dumps(facts))
    monkeypatch.setattr("edgepkd.pipeline.demo.DEMO_FACTS", tmp_path / "demo.json")
    monkeypatch.setattr("edgepkd.runtime.model.DEMO_BUNDLE", bundle.path)
    done = invoke("demo")
    assert done.exit_code == code
    for part in (verdict, f"Expected: {expected}.", "A. Person, CC BY 4.0", "mv 1 (1/12)",
                 "skipped: 22 of 24 segments"):
        assert part in done.stdout


@pytest.fixture
def shipped(
    clips: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip and a bundle of the test's in place of those that ship."""
    facts = {"clip": str(clips / "right.mp4"), "expected_label": "right",
             "attribution": "A. Person"}
    (tmp_path / "demo.json").write_text(json.dumps(facts))
    monkeypatch.setattr("edgepkd.pipeline.demo.DEMO_FACTS", tmp_path / "demo.json")
    monkeypatch.setattr("edgepkd.runtime.model.DEMO_BUNDLE", bundle.path)


@pytest.mark.slow
@pytest.mark.usefixtures("shipped")
def test_demo_takes_the_options_of_run(tmp_path: Path) -> None:
    done = invoke("demo", "--json", "-", "--static", "--order", "iframe,mv,residual", "--threads",
                  1, "--backend", "openvino", "--save", tmp_path / "saved.mp4")
    assert done.exit_code == 1, done.output  # still pictures alone do not tell it
    *answers, summary = lines(done.stdout)
    assert [answer["exit"]["position"] for answer in answers] == [12, 12]
    assert (summary["exit_rule"], summary["order"][0]) == ("static", "iframe")
    assert (tmp_path / "saved.mp4").stat().st_size > 0
    for part in ("The answer is NOT right (0 of 2 clips).", "Expected: right.", "saved "):
        assert part in done.stderr
    limited = invoke("demo", "--json", tmp_path / "lines.json", "--threshold", 1, "--max-exit", 3,
                     "-q")
    assert limited.stderr == ""
    assert "The answer is " in limited.stdout
    assert "Expected" not in limited.stdout
    answers = lines((tmp_path / "lines.json").read_text())[:-1]
    assert [answer["exit"]["position"] for answer in answers] == [3, 3]
    assert invoke("demo", "--json", "-", "-q").stderr == ""


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(("options", "message"), [
    (["--static", "--max-exit", "2"], "static goes with threshold or max_exit"),
    (["--threshold", "2"], "threshold is 2.0"), (["--order", "mv,sound"], "order"),
])
def test_demo_refuses_what_run_refuses(options: list[str], message: str) -> None:
    done = invoke("demo", *options)
    assert done.exit_code == 2
    assert message in done.stderr
