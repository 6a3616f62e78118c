"""Labels as names: what a label may be, what its folder and its clips' files are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgepkd.datasets.labels import MAX_NAME_BYTES, checked_labels, file_stems, folder_names
from edgepkd.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


def test_labels_are_composed_and_without_blanks() -> None:
    assert checked_labels([" walk ", "Cafe\u0301", "चलना"]) == {
        " walk ": "walk", "Cafe\u0301": "Caf\u00e9", "चलना": "चलना"}


@pytest.mark.parametrize(("one", "two"), [
    ("Walk", "walk"), ("Caf\u00e9", "Cafe\u0301"), ("walk ", "walk"), ("ΣΑΣ", "σας")])
def test_two_labels_that_a_file_system_may_take_for_one_are_refused(one: str, two: str) -> None:
    with pytest.raises(DataError, match="differ only in case, blanks or Unicode form"):
        checked_labels([one, "other", two])


def test_what_is_shown_of_two_unicode_forms_differs() -> None:
    with pytest.raises(DataError, match=r"labels 'Cafe\\u0301' and 'Caf\\xe9' differ only"):
        checked_labels(["Caf\u00e9", "Cafe\u0301"])


@pytest.mark.parametrize(("label", "fault"), [
    ("", "it is empty"), ("  ", "it is empty"), ("a/b", "it holds '/'"),
    ("a\\b", r"it holds '\\\\'"), ("..", "it begins with a dot"), (".x", "it begins with a dot"),
    ("a\tb", "it holds a control character"), ("a\x85b", "it holds a control character"),
    ("a\u2028b", "it holds a line break"), ("x" * 256, "it has 256 bytes"),
    ("ก" * 86, "it has 258 bytes"), ("🚶" * 64, "it has 256 bytes"),
    ("\x7f", "it holds a control character"), ("a\udcff", "it holds a byte that is not UTF-8"),
])
def test_a_label_that_cannot_name_a_folder_is_refused(label: str, fault: str) -> None:
    with pytest.raises(DataError, match=f"cannot name a folder: {fault}.*; allowed: any text"):
        checked_labels(["other", label])


def test_without_utf8_file_names_a_label_is_refused_with_the_way_out() -> None:
    code = "from edgepkd.datasets.labels import checked_labels; checked_labels(['चलना'])"
    ascii_names = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", ascii_of(code)], capture_output=True, text=True,
                          cwd=ROOT, env={**os.environ, **ascii_names}, timeout=60)
    assert "DataError: label" in done.stderr
    assert "set PYTHONUTF8=1" in done.stderr


def ascii_of(code: str) -> str:
    """`code` with escapes in place of other letters, for an interpreter that reads ASCII."""
    return code.encode("ascii", "backslashreplace").decode()


def test_a_folder_is_called_as_its_label_or_like_it() -> None:
    labels = ["50%", "चलना", "a:b", "a?b", "Mr.", "x:" * 120]
    names = folder_names(labels)
    assert list(names.values())[:5] == [
        "50%", "चलना", "a_b-6783a31e", "a_b-c2a7b64a", "Mr_-1a24b768"]
    assert all(len(name.encode()) <= MAX_NAME_BYTES for name in names.values())


def test_file_names_are_unique_in_their_folder_and_like_the_clips_own() -> None:
    stems = file_stems(["run", "run", "walk", "run"], ["a", "A", "a", ".x:y\n"],
                       ["run/a.avi", "run/A.avi", "walk/a.avi", "run/x.avi"])
    assert stems[2:] == ["a", "x_y_"]
    assert stems[0].startswith("a-")
    assert stems[1].startswith("A-")
    assert stems[0].lower() != stems[1].lower()
