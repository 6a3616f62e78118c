"""Fixtures of the studies' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgepkd.datasets.index import Sample
from edgepkd.studies import parts
from edgepkd.training.cache import CacheSpec, ClipArrays
from tests.training.fake_clips import fake_clip


@pytest.fixture
def fake_clips(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clips of `tiny_parts` come from nowhere: label b is bright."""
    def read(sample: Sample, *, spec: CacheSpec, folder: Path) -> ClipArrays:
        number = int(sample.path.stem)
        return fake_clip(seed=number, brightness=170 * (number % 2))

    monkeypatch.setattr(parts, "cached_clip", read)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
