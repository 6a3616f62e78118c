"""`edgepkd.load`: what comes out is what `edgepkd run` says; errors are errors, not empty lists."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgepkd
from edgepkd.bundle.reading import Bundle
from edgepkd.errors import (
    BundleError,
    ConfigError,
    DecodeError,
    EdgepkdWarning,
    ModelError,
    SourceError,
    UsageError,
)
from edgepkd.pipeline.run import ClipDone, RunConfig, run
from edgepkd.runtime import openvino_runner
from edgepkd.runtime.answers import ClipAnswer
from edgepkd.runtime.model import Model
from edgepkd.runtime.settings import ModelConfig, ReadConfig
from tests.clips import encode_clip, right_and_left, translating_texture
from tests.processes import ROOT
from tests.runtime.bundles import make_bundle

SIZE = (160, 96)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with right.mp4 and left.avi: 60 frames each, three clips of 24 or fewer frames."""
    return right_and_left(tmp_path_factory.mktemp("clips"))


def timeless(answer: ClipAnswer) -> ClipAnswer:
    return replace(answer, read_ms=0, decode_ms=0, load_ms=0, nets_ms=0, decision_ms=0)


def test_answers_are_those_of_the_verb(bundle: Bundle, clips: Path) -> None:
    with edgepkd.load(bundle.path, threads=1) as model:
        own = [timeless(answer) for answer in model.run(clips / "right.mp4")]
    events = run(RunConfig(str(clips / "right.mp4"), model=bundle.path, threads=1))
    assert own == [timeless(event.answer) for event in events if isinstance(event, ClipDone)]
    assert [answer.label for answer in own] == ["right"] * 3
    assert {answer.source for answer in own} == {str(clips / "right.mp4")}


def test_one_load_serves_several_sources_and_kinds_of_them(bundle: Bundle, clips: Path) -> None:
    right = clips / "right.mp4"
    with edgepkd.load(str(bundle.path)) as model:
        first, second = model(right), model(str(clips / "left.avi"))
        piped = model(io.BytesIO(right.read_bytes()))
        both = model(clips)
    assert [a.label for a in first] == ["right"] * 3
    assert [a.label for a in second] == ["left"] * 3
    assert [a.confidence for a in piped] == [a.confidence for a in first]
    assert [Path(a.source).name for a in both] == ["left.avi"] * 3 + ["right.mp4"] * 3
    assert first[0].load_ms > 0
    assert second[0].load_ms < first[0].load_ms


