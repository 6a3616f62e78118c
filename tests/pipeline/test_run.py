"""One function per verb, end to end: encoded clips, the real reader, real segments."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import av
import pytest
from PIL import Image

from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Position
from edgepkd.errors import BundleError, ConfigError, ModelError, SourceError, UsageError
from edgepkd.pipeline import run as pipeline
from edgepkd.pipeline.run import (
    ClipDone,
    RunConfig,
    RunSummary,
    SaveProgress,
    SourceFailed,
    SourceStarted,
    SourceWarning,
)
from edgepkd.runtime.answers import ClipAnswer
from edgepkd.runtime.backend import BackendChosen, open_runner
from edgepkd.runtime.model import open_session
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.settings import ModelConfig
from edgepkd.video.clips import Clip, ClipReader
from tests.clips import encode_clip, right_and_left, translating_texture
from tests.runtime.bundles import make_bundle
from tests.runtime.fake_gpu import TARGET, add_engines, install

SIZE = (160, 96)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with right.mp4 and left.avi: 60 frames each, five GOPs."""
    return right_and_left(tmp_path_factory.mktemp("clips"))


def run(source: Path | str, bundle: Bundle, **settings: Any) -> list[pipeline.RunEvent]:
    return list(pipeline.run(RunConfig(str(source), model=bundle.path, threads=1, **settings)))


def run_into_error(
    source: Path | str, bundle: Bundle, kind: type[BaseException], **settings: Any
) -> list[pipeline.RunEvent]:
    """Events until an error of this kind is raised."""
    events: list[pipeline.RunEvent] = []
    with pytest.raises(kind):
        events.extend(pipeline.run(RunConfig(str(source), model=bundle.path, **settings)))
    return events


def answers(events: list[pipeline.RunEvent]) -> list[ClipAnswer]:
    return [event.answer for event in events if isinstance(event, ClipDone)]


def summary(events: list[pipeline.RunEvent]) -> RunSummary:
    assert isinstance(events[-1], RunSummary)
    return events[-1]


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.parametrize(("name", "label"), [("right.mp4", "right"), ("left.avi", "left")])
def test_motion_alone_answers_and_makes_no_picture(
    clips: Path, bundle: Bundle, name: str, label: str
) -> None:
    events = run(clips / name, bundle)
    assert isinstance(events[0], SourceStarted)
    assert events[0].verdict.route == "native"
    got = answers(events)
    assert [(answer.label, str(answer.exit)) for answer in got] == [(label, "mv_1")] * 3
    assert [answer.start_s for answer in got] == pytest.approx([0, 0.96, 1.92])
    assert got[-1].end_s == pytest.approx(2.4)
    for answer in got:
        assert (answer.decode.frames_rgb, answer.decode.residuals) == (0, 0)
        assert answer.decode.motion_fields == 2
        assert answer.decode.packets_skipped > 0
    total = summary(events)
    assert (total.num_clips, total.num_failed, total.exits) == (3, 0, {"mv_1": 3})
    assert (total.segments_run, total.segments_skipped, total.mean_exit) == (3, 33, 1.0)
    assert total.packets_skipped == sum(answer.decode.packets_skipped for answer in got)
    assert total.exit_rule == "policy"


def test_iframe_first_decodes_no_p_frame(clips: Path, bundle: Bundle) -> None:
    (answer,) = answers(run(clips / "right.mp4", bundle, order="iframe", clips=1))
    assert (answer.decode.motion_fields, answer.decode.residuals) == (0, 0)
    assert answer.decode.packets_decoded == 2, "one I-frame for each temporal segment"
    assert answer.decode.frames_rgb == 2


@pytest.mark.slow
def test_static_runs_everything(clips: Path, bundle: Bundle) -> None:
    events = run(clips / "right.mp4", bundle, static=True, clips=1)
    (answer,) = answers(events)
    assert len(answer.segments_run) == 12
    assert answer.decode.frames_rgb > 0
    assert answer.decode.residuals == 2
    assert answer.gmac == pytest.approx(answer.gmac_static)
    assert summary(events).exit_rule == "static"


@pytest.mark.slow
def test_threshold_and_max_exit(clips: Path, bundle: Bundle) -> None:
    events = run(clips / "right.mp4", bundle, threshold=1.0, max_exit=3)
    assert {answer.exit_number for answer in answers(events)} == {3}
    assert summary(events).exit_rule == "threshold 1, max exit 3"


