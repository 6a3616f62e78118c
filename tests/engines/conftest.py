"""A small bundle that the builder of the tests makes engines of."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepkd.bundle.reading import Bundle
from tests.engines.builders import FOLDER
from tests.engines.segments import conv_bundle


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return conv_bundle(tmp_path, width=4)
