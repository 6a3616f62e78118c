"""Clip arrays without a video behind them."""

from __future__ import annotations

import numpy as np

from edgepkd.config import MODALITIES, NUM_CHANNELS, Modality
from edgepkd.training.cache import ClipArrays
from edgepkd.video.sampling import Place

SHAPES = {"mv": (8, 10), "residual": (64, 80), "iframe": (64, 80)}


def fake_clip(*, seed: int, brightness: int = 0, num_gops: int = 2) -> ClipArrays:
    """`num_gops` GOPs of 4 frames: noise in 0..80 plus `brightness`."""
    rng = np.random.default_rng(seed)
    places: dict[Modality, dict[Place, int]] = {}
    pixels = {}
    for modality in MODALITIES:
        positions = (0,) if modality == "iframe" else (1, 2, 3)
        rows = [Place(gop, t) for gop in range(num_gops) for t in positions]
        places[modality] = {place: row for row, place in enumerate(rows)}
        shape = (len(rows), *SHAPES[modality], NUM_CHANNELS[modality])
        pixels[modality] = (rng.integers(0, 80, shape) + brightness).astype(np.uint8)
    return ClipArrays(
        gop_lengths=(4,) * num_gops, places=places, pixels=pixels,
        test_places={m: tuple(places[m])[:2] for m in MODALITIES},
        extents={m: (float(SHAPES[m][1]), float(SHAPES[m][0])) for m in MODALITIES},
    )
