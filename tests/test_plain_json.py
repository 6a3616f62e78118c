"""JSON that every program reads, and what is wrong with a stranger's as ValueError alone."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from edgepkd.plain_json import dumps, loads

ROOT = Path(__file__).resolve().parents[1]


def test_what_is_not_finite_is_null() -> None:
    values = {"a": [math.nan, 1.5, math.inf], "b": -math.inf, "text": "NaN", 3: None}
    text = dumps(values, indent=1)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, 1.5, None], "b": None, "text": "NaN", "3": None}
    assert text.startswith("{\n ")
    assert dumps({"z": 1, "a": "é"}) == '{"z": 1, "a": "\\u00e9"}'
    assert dumps([Path("x"), math.nan], default=str) == '["x", null]'
    with pytest.raises(TypeError):
        dumps([math.nan, object()])


@pytest.mark.parametrize("content", [
    "", "{", "NaN", "[Infinity]", '{"a": -Infinity}', "1e400", "-1e999", "1" + "0" * 400,
    "9" * 10_000, "[" * 200_000, '{"a":' * 200_000, b"\xff", b"\xef\xbb\xbf{}",
    "{}".encode("utf-16")])
def test_what_is_wrong_is_a_value_error(content: str | bytes) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        loads(content)
    assert len(str(caught.value)) < 200


def test_what_is_sound_is_read() -> None:
    assert loads(b'{"a": [1, -2.5e3, 1e-400, "\\u00e9", true, null]}') == {
        "a": [1, -2500.0, 0.0, "é", True, None]}


def test_nothing_else_in_the_product_writes_or_reads_json() -> None:
    # json.dumps writes NaN unless it is told not to; json.loads may raise RecursionError
    allowed = {
        "plain_json.py", "bundle/schema.py", "bundle/writing.py", "bundle/sidecar.py",
        "logits/fit_files.py", "training/runlog.py", "quantize/sensitivity.py",
        # keys of caches: hashed, never read
        "training/loop.py", "training/cache.py",
        # between a process and its own child
        "engines/process.py", "engines/child.py", "engines/build.py"}
    found = {path.relative_to(ROOT / "edgepkd").as_posix()
             for path in (ROOT / "edgepkd").rglob("*.py")
             if re.search(r"\bjson\.(dumps?|loads?)\(", path.read_text(encoding="utf-8"))}
    assert found <= allowed
