"""Logs of a step, and results of an earlier run that are kept or refused."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from edgepkd.errors import ModelError, UsageError
from edgepkd.models.checkpoint import save_network
from edgepkd.pipeline.step_logs import QUANTIZE_FILE, kept_extra, refuse_quantized, step_logs
from tests.models.networks import small_network


@pytest.mark.slow
def test_the_last_row_of_all_logs_is_kept(tmp_path: Path) -> None:
    text = StringIO()
    with step_logs(tmp_path / "step", title="backbone mv", epochs=2, resume=False,
                   tensorboard=False, console=Console(file=text, width=120)) as log:
        log.event("start", step="backbone")
        log.row(epoch=0, loss=2.0)
        log.row(epoch=1, loss=1.5)
    assert log.numbers.values == {"epoch": 1, "loss": 1.5}
    assert (tmp_path / "step" / "results.csv").read_text().splitlines() == [
        "epoch,loss", "0,2.0", "1,1.5"]
    assert "backbone mv  2/2  loss 1.5" in text.getvalue()


def test_what_a_checkpoint_tells_counts_as_the_last_row(tmp_path: Path) -> None:
    """Of a run that was killed between its last epoch and its last file."""
    with step_logs(tmp_path, title="", epochs=3, resume=False, tensorboard=False,
                   console=None) as log:
        log.event("resume", epochs_done=3, values={"loss": 0.25})
    assert log.numbers.values == {"epoch": 2, "loss": 0.25}


def test_a_result_is_kept_if_asked_and_made_alike(tmp_path: Path) -> None:
    path = tmp_path / "mv"
    save_network(small_network(num_classes=2), path, extra={"key": "k", "values": {"loss": 1.0}})
    assert kept_extra(path, "k", resume=True)["values"] == {"loss": 1.0}
    with pytest.raises(UsageError, match=r"mv\.json exists.*--resume to keep it, --force"):
        kept_extra(path, "k", resume=False)
    with pytest.raises(UsageError, match=r"mv\.json was made with other settings"):
        kept_extra(path, "other", resume=True)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ModelError, match=r"mv\.json"):
        kept_extra(path, "k", resume=True)


def test_a_quantised_run_is_refused_by_its_record(tmp_path: Path) -> None:
    refuse_quantized(tmp_path)
    (tmp_path / QUANTIZE_FILE).touch()
    with pytest.raises(UsageError, match="holds quantised networks") as caught:
        refuse_quantized(tmp_path)
    assert str(tmp_path.parent) in str(caught.value.hint)