@pytest.mark.parametrize("content", [b"", b"no video", b"\0" * 5000])
def test_a_bad_single_source_is_an_error(bundle: Bundle, tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(content)
    with edgepkd.load(bundle.path) as model:
        with pytest.raises(SourceError):
            model(bad)
        with pytest.raises(SourceError, match="does not exist"):
            model(tmp_path / "absent.mp4")
        with pytest.raises(SourceError):
            model(tmp_path)


def test_a_file_cut_off_in_its_first_picture_is_no_empty_list(
    bundle: Bundle, clips: Path, tmp_path: Path
) -> None:
    whole = (clips / "left.avi").read_bytes()
    at = whole.index(b"00dc") + 8
    (tmp_path / "cut.avi").write_bytes(whole[: at + 20])
    with edgepkd.load(bundle.path) as model, pytest.raises(SourceError):
        model(tmp_path / "cut.avi")


def test_a_reader_without_clips_is_no_empty_list(
    bundle: Bundle, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with edgepkd.load(bundle.path) as model:
        monkeypatch.setattr(model.session, "stream", lambda clips: iter(()))
        with pytest.raises(DecodeError, match="holds no clip"):
            model(clips / "right.mp4")


def test_a_bad_source_among_others_is_a_warning(
    bundle: Bundle, clips: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    several = [tmp_path / "bad.mp4", clips / "right.mp4"]
    with (edgepkd.load(bundle.path) as model,
          pytest.warns(EdgepkdWarning, match=r"bad\.mp4")):
        assert [answer.label for answer in model(several)] == ["right"] * 3


def test_only_bad_sources_are_an_error(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"no video")
    with (edgepkd.load(bundle.path) as model, pytest.warns(EdgepkdWarning),
          pytest.raises(SourceError, match=r"b\.mp4")):
        model(tmp_path)


def test_a_file_that_breaks_off_is_a_warning_and_the_rest_is_answered(
    bundle: Bundle, clips: Path, tmp_path: Path
) -> None:
    content = (clips / "left.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    with (edgepkd.load(bundle.path) as model,
          pytest.warns(EdgepkdWarning, match=r"cut\.avi") as caught):
        assert model(tmp_path / "cut.avi")
    assert str(caught[0].message).count("cut.avi") == 1
    assert caught[0].filename == __file__


def test_settings_that_are_wrong_are_refused_at_once(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only one of them"):
        edgepkd.load(bundle.path, static=True, threshold=0.5)
    with pytest.raises(UsageError, match="exit_rule"):
        edgepkd.load(bundle.path, exit_rule=lambda position, p: True, threshold=0.5)
    with pytest.raises(ConfigError, match="top_k"):
        edgepkd.load(bundle.path, top_k=0)
    with pytest.raises(UsageError, match="available"):
        edgepkd.load(bundle.path, order="residual")
    with pytest.raises(BundleError):
        edgepkd.load(tmp_path / "absent.edgepkd")
    with edgepkd.load(bundle.path) as model, pytest.raises(ConfigError, match="clips is 0"):
        model.run("x.mp4", clips=0)  # before the first answer is asked for


def test_an_own_exit_rule_decides_and_the_last_exit_answers(bundle: Bundle, clips: Path) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []

    def third(position: edgepkd.Position, probabilities: np.ndarray) -> bool:
        seen.append((str(position), probabilities.shape))
        return position.exit == 3

    with edgepkd.load(bundle.path, exit_rule=third) as model:
        assert {str(a.exit) for a in model(clips / "right.mp4")} == {"mv_3"}
    assert seen[:3] == [("mv_1", (2,)), ("mv_2", (2,)), ("mv_3", (2,))]
    with edgepkd.load(bundle.path, exit_rule=lambda position, p: False, max_exit=5) as model:
        assert {str(a.exit) for a in model(clips / "right.mp4")} == {"residual_1"}
        assert str(model.config) == "own rule, max exit 5"


def test_a_closed_model_says_so_and_its_runner_is_closed(bundle: Bundle, clips: Path) -> None:
    model = edgepkd.load(bundle.path)
    model(clips / "right.mp4", clips=1)
    model.close()
    model.close()
    with pytest.raises(ModelError, match="closed"):
        model.run(clips / "right.mp4")
    with pytest.raises(ModelError, match="closed"):
        model.session.runner.prepare(model.session.cascade.positions[0])


def test_a_run_that_is_left_early_closes_its_source(
    bundle: Bundle, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepkd.video.clips import ClipReader

    closed: list[ClipReader] = []
    close = ClipReader.close
    monkeypatch.setattr(ClipReader, "close", lambda self: (closed.append(self), close(self))[1])
    with edgepkd.load(bundle.path) as model:
        answers = model.run(clips / "right.mp4")
        next(answers)
        assert closed == []
        answers.close()
        assert len(closed) == 1
        assert len(model(clips / "right.mp4", clips=2)) == 2  # and the model goes on


def test_an_error_while_it_opens_closes_the_runner(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []
    close = openvino_runner.OpenVinoRunner.close
    monkeypatch.setattr(openvino_runner.OpenVinoRunner, "close",
                        lambda self: (closed.append(self), close(self))[1])
    with pytest.raises(UsageError):
        Model(bundle, ModelConfig(order="residual"))
    assert len(closed) == 1


def test_pictures_of_p_frames_are_asked_for_by_the_residual_alone(
    bundle: Bundle, clips: Path
) -> None:
    with edgepkd.load(bundle.path, max_exit=4) as motion, edgepkd.load(bundle.path) as all_three:
        for model, pixels in ((motion, False), (all_three, True)):
            with model.open(str(clips / "right.mp4"), ReadConfig()) as reader:
                assert reader._decode.pixels is pixels


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(bundle: Bundle, tmp_path: Path) -> None:
    encode_clip(tmp_path / "long.mp4", translating_texture(480, SIZE, (2, 0)))
    with edgepkd.load(bundle.path) as model:
        answers = model.run(tmp_path / "long.mp4")
        next(answers), next(answers)
        tracemalloc.start()
        try:
            after_two = tracemalloc.get_traced_memory()[0]
            assert sum(1 for _ in answers) == 18
            assert tracemalloc.get_traced_memory()[0] - after_two < 300_000
        finally:
            tracemalloc.stop()


def test_warnings_of_a_whole_file_are_none(bundle: Bundle, clips: Path) -> None:
    with edgepkd.load(bundle.path) as model, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(model(clips / "right.mp4")) == 3


def test_the_package_imports_nothing_heavy_and_knows_its_names() -> None:
    code = ("import sys, edgepkd; "
            "assert set(edgepkd.__all__) <= set(dir(edgepkd)); "
            "print(sorted({'torch', 'av', 'numpy', 'openvino', 'numba'} & set(sys.modules)));"
            "[getattr(edgepkd, name) for name in edgepkd.__all__];"
            "print('torch' in sys.modules, 'onnx' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                          check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False False"]
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        edgepkd.lod  # noqa: B018