def test_both_routes_agree(clips: Path, bundle: Bundle) -> None:
    events = run(clips / "right.mp4", bundle, route="normalize")
    assert isinstance(events[0], SourceStarted)
    assert events[0].verdict.route == "normalize"
    assert {answer.label for answer in answers(events)} == {"right"}


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [1, 2, 13])
def test_a_video_shorter_than_a_clip_still_gets_an_answer(
    tmp_path: Path, bundle: Bundle, num_frames: int
) -> None:
    path = encode_clip(tmp_path / "short.mp4", translating_texture(num_frames, SIZE, (2, 0)))
    (answer,) = answers(run(path, bundle))
    assert answer.start_s == 0
    assert answer.end_s == pytest.approx(num_frames / 25)
    (answer,) = answers(run(path, bundle, static=True))
    assert len(answer.segments_run) == 12


def test_clip_and_stride_frames(clips: Path, bundle: Bundle) -> None:
    whole = answers(run(clips / "right.mp4", bundle, clip_frames=60))
    assert [(a.start_s, a.end_s) for a in whole] == [(0, pytest.approx(2.4))]
    sliding = answers(run(clips / "right.mp4", bundle, clip_frames=24, stride_frames=12))
    assert [a.start_s for a in sliding][:3] == pytest.approx([0, 0.48, 0.96])
    assert {a.label for a in sliding} == {"right"}


def test_clips_bounds_each_source(clips: Path, bundle: Bundle) -> None:
    events = run(clips, bundle, clips=2)
    assert len(answers(events)) == 4
    assert [e.source for e in events if isinstance(e, SourceStarted)] == [
        str(clips / "left.avi"), str(clips / "right.mp4")]


def test_a_bad_file_among_good_ones(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    for name in ("left.avi", "right.mp4"):
        (tmp_path / name).write_bytes((clips / name).read_bytes())
    (tmp_path / "middle.mp4").write_bytes(b"\0" * 999)
    events = run(tmp_path, bundle, clips=1)
    (failed,) = [event for event in events if isinstance(event, SourceFailed)]
    assert failed.source.endswith("middle.mp4")
    assert isinstance(failed.error, SourceError)
    assert [answer.label for answer in answers(events)] == ["left", "right"]
    assert (summary(events).num_sources, summary(events).num_failed) == (3, 1)


def test_the_only_source_fails_with_its_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 999)
    failed, total = run_into_error(tmp_path / "bad.mp4", bundle, SourceError)
    assert isinstance(failed, SourceFailed)
    assert isinstance(total, RunSummary)
    assert (total.ended, total.num_sources, total.num_failed) == ("source failed", 1, 1)


