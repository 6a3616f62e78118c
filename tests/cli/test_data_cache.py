"""`edgepkd data cache` as it is typed."""

from __future__ import annotations

from pathlib import Path

from tests.cli.calling import invoke, lines
from tests.training.test_entries import make, names


def test_a_cache_is_listed_and_cleared(tmp_path: Path) -> None:
    make(tmp_path / "clips", 1)
    make(tmp_path / "clips", 2)
    where = ("--cache", tmp_path / "clips", "--features", tmp_path / "none")
    done = invoke("data", "cache", *where)
    assert done.exit_code == 0
    assert f"{tmp_path}/clips: 2 entries, 0.00 GB" in done.stdout
    assert "mv x8" in done.stdout
    assert f"{tmp_path}/none: 0 entries" in done.stdout
    found = lines(invoke("data", "cache", *where, "--json", "-").stdout)
    assert [line["num_entries"] for line in found] == [2, 0]
    assert found[0]["groups"][0]["kind"] == "clip"
    done = invoke("data", "cache", *where, "--clear")
    assert "2 removed, 0.00 GB; 0.00 GB are left" in done.stdout
    assert names(tmp_path / "clips") == []
    assert not (tmp_path / "none").exists()


def test_wrong_days_are_a_message(tmp_path: Path) -> None:
    done = invoke("data", "cache", "--older-than", "-3", "--cache", tmp_path)
    assert done.exit_code == 2
    assert "0 or more days" in done.stderr
