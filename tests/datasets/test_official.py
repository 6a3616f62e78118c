"""UCF-101 and HMDB-51: the form of the split files, the counts, groups, and partial copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.datasets.layouts import SourceSpec, list_clips
from edgepkd.datasets.official import SETS, OfficialSet
from edgepkd.datasets.splits import split_three
from edgepkd.errors import DataError


@pytest.fixture
def ucf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes, groups g01 (test) to g04."""
    files = tmp_path / "UCF-101" / "ucfTrainTestlist"
    files.mkdir(parents=True)
    (files / "classInd.txt").write_text("1 Archery\r\n2 Basketball\r\n")
    lists: dict[str, list[str]] = {"trainlist01.txt": [], "testlist01.txt": []}
    for number, label in enumerate(("Archery", "Basketball"), start=1):
        (tmp_path / "UCF-101" / label).mkdir()
        for group in range(1, 5):
            name = f"{label}/v_{label}_g{group:02d}_c01.avi"
            (tmp_path / "UCF-101" / name).touch()
            if group == 1:
                lists["testlist01.txt"].append(name)
            else:
                lists["trainlist01.txt"].append(f"{name} {number}")
    for file, lines in lists.items():
        (files / file).write_text("\n".join(lines) + "\n")
    monkeypatch.setitem(SETS, "ucf101", OfficialSet(2, ((6, 2),) * 3, "trainlist0{}.txt",
                                                    "ucfTrainTestlist"))
    return tmp_path / "UCF-101"


@pytest.fixture
def hmdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of four clips; in `hug` one source name is on both sides."""
    files = tmp_path / "splits"
    files.mkdir()
    folder = tmp_path / "hmdb"
    sources = {"hug": "ABBC", "kiss": "ABCD"}
    for label, names in sources.items():
        (folder / label).mkdir(parents=True)
        lines = []
        for number, source in enumerate(names):
            name = f"{label}_{source}_{label}_u_nm_np1_ba_med_{number}.avi"
            (folder / label / name).touch()
            lines.append(f"{name} {(1, 1, 2, 1)[number]} ")
        (folder / label / "unused_h_cm_np2_fr_bad_0.avi").touch()
        (files / f"{label}_test_split1.txt").write_text(
            "\n".join([*lines, "unused_h_cm_np2_fr_bad_0.avi 0 "]) + "\n")
    monkeypatch.setitem(SETS, "hmdb51", OfficialSet(2, ((6, 2),) * 3, "*_test_split{}.txt",
                                                    "testTrainMulti_7030_splits"))
    return folder


def test_the_published_counts() -> None:
    assert SETS["ucf101"].counts == ((9537, 3783), (9586, 3734), (9624, 3696))
    assert {sum(counts) for counts in SETS["ucf101"].counts} == {13320}
    assert set(SETS["hmdb51"].counts) == {(3570, 1530)}
    assert SETS["hmdb51"].num_classes * 70 == 3570


def test_ucf_is_recognised_and_split_by_its_files(ucf: Path) -> None:
    listing = list_clips(SourceSpec(ucf))
    assert (listing.layout, listing.is_official, listing.notes) == ("ucf101", True, ())
    assert {s.group for s in listing.samples if s.split == "test"} == {"g01"}
    splits = split_three(listing.samples)
    assert [len(part) for part in splits.parts().values()] == [6, 0, 2]


def test_ucf_videos_may_lie_in_one_folder(ucf: Path) -> None:
    for path in ucf.glob("*/*.avi"):
        path.rename(ucf / path.name)
    assert len(list_clips(SourceSpec(ucf)).samples) == 8


def test_other_counts_and_absent_videos_need_partial(ucf: Path) -> None:
    tests = ucf / "ucfTrainTestlist" / "testlist01.txt"
    full = tests.read_text()
    tests.write_text(full.splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"2 classes, 6 train and 1 test clips are listed; ucf101 "
                                        r"split 1 has 2, 6 and 2"):
        list_clips(SourceSpec(ucf))
    assert "partial: 2 classes" in list_clips(SourceSpec(ucf, partial=True)).notes[0]
    tests.write_text(full)
    (ucf / "Archery" / "v_Archery_g02_c01.avi").unlink()
    with pytest.raises(DataError, match=r"1 of 8 listed clips .* the first: Archery/v_Archery_g02"):
        list_clips(SourceSpec(ucf))
    assert "partial: 1 of 8" in list_clips(SourceSpec(ucf, partial=True)).notes[0]


@pytest.mark.parametrize(("file", "line", "message"), [
    ("trainlist01.txt", "Archery/v_Archery_g05_c01.avi 2", "gives Archery the number 2, which is"),
    ("trainlist01.txt", "Archery/v_Archery_g05_c01.avi", "trainlist01.txt line 7 is"),
    ("trainlist01.txt", "Archery/v_Archery_c01.avi 1", "allowed: CLASS/v_CLASS_gNN_cNN.avi NUMBER"),
    ("testlist01.txt", "Archery/v_Archery_g05_c01.avi 1", "testlist01.txt line 3 is"),
    ("testlist01.txt", "Golf/v_Golf_g05_c01.avi", "CLASS from classInd.txt"),
    ("classInd.txt", "2 Golf", "each once"),
])
def test_a_wrong_line_is_shown(ucf: Path, file: str, line: str, message: str) -> None:
    path = ucf / "ucfTrainTestlist" / file
    path.write_text(path.read_text().rstrip() + f"\n{line}\n")
    with pytest.raises(DataError, match=message):
        list_clips(SourceSpec(ucf))


def test_a_missing_list_is_named(ucf: Path) -> None:
    with pytest.raises(DataError, match=r"trainlist02\.txt cannot be read"):
        list_clips(SourceSpec(ucf, split=2))
    with pytest.raises(DataError, match=r"no split files of hmdb51 \(\*_test_split1\.txt\)"):
        list_clips(SourceSpec(ucf, layout="hmdb51"))


def test_hmdb_keeps_the_published_sides_and_says_what_they_share(hmdb: Path) -> None:
    listing = list_clips(SourceSpec(hmdb, split_files=hmdb.parent / "splits"))
    assert listing.layout == "hmdb51"
    assert len(listing.samples) == 8
    assert "1 source names on both sides" in listing.notes[0]
    by_name = {s.path.name.split("_u_")[0] + s.path.stem[-2:]: s for s in listing.samples}
    assert by_name["hug_B_hug_1"].group == "hug_B_hug@train"
    assert by_name["hug_B_hug_2"].group == "hug_B_hug@test"
    assert by_name["kiss_C_kiss_2"].group == "kiss_C_kiss"
    assert {s.path.name for s in split_three(listing.samples).test} == {
        "hug_B_hug_u_nm_np1_ba_med_2.avi", "kiss_C_kiss_u_nm_np1_ba_med_2.avi"}


def test_a_wrong_hmdb_line_is_shown(hmdb: Path) -> None:
    (hmdb.parent / "splits" / "hug_test_split1.txt").write_text("a.avi 3\n")
    with pytest.raises(DataError, match=r"hug_test_split1.txt line 1 is 'a\.avi 3'"):
        list_clips(SourceSpec(hmdb, split_files=hmdb.parent / "splits"))