def test_a_setting_that_the_only_source_cannot_take_is_raised_too(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = encode_clip(tmp_path / "a.avi", translating_texture(12, SIZE, (2, 0)), codec="mjpeg",
                       pix_fmt="yuvj420p")
    *_, failed, total = run_into_error(path, bundle, ConfigError, route="native")
    assert isinstance(failed, SourceFailed)
    assert "route is 'native'" in failed.error.message
    assert summary([total]).ended == "source failed"


def test_all_of_several_sources_may_fail(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"\0" * 999)
    events = run(tmp_path, bundle)
    assert [type(event) for event in events] == [SourceFailed, SourceFailed, RunSummary]


@pytest.mark.slow
@pytest.mark.parametrize(("error", "ended"), [
    (KeyboardInterrupt(), "interrupted"), (SystemExit(143), "interrupted"),
    (ModelError("no such kernel."), "error"), (SourceError("went away."), "source failed"),
])
def test_what_was_answered_is_summed_up_however_the_run_ends(
    clips: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, error: BaseException, ended: str
) -> None:
    class Breaks(ClipReader):
        def __iter__(self) -> Iterator[Clip]:
            yield from islice(super().__iter__(), 2)
            raise error

    monkeypatch.setattr("edgepkd.video.clips.ClipReader", Breaks)
    events = run_into_error(clips / "right.mp4", bundle, type(error))
    assert len(answers(events)) == 2
    total = summary(events)
    assert (total.ended, total.num_clips) == (ended, 2)
    assert total.error == ("no such kernel." if ended == "error" else None)


def test_an_error_of_whoever_takes_the_events_ends_the_run_with_its_summary(
    clips: Path, bundle: Bundle
) -> None:
    events = pipeline.run(RunConfig(str(clips), model=bundle.path, threads=1))
    next(event for event in events if isinstance(event, ClipDone))
    total = events.throw(KeyboardInterrupt())
    assert isinstance(total, RunSummary)
    assert (total.ended, total.num_clips, total.num_sources) == ("interrupted", 1, 2)
    with pytest.raises(KeyboardInterrupt):
        next(events)


@pytest.mark.slow
def test_times_of_an_answer_and_of_the_run_add_up(clips: Path, bundle: Bundle) -> None:
    events = run(clips / "right.mp4", bundle, static=True)
    first, *later = answers(events)
    assert first.load_ms > 0
    total = summary(events)
    assert total.networks_load_s == pytest.approx(
        sum(answer.load_ms for answer in (first, *later)) / 1e3)
    spent_ms = sum(a.read_ms + a.decode_ms + a.load_ms + a.nets_ms + a.decision_ms
                   for a in (first, *later))
    assert total.networks_load_s < total.wall_s
    assert spent_ms / 1e3 <= total.wall_s


# ---- warnings


class Warns(ClipReader):
    """Has something to say before the first clip, after it, and at the end."""

    def __iter__(self) -> Iterator[Clip]:
        self.warnings.append("it is odd.")
        for number, clip in enumerate(super().__iter__()):
            yield clip
            if number == 0:
                self.warnings += ["a gap.", "another gap."]
        self.warnings.append("it is cut off.")


def test_warnings_are_told_as_they_come_and_counted(
    clips: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepkd.video.clips.ClipReader", Warns)
    events = run(clips / "right.mp4", bundle)
    told = [e.message if isinstance(e, SourceWarning) else type(e).__name__ for e in events]
    assert told == ["SourceStarted", "ClipDone", "it is odd.", "ClipDone", "a gap.",
                    "another gap.", "ClipDone", "it is cut off.", "RunSummary"]
    total = summary(events)
    assert (total.num_warnings, total.ended) == (4, "complete")
    assert total.warnings == ("it is odd.", "a gap.", "another gap.", "it is cut off.")


def test_warnings_come_before_the_error_they_lead_to(
    clips: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(ClipReader):
        def __iter__(self) -> Iterator[Clip]:
            self.warnings += [f"gap {number}." for number in range(25)]
            raise SourceError("it stopped.")
            yield

    monkeypatch.setattr("edgepkd.video.clips.ClipReader", Fails)
    events = run_into_error(clips / "right.mp4", bundle, SourceError)
    assert [type(event) for event in events] == [
        SourceStarted, *[SourceWarning] * 25, SourceFailed, RunSummary]
    assert (summary(events).num_warnings, len(summary(events).warnings)) == (25, 20)


# ---- saving


@pytest.mark.slow
def test_save(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    events = run(clips / "right.mp4", bundle, save=out)
    assert out.stat().st_size > 1000
    assert any(isinstance(event, SaveProgress) for event in events)
    with pytest.raises(UsageError, match="2 sources"):
        run(clips, bundle, save=out)


def test_stopping_half_way_leaves_nothing(clips: Path, bundle: Bundle, tmp_path: Path) -> None:
    events = pipeline.run(RunConfig(str(clips / "right.mp4"), model=bundle.path,
                                    save=tmp_path / "out.mp4"))
    next(event for event in events if isinstance(event, SaveProgress))
    events.close()
    assert list(tmp_path.iterdir()) == []


class Watched(OpenVinoRunner):
    """Counts how often it is closed, and fails where a test says."""

    made: ClassVar[list[Watched]] = []
    fails = False

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.closed = 0
        self.made.append(self)

    def run(self, position: Position, x: Any) -> tuple[Any, Any]:
        if self.fails:
            raise ModelError("broken")
        return super().run(position, x)

    def close(self) -> None:
        super().close()
        self.closed += 1


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    monkeypatch.setattr("edgepkd.runtime.openvino_runner.OpenVinoRunner", Watched)
    monkeypatch.setattr(Watched, "made", [])
    return Watched


def test_the_runner_is_closed_at_the_end(
    clips: Path, bundle: Bundle, watched: type[Watched]
) -> None:
    run(clips / "right.mp4", bundle, clips=1)
    assert [runner.closed for runner in watched.made] == [1]


def test_the_runner_is_closed_when_the_run_is_given_up(
    clips: Path, bundle: Bundle, watched: type[Watched]
) -> None:
    events = pipeline.run(RunConfig(str(clips), model=bundle.path))
    next(event for event in events if isinstance(event, ClipDone))
    assert [runner.closed for runner in watched.made] == [0]
    events.close()
    assert [runner.closed for runner in watched.made] == [1]


def test_the_runner_is_closed_on_errors(
    clips: Path, bundle: Bundle, watched: type[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="available"):
        run(clips, bundle, order="residual")
    with pytest.raises(UsageError, match="available"):
        open_session(bundle, ModelConfig(order="residual"))
    monkeypatch.setattr(Watched, "fails", True)
    with pytest.raises(ModelError, match="broken"):
        run(clips / "right.mp4", bundle)
    assert len(watched.made) == 3
    assert all(runner.closed for runner in watched.made)


def test_what_is_wrong_with_the_request_or_the_model_ends_the_run(
    clips: Path, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        run(tmp_path / "none.mp4", bundle)
    with pytest.raises(UsageError, match="available"):
        run(clips, bundle, order="residual")
    with pytest.raises(BundleError, match="is not a bundle"):
        list(pipeline.run(RunConfig(str(clips), model=tmp_path)))


@pytest.mark.parametrize("settings", [
    {"threshold": 1.1}, {"threshold": -0.1}, {"threshold": float("nan")}, {"max_exit": 0},
    {"clips": 0}, {"top_k": 0}, {"clip_frames": 0}, {"stride_frames": -1}, {"threads": 0},
    {"route": "fast"}])
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is .*allowed"):
        RunConfig("x.mp4", **settings)


@pytest.mark.parametrize("other", [{"threshold": 0.5}, {"max_exit": 3}])
def test_static_excludes_the_rest(other: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="static goes with"):
        RunConfig("x.mp4", static=True, **other)




@pytest.mark.slow
@pytest.mark.parametrize(("settings", "pixels"), [
    ({}, True), ({"max_exit": 4}, False), ({"order": "iframe,mv,residual", "max_exit": 8}, False),
    ({"order": "mv"}, False), ({"order": "iframe"}, False), ({"max_exit": 5}, True),
])
def test_p_frame_pixels_are_made_only_if_the_residual_may_be_asked_for(
    clips: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any],
    pixels: bool,
) -> None:
    asked: list[bool] = []

    class Watched(ClipReader):
        def __init__(self, source: Any, **kwargs: Any) -> None:
            asked.append(kwargs["decode"].pixels)
            super().__init__(source, **kwargs)

    monkeypatch.setattr("edgepkd.video.clips.ClipReader", Watched)
    run(clips / "right.mp4", bundle, clips=1, **settings)
    assert asked == [pixels]


# ---- backends


def chosen(bundle: Bundle, backend: str = "auto") -> tuple[str, BackendChosen | None]:
    """Library that a run would use, and what it tells of its choice."""
    runner, choice = open_runner(bundle, ModelConfig(backend=backend))
    return runner.backend.split()[0], choice


def test_without_engines_there_is_nothing_to_choose(bundle: Bundle) -> None:
    assert chosen(bundle) == ("openvino", None)


@pytest.mark.slow
def test_auto_takes_engines_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch)
    own = make_bundle(tmp_path)
    add_engines(own)
    library, choice = chosen(own)
    assert library == "tensorrt"
    assert choice is not None
    assert (choice.backend, "this machine" in choice.reason) == (TARGET, True)
    assert chosen(own, TARGET) == ("tensorrt", None)
    assert chosen(own, "openvino") == ("openvino", None)
    assert trt.deserialised == [], "nothing is loaded before a clip asks for it"


def test_auto_leaves_foreign_engines_alone_and_says_why(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch)
    own = make_bundle(tmp_path)
    add_engines(own, compute_capability="9.0")
    events = run(clips / "right.mp4", own, clips=1)
    assert isinstance(events[0], BackendChosen)
    assert events[0].backend == "openvino"
    assert "9.0" in events[0].reason
    assert {answer.label for answer in answers(events)} == {"right"}
    with pytest.raises(BundleError, match=r"9\.0"):
        chosen(own, TARGET)
    assert trt.deserialised == []


def test_a_run_on_engines_answers_as_on_the_cpu_and_stops_as_early(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch)
    own = make_bundle(tmp_path)
    add_engines(own)
    events = run(clips / "right.mp4", own, backend=TARGET)
    assert {(a.label, str(a.exit)) for a in answers(events)} == {("right", "mv_1")}
    assert summary(events).backend.startswith("tensorrt ")
    assert len(trt.deserialised) == 1, "the other eleven engines were never loaded"


@pytest.mark.parametrize("backend", ["no-such-target", "jetson-thor"])
def test_a_backend_without_engines_says_how_to_build_them(bundle: Bundle, backend: str) -> None:
    with pytest.raises(BundleError, match="has no engines for") as caught:
        chosen(bundle, backend)
    assert f"--target {backend}" in (caught.value.hint or "")


@pytest.mark.parametrize("backend", ["", "../engines", "a/b", ".hidden"])
def test_a_backend_is_a_plain_name(backend: str) -> None:
    with pytest.raises(ConfigError, match="backend is"):
        RunConfig("x.mp4", backend=backend)


@pytest.mark.slow
def test_events_show_no_password(bundle: Bundle) -> None:
    address = "rtsp://admin:hunter2@127.0.0.1:9/x"
    events = run_into_error(address, bundle, SourceError)
    (failed,) = [event for event in events if isinstance(event, SourceFailed)]
    assert failed.source == "rtsp://***@127.0.0.1:9/x"
    assert "hunter2" not in repr(events)


# ---- kinds of sources


@pytest.mark.slow
def test_sources_may_be_paths_lists_and_open_files(clips: Path, bundle: Bundle) -> None:
    right, left = clips / "right.mp4", clips / "left.avi"
    with left.open("rb") as file:
        config = RunConfig([right, file, str(right)], model=bundle.path, threads=1, clips=1)
        events = list(pipeline.run(config))
        assert not file.closed
    assert [e.source for e in events if isinstance(e, SourceStarted)] == [
        str(right), str(left), str(right)]
    assert [answer.label for answer in answers(events)] == ["right", "left", "right"]
    data = io.BytesIO(right.read_bytes())
    (answer,) = answers(list(pipeline.run(RunConfig(data, model=bundle.path, clips=1))))
    assert answer.label == "right"
    with pytest.raises(UsageError, match="<file object>"):
        list(pipeline.run(RunConfig(data, model=bundle.path, save=clips / "out.mp4")))


def test_what_a_folder_holds_beside_videos_is_an_event(
    clips: Path, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "linked").symlink_to(clips)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing")
    (tmp_path / "notes.txt").touch()
    events = run(tmp_path, bundle, clips=1)
    assert isinstance(events[0], pipeline.SourcesSkipped)
    assert [(one.path.name, one.reason[:15]) for one in events[0].skipped] == [
        ("gone.mp4", "a broken link t"), (tmp_path.name, "1 file with .tx")]
    assert {answer.label for answer in answers(events)} == {"left", "right"}


@pytest.mark.slow
def test_pictures_are_answered_and_saved_at_the_rate_given(
    bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "seq"
    folder.mkdir()
    for number, array in enumerate(translating_texture(60, SIZE, (2, 0))):
        Image.fromarray(array).save(folder / f"{number}.png")
    out = tmp_path / "out.mp4"
    events = run(folder / "*.png", bundle, fps=10, save=out)
    started = events[0]
    assert isinstance(started, SourceStarted)
    assert (started.info.fps, started.verdict.route, started.notes) == (10, "normalize", ())
    got = answers(events)
    assert got[0].label == "right"
    assert [answer.start_s for answer in got] == pytest.approx([0, 2.4, 4.8])
    with av.open(str(out)) as container:
        assert container.duration / 1e6 == pytest.approx(6, abs=0.11)
    (started, *_) = run(folder, bundle, clips=1)
    assert isinstance(started, SourceStarted)
    assert "25 a second" in started.notes[0]


@pytest.mark.parametrize("fps", [0, -5, float("nan"), float("inf"), 1000.5])
def test_frame_rates_out_of_range(fps: float) -> None:
    with pytest.raises(ConfigError, match=r"fps is .*allowed"):
        RunConfig("x.mp4", fps=fps)
