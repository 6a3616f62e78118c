"""Examples in docstrings, README, docs/ and examples/ run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from edgepkd.pipeline import quantize
from edgepkd.pipeline.demo import demo_facts
from edgepkd.pipeline.evaluate import EvalConfig, evaluate
from tests.clips import encode_clip, moving_scene
from tests.datasets.sets import make_folder_set
from tests.training.tiny_set import make_run, make_set
from tests.video.rtsp_camera import camera

ROOT = Path(__file__).resolve().parents[1]
WITH_EXAMPLES = tuple(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "edgepkd").rglob("*.py")) if ">>>" in path.read_text("utf-8"))
SNIPPETS = tuple(
    (path.relative_to(ROOT).as_posix(), code)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for code in re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.M))
CONSOLES = tuple(path.relative_to(ROOT).as_posix()
                 for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
                 if ">>>" in path.read_text("utf-8"))
FEW = {"min_clips": 1, "finetune.epochs": 1, "finetune.batch_clips": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the examples name: clips, a set, a run, logits."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("clip.mp4", "my.mp4"):
        shutil.copy(demo_facts().clip, folder / name)
    make_mixed_folder(folder / "folder")
    make_folder_set(folder / "my-videos")
    run = make_run(folder / "runs" / "a", make_set(folder / "my-data"))
    result = evaluate(EvalConfig(run=run, split="calibration", cache=folder / "runs" / "cache"))
    (result.out / "logits.npz").rename(folder / "calibration.npz")
    return folder


def make_mixed_folder(folder: Path) -> None:
    """Two videos, and between them one that is none."""
    folder.mkdir()
    for name in ("a.mp4", "c.mp4"):
        shutil.copy(demo_facts().clip, folder / name)
    (folder / "b.mp4").write_bytes(b"no video")


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in, where a few clips and steps will do for INT8."""
    folder = Path(shutil.copytree(made, tmp_path / "here"))
    record = folder / "runs" / "a" / "run.json"
    record.write_text(record.read_text().replace(str(made), str(folder)))
    monkeypatch.chdir(folder)
    load = quantize.load_int8_recipe
    monkeypatch.setattr(quantize, "load_int8_recipe",
                        lambda name, changes: load(name, {**FEW, **changes}))
    return folder


def test_examples_are_found() -> None:
    assert {"edgepkd.pipeline.run", "edgepkd.pipeline.train"} <= set(WITH_EXAMPLES)
    assert "README.md" in dict(SNIPPETS)
    assert "docs/api.md" in CONSOLES
    assert not any(">>>" in code for _, code in SNIPPETS), "begin such a block with ```pycon"


@pytest.fixture(scope="module")
def camera_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A camera of this machine that shows the shipped clip once and then goes on to be silent."""
    path = tmp_path_factory.mktemp("camera") / "clip.ts"
    with av.open(str(demo_facts().clip)) as clip, av.open(str(path), "w") as stream:
        copied = stream.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(clip.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copied
                stream.mux(packet)
    with camera(path.read_bytes(), then="stall") as port:
        yield port


def run_examples(tests: Iterable[doctest.DocTest]) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.REPORT_NDIFF)
    said: list[str] = []
    for test in tests:
        runner.run(test, out=said.append)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(said)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_a_docstring_print_what_they_say(module: str) -> None:
    run_examples(doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)))


@pytest.mark.slow
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("file", CONSOLES)
def test_examples_of_a_page_print_what_they_say(file: str, camera_port: int) -> None:
    page = (ROOT / file).read_text("utf-8").replace("192.168.1.20", f"127.0.0.1:{camera_port}")
    run_examples([doctest.DocTestParser().get_doctest(consoles_of(page), {}, file, file, 0)])


def consoles_of(page: str) -> str:
    """The blocks of `page` that begin with >>>, each on the lines where it stands."""
    lines, is_console = [], False
    for line in page.splitlines():
        is_console = line == "```pycon" or (is_console and line != "```")
        lines.append(line if is_console and line != "```pycon" else "")
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("file", "code"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_snippets_run(file: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(code, file, "exec"), names)
    assert capsys.readouterr().out


WITHOUT_EXTRAS = """
import runpy, sys
for name in ("torch", "matplotlib", "tensorrt"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_script(name: str, *arguments: str, folder: Path) -> str:
    """Output of a script of `examples/` that is started in `folder` with the core alone."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS, str(ROOT / "examples" / name),
         *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)})
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.slow
def test_first_steps_with_the_shipped_clip(tmp_path: Path) -> None:
    said = run_script("first_steps.py", folder=tmp_path)
    assert re.findall(r"s to (\S+) s: no_fight", said) == ["6.0", "12.0", "18.0"]
    assert said.count("networks not asked: iframe; 8 packets not decoded") == 3
    rows = {name: re.split(" +", rest) for name, rest in
            re.findall(r"^(early exits|all segments) +(.*)$", said, re.M)}
    assert rows["all segments"] == ["36", "9", "5.63"]
    assert 3 <= int(rows["early exits"][0]) < 36
    assert rows["early exits"][1] == "6"
    assert "the same label on 3 of 3 clips" in said
    assert re.search(r"Own rule: exits (residual_[34](, )?){3}$", said, re.M)
    assert "Motion int16 (256, 455, 2), residual int16 (256, 455, 3)" in said
    assert "Most motion at 7.1 s: 18.6 pixels on average, 213.8 at most" in said
    assert pictures_of(said) == {"motion.png": (455, 256), "residual.png": (455, 256)}


@pytest.mark.slow
def test_first_steps_with_a_video_of_ones_own(tmp_path: Path) -> None:
    encode_clip(tmp_path / "own.avi", moving_scene(20, (340, 256)))
    said = run_script("first_steps.py", "own.avi", folder=tmp_path)
    assert said.startswith("Video: own.avi\n")
    assert said.count(" s to ") == 1
    assert "Motion int16 (32, 43, 2), residual int16 (256, 340, 3)" in said
    assert pictures_of(said) == {"motion.png": (340, 256), "residual.png": (340, 256)}


def pictures_of(said: str) -> dict[str, tuple[int, int]]:
    """Sizes of the pictures that a script says it has written."""
    paths = said.rpartition("Pictures: ")[2].strip().split(", ")
    sizes = {}
    for path in map(Path, paths):
        with Image.open(path) as picture:
            assert len(picture.getcolors(picture.width * picture.height)) > 10
            sizes[path.name] = picture.size
    return sizes


def test_a_docstring_shows_no_code_that_would_not_be_run() -> None:
    indented = re.compile(r'^ {4,}(?:for|with|print|result|import|from) ?.*[(:]', re.MULTILINE)
    for path in sorted((ROOT / "edgepkd").rglob("*.py")):
        text = path.read_text("utf-8")
        head = text.split('"""')[1] if text.startswith('"""') else ""
        assert not indented.search(head), f"{path.name}: begin lines of an example with >>>"
