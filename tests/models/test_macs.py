from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch

from edgepkd.config import MODALITIES, InputSpec, Modality
from edgepkd.models.macs import ExitMacs, clip_gmac, macs_per_exit
from edgepkd.models.registry import build_network
from edgepkd.models.segmented import BackboneName, HeadForm
from tests.models.networks import small_network

# paper.md 2.2 at 224x224, GMAC per frame: cumulative with heads, then (stage, head) of exits 1..3.
PAPER: list[tuple[BackboneName, Modality, tuple[float, ...], list[tuple[float, float]]]] = [
    ("resnet18", "residual", (1.123, 1.650, 2.177, 2.588),
     [(0.580, 0.543), (0.411, 0.116), (0.411, 0.116)]),
    ("resnet18", "mv", (1.084, 1.611, 2.138, 2.549),
     [(0.541, 0.543), (0.411, 0.116), (0.411, 0.116)]),
    ("resnet50", "iframe", (1.248, 3.201, 6.517, 7.326),
     [(0.786, 0.463), (1.028, 0.925), (1.464, 1.851)]),
]
BACKBONE_ONLY = {("resnet18", "residual"): 1.814, ("resnet18", "mv"): 1.774,
                 ("resnet50", "iframe"): 4.087}

# design.md 4.3, MMAC per head without its linear layer: paper form, pool-first.
POOL_FIRST: dict[tuple[BackboneName, int], tuple[float, float]] = {
    ("resnet18", 1): (543, 11.6), ("resnet18", 2): (116, 4.1), ("resnet18", 3): (116, 10.6),
    ("resnet50", 2): (925, 25.8), ("resnet50", 3): (1850, 155),
}


def sums(rows: tuple[ExitMacs, ...], form: HeadForm) -> list[int]:
    """All segments up to each exit."""
    return list(accumulate(row.segment(form) for row in rows))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "modality", "cumulative", "parts"), PAPER)
def test_the_papers_table(
    name: BackboneName, modality: Modality, cumulative: tuple[float, ...],
    parts: list[tuple[float, float]],
) -> None:
    rows = macs_per_exit(build_network(name, modality=modality, num_classes=101))
    assert [value / 1e9 for value in sums(rows, "paper")] == pytest.approx(cumulative, rel=0.01)
    for row, (stage, head) in zip(rows, parts, strict=False):
        assert row.trunk / 1e9 == pytest.approx(stage, rel=0.01)
        assert row.head_paper / 1e9 == pytest.approx(head, rel=0.01)
    plain = sum(r.trunk for r in rows) + rows[3].head_paper
    assert plain / 1e9 == pytest.approx(BACKBONE_ONLY[name, modality], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_pool_first_figures(name: BackboneName) -> None:
    network = build_network(name, modality="iframe", num_classes=101)
    rows = macs_per_exit(network)
    for (backbone, exit_number), (paper, pool_first) in POOL_FIRST.items():
        if backbone == name:
            row, linear = rows[exit_number - 1], network.heads[exit_number - 1].fc.weight.numel()
            assert (row.head_paper - linear) / 1e6 == pytest.approx(paper, rel=0.01)
            assert (row.head_pool_first - linear) / 1e6 == pytest.approx(pool_first, rel=0.01)


def test_lite0_has_its_published_cost() -> None:
    network = build_network("efficientnet_lite0", modality="iframe", num_classes=1000)
    rows = macs_per_exit(network)
    # 0.385 G in the published PyTorch reproductions, classifier included.
    plain = sum(r.trunk for r in rows) + rows[3].head_paper
    assert plain / 1e9 == pytest.approx(0.385, rel=0.01)
    assert [r.features_shape for r in rows] == [(24, 56, 56), (40, 28, 28), (112, 14, 14),
                                                (1280, 7, 7)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "efficientnet_lite0"])
def test_the_documented_tables_are_what_is_counted(name: str) -> None:
    documented = Path(__file__).parents[2] / "docs" / "macs.md"
    if not documented.is_file():
        pytest.skip("docs are not part of the source archive")
    text = documented.read_text(encoding="utf-8")
    for modality in MODALITIES:
        backbone: BackboneName = "efficientnet_lite0"
        if name == "resnet":
            backbone = "resnet50" if modality == "iframe" else "resnet18"
        rows = macs_per_exit(build_network(backbone, modality=modality, num_classes=101))
        totals = zip(sums(rows, "paper"), sums(rows, "pool_first"), strict=True)
        for row, (paper, pool_first) in zip(rows, totals, strict=True):
            shape = "x".join(map(str, row.features_shape))
            cells = (row.trunk, row.head_paper, row.head_pool_first, paper, pool_first)
            numbers = " | ".join(f"{value / 1e6:.1f}" for value in cells)
            assert f"| {modality} {row.exit} | {shape} | {numbers} |\n" in text


def test_parts_and_shapes_agree() -> None:
    network = small_network("resnet18", modality="mv")
    rows = macs_per_exit(network, crop_px=96)
    for row in rows:
        assert row.segment("paper") == row.trunk + row.head_paper
        assert row.segment("pool_first") == row.trunk + row.head_pool_first
    with torch.no_grad():
        features = network.features(torch.zeros(1, 2, 96, 96))
    assert [r.features_shape for r in rows] == [tuple(f.shape[1:]) for f in features]
    assert [r.input_shape for r in rows[1:]] == [r.features_shape for r in rows[:3]]
    assert rows == macs_per_exit(network.pool_first(), crop_px=96)


def test_counting_leaves_the_network_alone() -> None:
    network = small_network().train()
    macs_per_exit(network, crop_px=64)
    assert network.training
    assert next(network.parameters()).device.type == "cpu"
    assert not any(m._forward_hooks for m in network.modules())


def test_stacked_fields_cost_one_pass_and_a_wider_first_convolution() -> None:
    spec = InputSpec("mv", 8, resize_px=64, crop_px=64)
    apart = clip_gmac({"mv": small_network()}, {"mv": spec})["mv"]
    stacked = clip_gmac({"mv": small_network(frames_per_pass=8)},
                        {"mv": replace(spec, stack=True)})["mv"]
    added = 8 * 14 * 7 * 7 * 32 * 32 / 1e9  # 14 more channels into 8 of 7x7 at half the side
    assert stacked[0] == pytest.approx(apart[0] / 8 + added)
    assert stacked[1:] == pytest.approx([part / 8 for part in apart[1:]])
