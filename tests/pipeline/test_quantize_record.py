"""quantize.json and sensitivity.json: one network after the other, whole or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgepkd.errors import DataError
from edgepkd.pipeline.quantize_record import SENSITIVITY_FILE, add_to_record, start_folder
from edgepkd.pipeline.step_logs import QUANTIZE_FILE
from edgepkd.training.recipe import load_train_recipe
from edgepkd.training.runs import Run, read_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run" / "int8-ptq", load_train_recipe("small"), tmp_path / "index.csv",
               ("a", "b"), 7)


def record(run: Run, name: str = QUANTIZE_FILE) -> dict[str, Any]:
    return dict(json.loads((run.folder / name).read_text()))


def test_a_folder_is_a_run_with_a_record_of_no_network(run: Run) -> None:
    start_folder(run, method="ptq", force=False)
    assert record(run) == {"schema_version": 1, "method": "ptq", "networks": {}}
    assert read_run(run.folder).seed == 7
    assert not (run.folder / SENSITIVITY_FILE).exists()


def test_networks_are_added_and_replaced_one_by_one(run: Run) -> None:
    start_folder(run, method="ptq", force=False)
    path = run.folder / QUANTIZE_FILE
    for modality, value in (("mv", 1), ("iframe", 2), ("mv", 3)):
        add_to_record(path, modality, {"x": value}, head={"method": "ptq"})  # type: ignore[arg-type]
    assert record(run)["networks"] == {"mv": {"x": 3}, "iframe": {"x": 2}}
    assert record(run)["method"] == "ptq"


def test_a_second_start_keeps_both_files_and_force_writes_the_run_again(run: Run) -> None:
    start_folder(run, method="ptq", force=False)
    add_to_record(run.folder / QUANTIZE_FILE, "mv", {"x": 1}, head={"method": "ptq"})
    other = Run(run.folder, run.recipe, run.index, ("c", "d"), 7)
    start_folder(other, method="ptq", force=False)
    assert read_run(run.folder).labels == ("a", "b")
    start_folder(other, method="ptq", force=True)
    assert read_run(run.folder).labels == ("c", "d")
    assert record(run)["networks"] == {"mv": {"x": 1}}


@pytest.mark.parametrize("name", [QUANTIZE_FILE, SENSITIVITY_FILE])
@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"networks": 3}'])
def test_a_damaged_record_is_refused_before_anything_is_written(
    run: Run, name: str, text: str
) -> None:
    run.folder.mkdir(parents=True)
    (run.folder / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name} is damaged.*Delete it"):
        start_folder(run, method="ptq", force=True)
    assert [path.name for path in run.folder.iterdir()] == [name]
    with pytest.raises(DataError, match="is damaged"):
        add_to_record(run.folder / name, "mv", {}, head={})
    assert (run.folder / name).read_text() == text
