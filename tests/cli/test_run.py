"""`edgepkd run` on the command line: what goes to stdout and stderr, exit codes, messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

from edgepkd.bundle.reading import Bundle
from tests import stored_engines
from tests.cli.calling import invoke, lines, process
from tests.clips import encode_clip, translating_texture
from tests.processes import ROOT
from tests.runtime.bundles import make_bundle
from tests.runtime.openvino_engines import add_openvino_engines

pytestmark = pytest.mark.slow


@pytest.mark.smoke
def test_table_and_summary_on_stdout_notes_on_stderr(clips: Path, bundle: Bundle) -> None:
    done = process("run", clips / "right.mp4", "--model", bundle.path)
    assert done.returncode == 0, done.stderr
    for part in ("right", "mv 1 (1/12)", "0.00-0.96", "all of residual and iframe", "2 clips",
                 "exits taken: mv_1 2"):
        assert part in done.stdout
    assert "native: mpeg4 exports motion vectors" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr, "no colours into a pipe"
    quiet = process("run", clips / "right.mp4", "--model", bundle.path, "--quiet")
    assert quiet.stderr == ""
    assert "mv 1 (1/12)" in quiet.stdout


def test_a_narrow_terminal_gets_whole_rows(
    clips: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke("run", clips / "right.mp4", "--model", bundle.path, "-q")
    (first,) = [line for line in shown.stdout.splitlines() if "0.00-0.96" in line]
    assert all(part in first for part in ("right", "100%", "mv 1", "11 seg."))
    assert max(map(len, shown.stdout.splitlines()[2:8])) <= 80


@pytest.mark.smoke
def test_json_to_stdout_is_nothing_but_json(clips: Path, bundle: Bundle) -> None:
    done = process("run", clips / "right.mp4", "--model", bundle.path, "--json", "-", "--top-k", 1)
    first, second, last = lines(done.stdout)
    assert {line["schema_version"] for line in (first, second, last)} == {1}
    assert (first["kind"], second["kind"], last["kind"]) == ("clip", "clip", "summary")
    assert first["label"] == "right"
    assert first["exit"] == {"network": "mv", "exit": 1, "position": 1, "of": 12}
    assert len(first["top_k"]) == 1
    assert set(first["ms"]) == {"read", "decode", "load", "nets", "decision"}
    assert first["decode"]["residuals"] == 0
    assert last["num_clips"] == 2


def test_json_to_a_file_keeps_the_table(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    shown = invoke("run", clips / "right.mp4", "--model", bundle.path, "--json", out)
    assert shown.exit_code == 0
    assert "mv 1 (1/12)" in shown.stdout
    assert [line["kind"] for line in lines(out.read_text())] == ["clip", "clip", "summary"]
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


@pytest.mark.smoke
def test_several_sources_are_labelled_and_a_bad_one_does_not_stop_the_run(
    clips: Path, bundle: Bundle, tmp_path: Path
) -> None:
    for name in ("left.mp4", "right.mp4"):
        (tmp_path / name).symlink_to(clips / name)
    (tmp_path / "odd [b]name[bold].mp4").write_bytes(b"\0" * 500)
    out = tmp_path / "out.jsonl"
    done = process("run", tmp_path, "--model", bundle.path, "--clips", 1, "--json", out)
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "odd [b]name[bold].mp4 cannot be opened" in done.stderr
    assert done.stdout.index("left.mp4") < done.stdout.index("right.mp4")
    assert "1 of 3 sources failed" in done.stdout
    assert [line["kind"] for line in lines(out.read_text())] == [
        "clip", "error", "clip", "summary"]


def test_static_order_threshold_and_max_exit(clips: Path, bundle: Bundle) -> None:
    def exits(*options: object) -> set[int]:
        done = invoke("run", clips / "right.mp4", "--model", bundle.path, "--json", "-", "-q",
                      *options)
        assert done.exit_code == 0, done.output
        return {line["exit"]["position"] for line in lines(done.stdout)[:-1]}

    assert exits("--static") == {12}
    assert exits("--threshold", 1, "--max-exit", 6) == {6}
    assert exits("--order", "iframe,mv,residual") == {5}
    assert exits() == {1}


def test_a_pipe_answers_line_by_line(clips: Path, bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgepkd.cli.main", "run", "-", "--model", str(bundle.path)],
        input=(clips / "right.mp4").read_bytes(), capture_output=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stdout.decode().splitlines()
    assert "0.00-0.96 s  right" in first
    assert "0.96-1.44 s  right" in second


@pytest.mark.smoke
def test_save(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    done = invoke("run", clips / "right.mp4", "--model", bundle.path, "--save", out)
    assert done.exit_code == 0
    assert f"saved {out}" in done.stderr
    with av.open(str(out)) as container:
        assert len(list(container.decode(video=0))) == 36


def test_several_arguments_are_several_sources(clips: Path, bundle: Bundle) -> None:
    right, left = clips / "right.mp4", clips / "left.mp4"
    done = invoke("run", right, left.as_uri(), right, "--model", bundle.path, "--json", "-", "-q",
                  "--clips", 1)
    assert done.exit_code == 0, done.output
    assert [line.get("source") for line in lines(done.stdout)] == [
        str(right), str(left), str(right), None]
    saved = invoke("run", right, left, "--model", bundle.path, "--save", clips / "out.mp4")
    assert saved.exit_code == 2
    assert "2 sources; allowed: exactly one" in saved.stderr


def test_what_is_skipped_is_said(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(clips)
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    done = invoke("run", tmp_path, "--model", bundle.path, "--json", "-", "--clips", 1)
    assert done.exit_code == 0
    assert f"skipped: {tmp_path / 'gone'}: a broken link" in done.stderr
    assert [line["kind"] for line in lines(done.stdout)] == ["skipped", "clip", "clip", "summary"]
    assert lines(done.stdout)[0]["path"] == str(tmp_path / "gone")
    quiet = invoke("run", tmp_path, "--model", bundle.path, "--clips", 1, "-q")
    assert quiet.stderr == ""
    shown = invoke("inspect", tmp_path, "--json", "-")
    assert [line["kind"] for line in lines(shown.stdout)] == ["skipped", "video", "video"]


def test_the_rate_of_pictures_is_said(bundle: Bundle, tmp_path: Path) -> None:
    for number, array in enumerate(translating_texture(36, (160, 96), (2, 0))):
        Image.fromarray(array).save(tmp_path / f"{number}.png")
    pattern = tmp_path / "*.png"
    done = invoke("run", pattern, "--model", bundle.path, "--json", "-", "--clips", 1)
    assert "taken as 25 a second; --fps gives another rate" in done.stderr
    assert lines(done.stdout)[0]["end_s"] == pytest.approx(0.96)
    done = invoke("run", pattern, "--model", bundle.path, "--json", "-", "--clips", 1, "--fps", 10)
    assert "a second" not in done.stderr
    assert lines(done.stdout)[0]["end_s"] == pytest.approx(2.4)
    assert "25 a second" in invoke("inspect", pattern).stderr
    (line,) = lines(invoke("inspect", pattern, "--fps", 12.5, "--json", "-").stdout)
    assert line["fps"] == 12.5


@pytest.mark.parametrize("verb", ["run", "inspect"])
def test_limits_are_lowered_and_raised_by_name(clips: Path, bundle: Bundle, verb: str) -> None:
    clip = [verb, clips / "right.mp4", *(["--model", bundle.path] if verb == "run" else [])]
    done = invoke(*clip, "--limit", "pixels=15000", "--limit", "streams=9")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-2:] == [
        f"error: {clips / 'right.mp4'} has pictures of 160x96, too many pixels (15360); allowed: "
        "15000, the limit pixels.", "  next: If you trust the source: --limit pixels=15360."]
    assert invoke(*clip, "--limit", "pixels=15000", "--limit", "pixels=15360").exit_code == 0


@pytest.mark.parametrize("verb", ["run", "inspect"])
def test_playlists_are_opened_if_allowed(
    clips: Path, bundle: Bundle, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "part.mp4").write_bytes((clips / "right.mp4").read_bytes())
    (tmp_path / "lie.mp4").write_text("ffconcat version 1.0\nfile part.mp4\n")
    clip = [verb, tmp_path / "lie.mp4", *(["--model", bundle.path] if verb == "run" else [])]
    done = invoke(*clip)
    assert done.exit_code == 1
    assert "is a concat script, which names other files or addresses" in done.stderr
    assert "next: If you trust all that it names: --allow-playlists." in done.stderr
    assert invoke(*clip, "--allow-playlists").exit_code == 0


@pytest.mark.parametrize(("options", "code", "message"), [
    (["none.mp4"], 1, "none.mp4 does not exist"),
    (["{clip}", "--model", "none.edgepkd"], 1, "no such folder"),
    (["{clip}", "--clips", "few"], 2, "clips is 'few'"),
    (["{clip}", "--clips", "0"], 2, "clips is 0"),
    (["{clip}", "--fps", "0"], 2, "fps is 0"),
    (["{clip}", "--fps", "nan"], 2, "fps is nan"),
    (["rtsp://admin:hunter2@127.0.0.1:9/x"], 1, "rtsp://***@127.0.0.1:9/x cannot be opened"),
    (["{clip}", "--threshold", "2"], 2, "threshold is 2.0"),
    (["{clip}", "--order", "mv,rgb"], 2, "order is 'mv,rgb'"),
    (["{clip}", "--order", "residual"], 2, "available: iframe; iframe,mv,residual; mv;"),
    (["{clip}", "--max-exit", "13"], 2, "max_exit is 13"),
    (["{clip}", "--static", "--max-exit", "3"], 2, "static goes with"),
    (["{clip}", "--route", "fast"], 2, "route is 'fast'"),
    (["{clip}", "--save", "{clip}"], 2, "is the same file as"),
    (["{clip}", "--save", "out.gif"], 2, "allowed suffixes"),
    (["{clip}", "--limit", "px=9"], 2, "--limit is 'px=9'; allowed: NAME=NUMBER"),
    (["{clip}", "--limit", "pixels=0"], 2, "limit pixels is 0"),
    (["{clip}", "--json", "/nowhere/out.json"], 2, "cannot be written"),
])
def test_errors_are_one_message_and_a_next_step(
    clips: Path, bundle: Bundle, options: list[str], code: int, message: str
) -> None:
    filled = [option.format(clip=clips / "right.mp4") for option in options]
    if "--model" not in filled:
        filled += ["--model", str(bundle.path)]
    done = invoke("run", *filled)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    # A run that began is summed up.
    began = filled[0].startswith("rtsp")
    assert done.stdout.endswith("1 of 1 source failed\n") if began else done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_a_setting_that_the_only_video_cannot_take_is_a_usage_error(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = encode_clip(tmp_path / "a.avi", translating_texture(12, (64, 48), (1, 0)),
                       codec="mjpeg", pix_fmt="yuvj420p")
    done = invoke("run", clip, "--model", bundle.path, "--route", "native", "-q")
    assert done.exit_code == 2
    assert done.stderr.count("error: route is 'native'") == 1


def test_run_uses_engines_from_elsewhere_only_with_trust(clips: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    stored_engines.edit(add_openvino_engines(bundle),
                        lambda values: values.update(precision="auto"), listed=False)
    asked = ("run", clips / "right.mp4", "--model", bundle.path)
    told = invoke(*asked)
    assert told.exit_code == 0
    assert "were not built here by this user" in told.stderr
    assert "--trust-engines" in told.stderr
    (line,) = [line for line in lines(invoke(*asked, "--trust-engines", "--json", "-").stdout)
               if line["kind"] == "summary"]
    assert line["backend"].endswith("with engines/openvino")
