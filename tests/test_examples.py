"""The examples in docstrings, in the README and in docs/ run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from edgepkd.pipeline import quantize
from edgepkd.pipeline.demo import demo_facts
from edgepkd.pipeline.evaluate import EvalConfig, evaluate
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


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_a_docstring_print_what_they_say(module: str) -> None:
    run_examples(doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)))


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


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("file", "code"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_snippets_run(file: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(code, file, "exec"), names)
    assert capsys.readouterr().out


def test_a_docstring_shows_no_code_that_would_not_be_run() -> None:
    indented = re.compile(r'^ {4,}(?:for|with|print|result|import|from) ?.*[(:]', re.MULTILINE)
    for path in sorted((ROOT / "edgepkd").rglob("*.py")):
        text = path.read_text("utf-8")
        head = text.split('"""')[1] if text.startswith('"""') else ""
        assert not indented.search(head), f"{path.name}: begin lines of an example with >>>"
