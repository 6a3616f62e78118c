"""Fixtures of the verbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clips import encode_clip, translating_texture


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three GOPs, the last one short: 12, 12 and 6 frames."""
    path = tmp_path_factory.mktemp("clips") / "right.mp4"
    return encode_clip(path, translating_texture(30, (160, 96), (2, -1)))
