"""JSON of a bundle: what it cannot be written out again as, or has no end, is refused by key."""

from __future__ import annotations

import json
import time

import pytest

from edgepkd.bundle.schema import MAX_JSON_BYTES, parse_json
from edgepkd.errors import BundleError


def document(text: str) -> bytes:
    return f'{{"schema_version": 1, "provenance": {{"a": [0, {text}]}}}}'.encode()


@pytest.mark.parametrize("text", [
    "1", "-1.5e300", "18446744073709551615", '"\\ud83d\\ude00"', '"\\u001b]52;c;x\\u0007"', "null",
    "[" * 29 + "]" * 29])
def test_what_is_sound_is_read(text: str) -> None:
    assert parse_json(document(text), where="m.json") == json.loads(document(text))


@pytest.mark.parametrize(("text", "got"), [
    ("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf"), ("1e400", "inf"),
    ("-1e400", "-inf"), ("18446744073709551617", "18446744073709551617"),
    ("1" + "0" * 400, "'1000000000"), ("1" + "0" * 10_000, "'1000000000"),
    ("-" + "9" * 1_000_000, "'-999999999"),
    ('"\\ud800"', r"'\\ud800'"), ('"x\\udfff"', r"'x\\udfff'")])
def test_values_that_cannot_be_written_out_again_are_named(text: str, got: str) -> None:
    with pytest.raises(BundleError, match=rf"m\.json: provenance\.a\[1\] is {got}") as caught:
        parse_json(document(text), where="m.json")
    assert len(str(caught.value)) < 500
    str(caught.value).encode()


@pytest.mark.slow
@pytest.mark.parametrize(("text", "reason"), [
    ('"' + "x" * 10_001 + '"', r"provenance\.a\[1\]: length is 10001"),
    ('{"' + "x" * 10_001 + '": 1}', r"provenance\.a\[1\]: a key: length is 10001"),
    ('{"\\ud800": 1}', r"provenance\.a\[1\]: a key is '\\ud800'"),
    ("[" * 40 + "]" * 40, r"depth is 33; allowed: up to 32"),
    ('{"a":' * 40 + "1" + "}" * 40, r"depth is 33; allowed: up to 32"),
    ("[" * 100_000 + "]" * 100_000, r"m\.json"),
    ('{"a":' * 100_000 + "1" + "}" * 100_000, r"m\.json"),
    ('{"twice": 1, "twice": 2}', r"m\.json: key 'twice' is given twice"),
    ("[" + "0," * 600_000 + "0]", r"number of values"),
    ("[" + "{}," * 600_000 + "0]", r"number of values"),
    ("01", "cannot be read as JSON"), ("tru", "cannot be read as JSON"),
    ('"\n"', "cannot be read as JSON"), ("1]} {", "cannot be read as JSON"),
])
def test_what_has_no_end_or_no_sense_is_refused_in_time(text: str, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(BundleError, match=reason) as caught:
        parse_json(document(text), where="m.json")
    assert time.process_time() - started < 10
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", [
    b"", b"\xef\xbb\xbf" + document("1"), document("1").decode().encode("utf-16"), b"\xff\xfe",
    b"\0" * 100, document("1")[:-1], b'"text"', b"[]", b"7", b"null", b"{}",
    b'{"schema_version": "1"}', b'{"schema_version": 1.0}', b'{"schema_version": true}',
    b'{"schema_version": 0}', b'{"schema_version": -1}', b'{"schema_version": 1e400}',
    b" " * (MAX_JSON_BYTES + 1)])
def test_what_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"m\.json"):
        parse_json(content, where="m.json")
