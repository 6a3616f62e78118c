"""A dark bar with a line of white text along the bottom edge of a frame, in its Y, U, V planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgepkd.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL import ImageFont

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Caption:
    """What stands at both ends of the bar."""

    left: str
    right: str


class CaptionBar:
    """The bar of one caption on pictures of one size, ready to be written into planes."""

    def __init__(self, text: Caption, *, width: int, height: int) -> None:
        self._made_for = text, width, height
        font, size_px = _font(text, width=width, wanted_px=max(8, height // 16))
        self._height = min(height, 2 * round(0.85 * size_px))
        self._ink = _ink(text, font, width=width, height=self._height)

    def fits(self, text: Caption, *, width: int, height: int) -> bool:
        """Whether it shows `text`, on pictures of this size."""
        return self._made_for == (text, width, height)

    def draw(self, planes: list[Bytes]) -> None:
        """Write the bar into Y, U and V in place."""
        luma = planes[0][-self._height :].astype(np.float32) * 0.25 + 16
        planes[0][-self._height :] = (luma * (1 - self._ink) + 235 * self._ink).astype(np.uint8)
        for chroma in planes[1:]:
            below = chroma[-(self._height // 2) :].astype(np.float32)
            chroma[-(self._height // 2) :] = (128 + (below - 128) * 0.25).astype(np.uint8)


def _font(text: Caption, *, width: int, wanted_px: int) -> tuple[ImageFont.FreeTypeFont, int]:
    """Pillow's own font, as large as wanted unless the text would not fit into `width`."""
    try:
        from PIL import ImageFont
    except ModuleNotFoundError as error:
        raise MissingExtraError("Drawing on video needs the package 'pillow'.",
                                hint="Install it with: pip install pillow") from error
    line = f"  {text.left}   {text.right}  "
    for size_px in range(wanted_px, 7, -1):
        font: Any = ImageFont.load_default(size_px)
        if font.getlength(line) <= width:
            break
    return font, size_px


def _ink(text: Caption, font: ImageFont.FreeTypeFont, *, width: int, height: int
         ) -> NDArray[np.float32]:
    """Coverage 0..1 of the text, [height, width]; cut off at the right where it does not fit."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(picture)
    margin = height // 3
    draw.text((margin, height / 2), text.left, fill=255, font=font, anchor="lm")
    after = 2 * margin + font.getlength(text.left)
    right = max(after, width - margin - font.getlength(text.right))
    draw.text((right, height / 2), text.right, fill=255, font=font, anchor="lm")
    ink: NDArray[np.float32] = np.asarray(picture, np.float32) / np.float32(255)
    return ink
