"""The examples in docstrings and in the README run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgepkd.config import MODALITIES
from edgepkd.datasets.index import labels_of, read_index
from edgepkd.models.checkpoint import save_network
from edgepkd.pipeline import quantize
from edgepkd.pipeline.evaluate import EvalConfig, evaluate
from edgepkd.pipeline.run import demo_facts
from edgepkd.training.recipe import load_train_recipe
from edgepkd.training.runs import Run, write_run
from tests.datasets.sets import make_folder_set
from tests.models.networks import small_network
from tests.training.tiny_set import make_set, write_recipe

ROOT = Path(__file__).resolve().parents[1]
WITH_EXAMPLES = tuple(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "edgepkd").rglob("*.py")) if ">>>" in path.read_text("utf-8"))
SNIPPETS = tuple(
    (path.relative_to(ROOT).as_posix(), code)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for code in re.findall(r"```(?:python|py)\n(.*?)```", path.read_text("utf-8"), re.DOTALL))
FEW = {"min_clips": 1, "finetune.epochs": 1, "finetune.batch_clips": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the examples name: clips, a set, a run, logits."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("clip.mp4", "my.mp4"):
        shutil.copy(demo_facts().clip, folder / name)
    make_folder_set(folder / "my-videos")
    index = make_set(folder / "my-data") / "index.csv"
    recipe = load_train_recipe(str(write_recipe(folder / "tiny.toml")))
    run = folder / "runs" / "a"
    write_run(Run(run, recipe, index, labels_of(read_index(index)), 1))
    for modality in MODALITIES:
        save_network(small_network(modality=modality, num_classes=2), run / modality)
    result = evaluate(EvalConfig(run=run, split="calibration", cache=folder / "runs" / "cache"))
    (result.out / "logits.npz").rename(folder / "calibration.npz")
    return folder


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


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_a_docstring_print_what_they_say(module: str) -> None:
    flags = doctest.ELLIPSIS | doctest.REPORT_NDIFF
    runner = doctest.DocTestRunner(optionflags=flags)
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module))
    said: list[str] = []
    for example in found:
        runner.run(example, out=said.append)
    assert runner.tries > 0
    assert runner.failures == 0, "".join(said)


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
