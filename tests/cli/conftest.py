"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.bundle.reading import Bundle
from tests.clips import encode_clip, translating_texture
from tests.runtime.bundles import make_bundle


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row is folded."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("EDGEPKD_DEBUG", raising=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that tells motion to the right from motion to the left."""
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with right.mp4 and left.mp4."""
    folder = tmp_path_factory.mktemp("clips")
    encode_clip(folder / "right.mp4", translating_texture(36, (160, 96), (2, 0)))
    encode_clip(folder / "left.mp4", translating_texture(36, (160, 96), (-2, 0)))
    return folder
