"""The child that builds: which precision wins, what it says of that, and what it passes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgepkd.config import from_mapping
from edgepkd.engines.builder import Plan, Settings, Shapes
from edgepkd.engines.child import Candidate, Job, build, choice_notes, choose
from edgepkd.errors import ModelError
from tests.engines.builders import FOLDER, SPEC
from tests.engines.segments import convolution

SHAPES = Shapes(frame=(2, 32, 32), min_frames=1, opt_frames=3, max_frames=8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


def job(**changes: Any) -> Job:
    values = {"builder": SPEC, "source": convolution(1, quantized=True, width=4),
              "timing_cache": b"known,", "precisions": ("int8", "fp16"), "shapes": SHAPES,
              "settings": Settings(workspace_mb=64), **changes}
    return Job(**values)


def built(folder: Path) -> list[str]:
    return (folder / "built.txt").read_text().splitlines()


@pytest.mark.parametrize(("times", "winner", "measured", "note"), [
    ({"int8": 0.5, "fp16": 0.9}, "int8", {"int8": 0.5, "fp16": 0.9}, []),
    ({"int8": 0.9, "fp16": 0.5}, "fp16", {"int8": 0.9, "fp16": 0.5},
     ["int8 lost: 0.900 ms against 0.500 ms in fp16"]),
    ({}, "int8", None, ["int8 kept unmeasured: no clock here"]),
])
def test_the_faster_is_kept_and_where_int8_lost_is_noted(
    folder: Path, times: dict[str, float], winner: str, measured: Any, note: list[str]
) -> None:
    (folder / "script.json").write_text(json.dumps(times))
    done, plan = build(job())
    assert (done["precision"], done["measured_ms"], done["notes"]) == (winner, measured, note)
    assert plan.content.split()[1] == winner.encode()
    # Where there is no clock the second is not built.
    assert built(folder) == [f"mv_1 {one} 64" for one in ("int8", "fp16")[:2 if times else 1]]
    assert plan.timing_cache == b"known," + b"mv_1" * (2 if times else 1)


def test_a_single_precision_is_not_measured(folder: Path) -> None:
    (folder / "script.json").write_text('{"fp32": 0.5}')
    done, _ = build(job(precisions=("fp32",)))
    assert (done["precision"], done["measured_ms"], done["notes"]) == ("fp32", None, [])


def test_what_the_builder_refuses_is_its_own_error(folder: Path) -> None:
    (folder / "script.json").write_text('{"mv_1": "no tactic"}')
    with pytest.raises(ModelError, match=r"^no tactic$"):
        build(job())


def test_a_job_goes_as_json_and_two_blocks() -> None:
    asked = job(settings=Settings(compute_capabilities=("8.7",), dla=1))
    values, blocks = asked.request()
    assert blocks == (asked.source, asked.timing_cache)
    sent = json.loads(json.dumps(values))
    shapes, settings = sent.pop("shapes"), sent.pop("settings")
    assert from_mapping(Shapes, shapes, where="") == asked.shapes
    assert from_mapping(Settings, settings, where="") == asked.settings
    assert sent == {"builder": SPEC, "precisions": ["int8", "fp16"]}


def test_what_cannot_be_measured_is_chosen_only_as_the_first() -> None:
    int8, fp16, fp32 = (Candidate(precision, Plan(b""), measured) for precision, measured in (
        ("int8", 0.5), ("fp16", 0.4), ("fp32", 0.6)))  # type: ignore[arg-type]
    assert choose([int8, fp16, fp32]) is fp16
    assert choice_notes([int8, fp16, fp32], int8) == ()
    assert choice_notes([fp16, fp32], fp16) == ()
