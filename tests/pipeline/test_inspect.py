"""`inspect` as a function: bundles, their engines, and every kind of video source."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from edgepkd.bundle.reading import Bundle
from edgepkd.errors import BundleError, ConfigError, SourceError
from edgepkd.pipeline.inspect import BundleReport, VideoReport, inspect
from edgepkd.pipeline.run import SourceFailed, SourcesSkipped
from tests import stored_engines
from tests.clips import right_and_left, translating_texture
from tests.runtime.bundles import make_bundle
from tests.runtime.openvino_engines import add_openvino_engines

SIZE = (160, 96)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return right_and_left(tmp_path_factory.mktemp("clips"), num_frames=24)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path)


def test_a_bundle_and_videos_in_one_go(bundle: Bundle, clips: Path) -> None:
    first, *videos = inspect([str(bundle.path), clips])
    assert isinstance(first, BundleReport)
    assert (first.bundle, first.engines) == (bundle, ())
    assert [v.verdict.route for v in videos if isinstance(v, VideoReport)] == ["native"] * 2


def test_what_names_a_bundle_must_be_one(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        list(inspect(str(tmp_path / "absent.edgepkd")))
    (bundle.path / "wise.json").write_text("{}")
    with pytest.raises(BundleError, match=r"wise\.json has 2 bytes"):
        list(inspect(bundle.path))


@pytest.mark.slow
def test_engines_are_whole_covered_or_unreadable(bundle: Bundle) -> None:
    folder = add_openvino_engines(bundle)

    def found() -> tuple[bool, str | None]:
        (report,) = inspect(bundle.path)
        assert isinstance(report, BundleReport)
        (engines,) = report.engines
        assert engines.target == "openvino"
        return engines.is_covered, engines.error

    assert found() == (True, None)
    stored_engines.edit(folder, lambda values: values.update(precision="auto"), listed=False)
    assert found() == (False, None)
    (folder / "engines.json").write_text("{")
    is_covered, error = found()
    assert not is_covered
    assert "engines.json" in str(error)


def test_a_bad_video_is_an_event_and_the_others_follow(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no")
    (tmp_path / "b.mp4").symlink_to(clips / "right.mp4")
    failed, video = inspect(str(tmp_path))
    assert isinstance(failed, SourceFailed)
    assert failed.source.endswith("a.mp4")
    assert isinstance(video, VideoReport)
    with pytest.raises(SourceError, match="does not exist"):
        list(inspect(tmp_path / "none.mp4"))


def test_what_is_no_video_is_told_first(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(clips)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing")
    skipped, *videos = inspect(str(tmp_path))
    assert isinstance(skipped, SourcesSkipped)
    assert [one.path.name for one in skipped.skipped] == ["gone.mp4"]
    assert [type(report) for report in videos] == [VideoReport] * 2


def test_an_open_file_is_a_source(clips: Path) -> None:
    right = clips / "right.mp4"
    reports = list(inspect([right, io.BytesIO((clips / "left.avi").read_bytes())]))
    assert [r.info.source for r in reports if isinstance(r, VideoReport)] == [
        str(right), "<file object>"]


def test_pictures_get_the_rate_that_is_given(tmp_path: Path) -> None:
    for number, array in enumerate(translating_texture(5, SIZE, (2, 0))):
        Image.fromarray(array).save(tmp_path / f"{number}.png")
    (given,) = inspect(tmp_path, fps=12.5)
    (assumed,) = inspect(tmp_path)
    assert isinstance(given, VideoReport)
    assert isinstance(assumed, VideoReport)
    assert (given.info.fps, given.notes) == (12.5, ())
    assert "25 a second" in assumed.notes[0]
    with pytest.raises(ConfigError, match=r"fps is nan.*allowed"):
        list(inspect("x.mp4", fps=float("nan")))


def test_no_password_is_told() -> None:
    (failed,) = inspect("rtsp://admin:hunter2@127.0.0.1:9/x")
    assert isinstance(failed, SourceFailed)
    assert failed.source == "rtsp://***@127.0.0.1:9/x"
    assert "hunter2" not in repr(failed)
