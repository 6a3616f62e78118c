"""Exits in another run's folder: which folders are taken, and what is copied there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgepkd.errors import ModelError, UsageError
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.pipeline.exits_out import check_out, copy_trunks
from edgepkd.training.recipe import changed_recipe, load_train_recipe
from edgepkd.training.runs import Run, read_run, write_run
from tests.models.networks import small_network


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "run", load_train_recipe("small"), tmp_path / "index.csv", ("a", "b"), 1)
    write_run(made)
    save_network(small_network(), made.trunk("mv"))
    return made


def test_trunks_are_copied_once_and_their_run_is_named(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_out(run, out)
    other = copy_trunks(run, out, ["mv"])
    assert (other.folder, other.trunks_from) == (out, str(run.folder.resolve()))
    load_network(other.trunk("mv"))
    assert not (out / "mv-trunk.safetensors").samefile(run.folder / "mv-trunk.safetensors")
    write_run(other)
    assert read_run(out) == other
    check_out(run, out)
    assert copy_trunks(run, out, ["mv"]) == other
    third = copy_trunks(other, tmp_path / "third", ["mv"])
    assert third.trunks_from == str(run.folder.resolve())


def test_a_folder_with_other_trunks_is_refused(run: Run, tmp_path: Path) -> None:
    other = small_network()
    other.heads[-1].fc.bias.data += 1
    save_network(other, tmp_path / "out" / "mv-trunk")
    with pytest.raises(UsageError, match="is another trunk than that of"):
        copy_trunks(run, tmp_path / "out", ["mv"])


def test_a_folder_with_another_run_is_refused(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_run(replace(run, folder=out, labels=("c", "d")))
    with pytest.raises(UsageError, match="holds a run with other labels"):
        check_out(run, out)
    changed = changed_recipe(run.recipe, {"exits.scheme": "ce", "exits.epochs": 3})
    write_run(replace(run, folder=out, recipe=changed))
    check_out(run, out)  # exits may differ: that is what it is for
    with pytest.raises(UsageError, match="is the run itself"):
        check_out(run, run.folder / ".." / "run")
    (out / "quantize.json").write_text("{}")
    with pytest.raises(UsageError, match="holds quantised"):
        check_out(run, out)


def test_a_trunk_that_is_not_there_names_the_command(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the trunk of iframe is needed") as caught:
        copy_trunks(run, tmp_path / "out", ["iframe"])
    assert "edgepkd train backbone" in str(caught.value)
