"""Index files as tools and spreadsheets write them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from edgepkd.datasets.table import read_table
from edgepkd.errors import DataError

ROWS = ({"path": "run/x.avi", "label": "चलना", "group": "anna", "split": "train"},
        {"path": "y 1.avi", "label": "a, b; c", "group": "bob", "split": "test"})


def table(folder: Path, content: str | bytes) -> Path:
    path = folder / "index.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_delimiter_line_end_and_encoding_reads_the_same(
    tmp_path: Path, delimiter: str, line_end: str, encoding: str
) -> None:
    lines = [["Path", " LABEL ", "Group", "split"], ["run/x.avi", "चलना", "anna", "train"],
             ["y 1.avi", '"a, b; c"', "bob", " test "], ["", "", "", ""]]
    text = "".join(delimiter.join(cells) + line_end for cells in lines)
    found = read_table(table(tmp_path, text.encode(encoding)))
    assert found.rows == ROWS
    assert found.notes == ()


def test_big_endian_utf16_and_a_line_that_names_the_delimiter(tmp_path: Path) -> None:
    text = "sep=|\r\npath|label\r\nx.avi|run;a,b\r\n"
    content = codecs.BOM_UTF16_BE + text.encode("utf-16-be")
    assert read_table(table(tmp_path, content)).rows == (
        {"path": "x.avi", "label": "run;a,b", "group": "x", "split": ""},)


def test_without_group_and_split_names_are_groups_and_splits_are_drawn(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, "label,path\nrun,a/anna_1.avi\n"))
    assert found.rows == ({"label": "run", "path": "a/anna_1.avi", "group": "anna_1", "split": ""},)
    assert found.notes == ("index.csv has no column group: a clip's group is its file's name",
                           "index.csv has no column split: the splits are drawn")


@pytest.mark.parametrize(("head", "taken"), [
    ("Video;Class;Person", "'video' is taken as path, 'class' as label, 'person' as group"),
    ("File Name;ACTION;subject-id", "'file name' is taken as path, 'action' as label, "
                                    "'subject-id' as group"),
    ("filename;Label;group", "'filename' is taken as path"),
])
def test_columns_under_other_names_are_understood_and_said(
    tmp_path: Path, head: str, taken: str
) -> None:
    found = read_table(table(tmp_path, f"{head}\nx.avi;run;anna\n"))
    assert found.rows == ({"path": "x.avi", "label": "run", "group": "anna", "split": ""},)
    assert found.has_groups
    *said, last = found.notes
    assert ", ".join(said).replace("index.csv: column ", "").replace(
        "is taken as label", "as label").replace("is taken as group", "as group") == taken
    assert last == "index.csv has no column split: the splits are drawn"


def test_a_column_of_its_own_name_is_taken_before_others(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, "file,path,label,class,group,split\na,x.avi,run,7,g,test\n"))
    assert found.rows == ({"file": "a", "path": "x.avi", "label": "run", "class": "7",
                           "group": "g", "split": "test"},)
    assert found.notes == ()


@pytest.mark.parametrize(("head", "message"), [
    ("file,video,label", "has no column path, and any of file, video could be meant"),
    ("path,Class,action", "has no column label, and any of class, action could be meant"),
])
def test_columns_that_could_all_be_meant_are_refused(
    tmp_path: Path, head: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(table(tmp_path, f"{head}\nx,y,z\n"))
    assert "Name one of them" in str(caught.value)


def test_other_columns_are_kept_and_nameless_ones_left_out(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, ",path,label,Dataset,\n0,x.avi,run,S,,,\n1,y.avi,run\n"))
    assert found.rows == (
        {"path": "x.avi", "label": "run", "dataset": "S", "group": "x", "split": ""},
        {"path": "y.avi", "label": "run", "group": "y", "split": ""})


@pytest.mark.parametrize(("content", "message"), [
    ("", "has no column path, label; needed: path, label; its head is: empty"),
    ("path label\nx.avi run\n", "no column path, label.*'path label'"),
    ("path,label,Path\nx,y,z\n", "more than one column path"),
    ("path,label,split\nx.avi,run\n", "line 2 has 2 cells, fewer than the head"),
    ("path,label\nx.avi,run, fast\n", "line 2 has 3 cells, more than the head"),
    ("path,label\n\nx.avi,\n", "line 3 has no label"),
    ("path,label\n ,run\n", "line 2 has no path"),
    ('path,label\n"x.avi,run\n', "is no CSV file"),
    ('"path,label\nx.avi,run\n', "is no CSV file"),
    ("path,label\nx.avi,Café\n".encode("cp1252"), "no CSV file in UTF-8 or UTF-16"),
    ("path,label\n".encode("utf-16-le"), "it holds NUL"),
    (codecs.BOM_UTF16_LE + b"\x00", "no CSV file in UTF-8 or UTF-16"),
])
def test_what_is_no_index_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(table(tmp_path, content))


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_table(tmp_path)
