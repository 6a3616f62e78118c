"""Pictures compressed one by one, so that each can be read alone.

Residuals shrink to a third and motion fields to a fifth (zlib, level 1). Unpacking a residual of
340x256 takes 0.6 ms of a core, 2 % of what training on it takes there; an I-frame shrinks to half
only for twice that share, and is kept as it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepkd.errors import DataError

LEVEL = 1
"""Of zlib: 6 would save a tenth more and take four times as long."""


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Pictures of one size in a file, read like the rows of an array."""

    path: Path
    content: NDArray[np.uint8]
    """All of the file."""
    shape: tuple[int, ...]
    """[pictures, rows, columns, channels]."""
    ends: tuple[int, ...]
    """Where each picture ends in `content`."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """One picture, read-only.

        Raises:
            IndexError: there is no such row. DataError: the file is damaged.
        """
        if not 0 <= row < len(self.ends):
            raise IndexError(row)
        begin = self.ends[row - 1] if row else 0
        try:
            raw = zlib.decompress(self.content[begin : self.ends[row]].tobytes())
            return np.frombuffer(raw, np.uint8).reshape(self.shape[1:])
        except (zlib.error, ValueError) as error:
            raise DataError(f"{self.path} is damaged: {error}.",
                            hint=f"Delete {self.path.parent}; it will be made again.") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All pictures as one array; a new one, whatever `copy` says."""
        rows = [self[row] for row in range(len(self))]
        return np.stack(rows).astype(dtype or np.uint8, copy=False)


def write_packed(path: Path, pictures: NDArray[np.uint8]) -> tuple[int, ...]:
    """Write pictures [pictures, rows, columns, channels]; returns where each ends in the file.

    Raises:
        OSError: it cannot be written.
    """
    parts = [zlib.compress(picture.tobytes(), LEVEL) for picture in pictures]
    path.write_bytes(b"".join(parts))
    return tuple(accumulate(len(part) for part in parts))


def read_packed(path: Path, *, shape: Sequence[int], ends: Sequence[int]) -> PackedRows:
    """Pictures that `write_packed` wrote; nothing is unpacked yet.

    Raises:
        OSError: the file cannot be read. ValueError: it is of another size.
    """
    content = np.memmap(path, np.uint8, mode="r")
    if len(ends) != shape[0] or content.size != max(ends, default=0):
        raise ValueError(f"{path.name} holds {content.size} bytes of {len(ends)} pictures")
    return PackedRows(path, content, tuple(shape), tuple(ends))
