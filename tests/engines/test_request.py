"""What an export may not ask for is refused before anything is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgepkd.bundle.reading import Bundle
from edgepkd.engines.request import too_wide, workspace_mb
from edgepkd.engines.targets import load_target
from edgepkd.errors import ConfigError
from edgepkd.machine import hardware
from tests.engines.builds import GPU, build, built, listing
from tests.engines.segments import conv_bundle


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "message"), [
    ({"precision": "int4"}, "precision for gpu is 'int4'; allowed: fp32, fp16, int8, auto"),
    ({"workspace_mb": 0}, "workspace_mb is 0"),
    ({"max_frames": 2}, "batch is 2; allowed: 3 or more"),
    ({"dla": 1}, r"dla for gpu is 1; allowed: 0\.\.0"),
    ({"dla": 0, "precision": "int8"}, "on the DLA is 'int8'; allowed: fp16"),
    ({"require_timing_cache": True}, r"an export by this user has left engines/gpu/timing\.cache"),
    ({"target": replace(GPU, versions=(">=11",))}, "tensorrt for gpu is '10.3.0'; allowed: >=11"),
    ({"dla": 0, "target": replace(GPU, dla_versions=(">=11.4.1",))}, "for the DLA of gpu is '10.3"),
    ({"target": replace(GPU, portable=False), "version_compatible": True},
     "version_compatible is True; allowed: not for gpu"),
    ({"target": replace(GPU, dla_cores=0, dla_versions=()), "dla": 0}, "it has no DLA"),
    ({"target": replace(GPU, int8=False), "precision": "int8"}, "allowed: fp32, fp16, auto"),
    ({"target": load_target("onnx")}, "is the ONNX form itself"),
    ({"target": load_target("jetson-thor")}, "built on the board itself"),
])
def test_what_cannot_be_is_refused_and_the_bundle_untouched(
    bundle: Bundle, settings: dict[str, Any], message: str
) -> None:
    before = listing(bundle)
    with pytest.raises(ConfigError, match=message):
        build(bundle, **settings)
    assert listing(bundle) == before
    assert built(bundle) == []


def test_int8_of_a_float_bundle_says_how_to_quantise(tmp_path: Path) -> None:
    bundle = conv_bundle(tmp_path, quantized=False, width=4)
    with pytest.raises(ConfigError, match=r"no segment of conv.edgepkd is quantised.*quantize RUN"):
        build(bundle, precision="int8")


def test_more_bits_than_the_target_takes_are_refused_with_the_command(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "overflows_bytes", lambda: False)
    segments = tuple(replace(s, precision="int8", weight_bits=8) for s in bundle.manifest.segments)
    wide = replace(bundle, manifest=replace(bundle.manifest, segments=segments))
    with pytest.raises(ConfigError, match=r"mv_1 in int8: its weights have 8 bits, and 'gpu' takes "
                       r"7\..* edgepkd quantize RUN --target gpu --force"):
        build(wide, target=replace(GPU, weight_bits=7))
    assert too_wide(wide, GPU) == ()
    assert len(too_wide(wide, load_target("openvino"))) == len(segments)
    assert too_wide(wide, load_target("jetson-orin-nano")) == ()
    assert too_wide(bundle, load_target("openvino")) == ()


def test_workspace_comes_from_the_boards_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    nano = load_target("jetson-orin-nano")
    monkeypatch.setattr(hardware, "available_memory_mb", lambda: 3000)
    assert workspace_mb(nano, None) == 512
    monkeypatch.setattr(hardware, "available_memory_mb", lambda: 600)
    assert workspace_mb(nano, None) == 300
    assert workspace_mb(nano, 64) == 64
    assert workspace_mb(load_target("openvino"), None) is None
    monkeypatch.setattr(hardware, "gpus", lambda: (hardware.Gpu("x", "1", 8000, "8.9"),))
    assert workspace_mb(load_target("tensorrt"), None) == 2000
    monkeypatch.setattr(hardware, "gpus", lambda: ())
    assert workspace_mb(load_target("tensorrt-rtx"), None) is None
