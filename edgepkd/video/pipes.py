"""What cannot be sought in, read as it comes."""

from __future__ import annotations

import io
from typing import IO

from edgepkd.video.limits import Limits
from edgepkd.video.stops import carrying_stops


class Pipe:
    """A pipe whose first bytes were already taken, for reading only: FFmpeg must not seek in it.

    What is read is kept, to be read again, until somebody knows what it is.
    """

    def __init__(self, head: bytes, rest: IO[bytes], *, name: str, limits: Limits) -> None:
        """`head` are the bytes taken, `rest` gives what follows."""
        self._again = io.BytesIO(head)
        self._is_settled = False
        self._rest, self._name, self._limits = rest, name, limits
        self._num_idle_bytes = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end.

        Raises:
            LimitError: so much was read, and no packet of the video was in it.
        """
        data = self._again.read(size)
        if data:
            return data
        data = self._from_pipe(size)
        if not self._is_settled:
            self._again.write(data)
        elif self._again.tell():
            self._again = io.BytesIO()
        return data

    def rewind(self) -> None:
        """Go back to the beginning; possible until `settle`."""
        self._again.seek(0)

    def settle(self) -> None:
        """Keep no more of what is read: nobody will go back."""
        self._is_settled = True

    def found_packet(self) -> None:
        """A packet of the video came."""
        self._num_idle_bytes = 0

    def seekable(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Leave the file open: it is the caller's."""

    def _from_pipe(self, size: int) -> bytes:
        with carrying_stops():
            data = self._rest.read(size)
        self._num_idle_bytes += len(data)
        if self._num_idle_bytes > self._limits.idle_bytes:
            raise self._limits.refusal(
                "idle_bytes", f"{self._name} gave {self._num_idle_bytes} bytes with no picture "
                              "in them")
        return data
