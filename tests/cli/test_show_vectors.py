"""How vector files are shown: a row a folder, JSON lines, the exit code."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from edgepkd.cli import output
from edgepkd.cli.show_vectors import show
from edgepkd.errors import SourceError
from edgepkd.pipeline.run import SourceFailed, SourceWarning
from edgepkd.pipeline.vectors import VectorsConfig, VectorsEvent, vectors
from tests.clips import encode_clip, translating_texture


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return encode_clip(tmp_path / "a.avi", translating_texture(24, (96, 64), (1, 0)))


@pytest.mark.slow
def test_a_folder_is_a_row_and_every_file_a_json_line(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = output.json_target(str(tmp_path / "out.jsonl"), force=False)
    code = show(vectors(VectorsConfig(str(clip), tmp_path / "vec")), source=[str(clip)],
                json_to=place, quiet=True)
    assert code == 0
    assert "a.avi" in capsys.readouterr().out
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert kinds.count("file") == 2
    assert kinds[-1] == "summary"


def test_a_source_that_fails_among_others_makes_the_exit_code_1(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def events() -> Generator[VectorsEvent, None, None]:
        yield SourceWarning("b.avi", "it breaks off.")
        yield SourceFailed("b.avi", SourceError("b.avi is empty.", hint="Copy it again."))
        yield from vectors(VectorsConfig(str(clip), tmp_path / "vec"))

    code = show(events(), source=[str(clip)], json_to=output.json_target(None, force=False),
                quiet=False)
    said = capsys.readouterr()
    assert code == 1
    assert "error: b.avi is empty. next: Copy it again." in " ".join(said.err.split())
    assert "it breaks off." in said.err
