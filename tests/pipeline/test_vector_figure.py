"""Figures beside the files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepkd import _optional
from edgepkd.errors import (
    MissingExtraError,
)
from edgepkd.pipeline.vectors import (
    VectorsConfig,
    vectors,
)
from tests.pipeline.writing_vectors import (
    written,
)


@pytest.mark.slow
@pytest.mark.parametrize("what", [("motion", "residual", "iframe"), ("motion",), ("residual",),
                                  ("iframe",), ("residual", "iframe")])
def test_a_figure_beside_each_file(tmp_path: Path, clip: Path, what: Any) -> None:
    written(clip, tmp_path / "out", plot="png", gops=2, what=what)
    assert sorted(os.listdir(tmp_path / "out")) == [
        "gop-000000.npz", "gop-000000.png", "gop-000001.npz", "gop-000001.png", "index.csv"]
    with Image.open(tmp_path / "out" / "gop-000000.png") as figure:
        pixels = np.asarray(figure.convert("RGB")).astype(int)
    panels = 2 if {"motion", "residual"} <= set(what) else 1
    assert pixels.shape[1] == 600 * panels
    assert (np.ptp(pixels, axis=2) > 60).sum() > 500 or what == ("iframe",), "colours are drawn"


def test_figures_need_matplotlib_and_say_so_before_any_work(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(_optional.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"--plot png needs .*edgepkd\[report\]"):
        next(vectors(VectorsConfig(clip, tmp_path / "out", plot="png")))
    assert list(tmp_path.iterdir()) == []
