"""The whole program on a tiny set of clips that the test makes: from index to bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepkd.bundle.reading import read_bundle
from edgepkd.engines.graph import is_quantized
from edgepkd.studies.demo import command as demo
from tests.clips import encode_clip

pytestmark = pytest.mark.slow

RECIPE = """
purpose = "Left or right."
name = "tiny"
dataset = "moves"
index = "index.csv"
num_folds = 2
seed = 1
default_order = ["mv", "residual", "iframe"]
terms = "Made by the test."
[inputs]
mv = {num_segments = 2, resize_px = 32, crop_px = 32}
residual = {num_segments = 1, resize_px = 32, crop_px = 32}
iframe = {num_segments = 1, resize_px = 32, crop_px = 32}
[backbones]
mv = {backbone = "resnet18", width = 0.125, epochs = 20, learning_rate = 1e-2, batch_clips = 4}
residual = {backbone = "resnet18", width = 0.125, epochs = 1, learning_rate = 1e-3}
iframe = {backbone = "resnet18", width = 0.125, epochs = 1, learning_rate = 1e-3}
[exits]
epochs = 6
num_views = 2
"""

INT8 = """
purpose = "A few steps."
calibration_clips = 4
min_clips = 2
[finetune]
epochs = 2
batch_clips = 4
"""


def make_set(folder: Path) -> Path:
    """Ten noisy textures that move left or right, in five groups; one group is the test."""
    rng = np.random.default_rng(0)
    rows = ["path,label,group,split,dataset"]
    for number in range(10):
        texture = rng.integers(0, 255, (64, 128, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        step = 6 if number % 2 else -6
        frames = np.stack([np.roll(texture, step * t, axis=1)[:128, :160] for t in range(14)])
        encode_clip(folder / f"{number}.avi", frames)
        split = "test" if number >= 8 else "train"
        rows.append(f"{number}.avi,{'right' if step > 0 else 'left'},g{number // 2},{split},moves")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    (folder / "tiny.toml").write_text(RECIPE)
    (folder / "int8.toml").write_text(INT8)
    return folder


def test_from_clips_to_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_set(tmp_path)
    arguments = ["--set", str(data / "tiny.toml"), "--data", str(data), "--jobs", "1",
                 "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"),
                 "--int8", str(data / "int8.toml"), "--allow-drift"]
    assert demo.main(arguments) == 0
    output = capsys.readouterr()
    assert "cascade with early exits" in output.out
    assert "backbones" in output.err

    bundle = read_bundle(tmp_path / "out" / "tiny.edgepkd")
    assert bundle.manifest.labels == ("left", "right")
    assert len(bundle.manifest.segments) == 12
    assert {(s.precision, s.weight_bits) for s in bundle.manifest.segments} == {("int8", 7)}
    parity = bundle.manifest.provenance["parity"]
    assert len(parity["exits"]) == 2 * 3 * 12  # test clips and folds, three pairs of forms
    assert {row["num_clips"] for row in parity["exits"]} == {2, 8}
    for entry in bundle.manifest.segments:
        content = (bundle.path / entry.file).read_bytes()
        assert is_quantized(content)
    assert len(bundle.wise) == len(bundle.policy) == 15
    assert bundle.manifest.provenance["data"]["test_groups"] == ["g4"]
    card = (bundle.path / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in ("8 clips of 4 groups to train", "2 clips of 1 groups to test",
                  "Made by the test.", "| mv_1 |", "## INT8 against FP32", "## Limits"):
        assert words in card

    assert demo.main(arguments) == 0
    assert capsys.readouterr().err.count("kept from an earlier run") == 9 + 3 + 9 + 3
    # trunks, exits of each part, INT8 networks, answers of each part


def test_a_leaking_index_is_one_error_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_set(tmp_path)
    index = data / "index.csv"
    index.write_text(index.read_text().replace("g4", "g3"))
    assert demo.main(["--set", str(data / "tiny.toml"), "--data", str(data)]) == 1
    error = capsys.readouterr().err
    assert "share the group g3" in " ".join(error.split())
    assert "Traceback" not in error
