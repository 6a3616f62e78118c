"""The warm-up decodes every modality of a bundle, whatever its settings."""

from __future__ import annotations

import pytest

from edgepkd.config import MODALITIES, ClipSpec, DecodeSpec, InputSpec, Modality
from edgepkd.runtime import warm_up
from edgepkd.video.clips import Clip


@pytest.mark.parametrize(("clip", "decode"), [
    (ClipSpec(), DecodeSpec()),
    (ClipSpec(clip_frames=1, stride_frames=1, gop_frames=2, position=1), DecodeSpec(gop_frames=2)),
    (ClipSpec(sampling="gop"), DecodeSpec(grid_px=1, arithmetic="coviar")),
])
def test_every_modality_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, clip: ClipSpec, decode: DecodeSpec
) -> None:
    asked: list[Modality] = []
    real = Clip.tensor

    def tensor(self: Clip, modality: Modality) -> object:
        asked.append(modality)
        made = real(self, modality)
        assert made.shape[0] == 2
        return made

    monkeypatch.setattr(Clip, "tensor", tensor)
    inputs = {m: InputSpec(m, 2, resize_px=32, crop_px=32) for m in MODALITIES}
    warm_up.warm_up_decoding(inputs=inputs, clip=clip, decode=decode)
    assert set(asked) == set(MODALITIES)
