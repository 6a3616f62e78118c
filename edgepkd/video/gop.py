"""A GOP that decodes on demand, each thing once. `gop_reader` makes them.

Packets from one point where decoding can start to the next form a run (`decode_runs`); the GOPs of
one run share a decoder.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepkd.config import Route
from edgepkd.errors import ConfigError, DecodeError
from edgepkd.video.decode_runs import DecodeRun, StreamDecoder
from edgepkd.video.fields import (
    Accumulator,
    chosen_references,
    no_cells,
    residual,
    vector_cells,
)
from edgepkd.video.orientation import Margins
from edgepkd.video.vectors import vector_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

_INTRA = 1
_SMALL_FIELD_BYTES = 64 << 10
_SMALL_FRAME_PX = 512 * 512
"""Frames up to this many pixels are kept for a GOP without a plan: twelve are under 5 MB."""


class Gop:
    """An anchor frame and the frames described by their motion since it. Made by `GopReader`.

    Positions `t` count displayed frames from the anchor, 0. For a frame that is not decoded (a
    B-frame, a damaged packet) the nearest decoded one stands in, so that times stay right. A GOP
    of the stream that is longer than `DecodeSpec.gop_frames` is cut into several, each with an
    anchor of its own. Arrays are cropped, mirrored and turned as the stream asks for: what is
    looked at. They are kept for later calls: copy one before you change it.

    >>> import edgepkd.video
    >>> with edgepkd.video.open("clip.mp4") as clips:
    ...     gop = next(clips.gops())
    ...     print(f"{gop.num_frames} frames, the last one at {gop.times_s[-1]:.1f} s")
    ...     print(gop.iframe().shape, gop.grid_shape)
    12 frames, the last one at 1.1 s
    (256, 455, 3) (256, 455)

    Attributes:
        index: number of the GOP in its stream; counted anew where the stream changes.
        times_s: when each frame is shown, seconds on the stream's own clock, which need not begin
            at 0 (see `ClipReader.first_time_s`).
        begins_anew: the stream breaks before it.
    """

    def __init__(self, *, index: int, numbers: list[int], times_s: tuple[float, ...],
                 run: DecodeRun, stream: StreamDecoder, begins_anew: bool = False) -> None:
        """`numbers` are those of the packets shown, -1 where nothing is decoded."""
        self.index = index
        self.times_s = times_s
        self.begins_anew = begins_anew
        """True where the stream breaks before it: a gap in time, a clock that starts again,
        pictures of another size. What lies on both sides does not belong together."""
        self.route: Route = "native"
        """Whether its packets are the source's own, or of what it was re-encoded to."""
        self._numbers = numbers
        self._kept = [t for t, number in enumerate(self._numbers) if number >= 0]
        self._position_of = {self._numbers[t]: t for t in self._kept}
        self._run: DecodeRun | None = run
        self._stream = stream
        self._orientation = stream.orientation
        self._grid = stream.grid(*stream.size)
        self._has_size = False
        self._planned: frozenset[int] | None = None
        self._wanted: set[int] = set()
        self._frames: dict[int, VideoFrame] = {}
        self._anchor_rgb: NDArray[np.uint8] | None = None
        self._cells: dict[int, NDArray[np.int32]] = {}
        self._references: dict[int, NDArray[np.uint8]] = {}
        self._arrived = -1
        self._accumulator: Accumulator | None = None
        self._next_step = 0
        self._fields: dict[int, NDArray[np.int16]] = {}
        self._residuals: dict[int, NDArray[np.int16]] = {}

    # -- what it is -------------------------------------------------------------------------

    @property
    def num_frames(self) -> int:
        """Displayed frames, the anchor included."""
        return len(self._numbers)

    @property
    def width_px(self) -> int:
        """Width of pictures and residuals, as they are looked at."""
        window = self._grid.window
        return self._orientation.turned_size(window.width_px, window.height_px)[0]

    @property
    def height_px(self) -> int:
        """Height of pictures and residuals, as they are looked at."""
        window = self._grid.window
        return self._orientation.turned_size(window.width_px, window.height_px)[1]

    @property
    def source_size_px(self) -> tuple[int, int]:
        """Width and height of the source's pictures, as they are looked at; motion is counted in
        their pixels."""
        grid = self._grid
        if not grid.resizes:
            return self.width_px, self.height_px
        return self._orientation.turned_size(grid.source_width_px, grid.source_height_px)

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(rows, columns) of a motion field, as it is looked at: cells of `DecodeSpec.grid_px`
        pixels, or single pixels where pictures are smaller than the source's."""
        window = self._grid.window
        columns, rows = self._orientation.turned_size(window.columns, window.rows)
        return rows, columns

    @property
    def field_margins(self) -> Margins:
        """Columns and rows of a motion field that lie outside the picture: parts of its last
        cells, or of its first where the picture is turned or cropped."""
        return self._orientation.turned_margins(self._grid.window.margins)

    # -- what it gives ----------------------------------------------------------------------

    def plan(self, positions: Iterable[int]) -> None:
        """Say which positions `iframe` (0) and `residual` will be asked for later.

        Their frames, and the anchor's, are kept while decoding passes them; others are not. An
        unplanned position still works, but may have to be decoded again.
        """
        planned = {self._nearest(t) for t in positions}
        self._planned = frozenset(planned | {0} if planned else planned)

    def iframe(self) -> NDArray[np.uint8]:
        """The anchor, uint8 [H, W, 3] RGB; decodes one packet where the stream has a key there.

        >>> import edgepkd.video
        >>> with edgepkd.video.open("clip.mp4") as clips:
        ...     picture = next(clips.gops()).iframe()
        >>> picture.dtype, picture.shape
        (dtype('uint8'), (256, 455, 3))

        Raises:
            DecodeError: no frame of the GOP can be decoded, or it was released.
        """
        return self._shown(self._picture(0))

    def motion(self, t: int) -> NDArray[np.int16]:
        """Displacement since the anchor, int16 [rows, columns, 2] (x, y); makes no picture.

        Quarter pixels of the source, + is right and down (paper.md 1.2); 0 at the anchor and where
        the stream has no vector. With `arithmetic="coviar"` every step is truncated to whole
        pixels (multiples of 4).

        >>> import edgepkd.video
        >>> with edgepkd.video.open("clip.mp4") as clips:
        ...     field = next(clips.gops()).motion(3)
        >>> field.dtype, field.shape
        (dtype('int16'), (256, 455, 2))
        >>> x_px, y_px = field[..., 0] / 4, field[..., 1] / 4
        >>> print(f"{x_px.min()} to {x_px.max()} px to the right")
        -17.75 to 56.5 px to the right

        Raises:
            ConfigError: `t` is not a position of this GOP.
            DecodeError: the stream is something the native route cannot decode, or the GOP was
                released.
        """
        t = self._nearest(t)
        field = self._fields.get(t)
        if field is None:
            self._live_run()
            self._decode_vectors(t)
            field = self._shown_field(self._accumulate(t).field())
            if field.nbytes > _SMALL_FIELD_BYTES:
                # Twelve large fields held and then freed at once go back to the system, and
                # their pages cost more to get again than the field costs to make.
                self._fields.clear()
            self._fields[t] = field
            self._stream.counters.motion_fields += 1
        return field

    def residual(self, t: int) -> NDArray[np.int16]:
        """Decoded frame minus warped anchor, int16 [H, W, 3] in RGB order, -255..255.

        >>> import edgepkd.video
        >>> with edgepkd.video.open("clip.mp4") as clips:
        ...     gop = next(clips.gops())
        ...     difference = gop.residual(3)
        ...     print(difference.dtype, difference.shape, abs(gop.residual(0)).max())
        int16 (256, 455, 3) 0

        Raises:
            ConfigError: `t` is not a position of this GOP, or the stream is decoded for motion
                only (`pixels=False`).
            DecodeError: no frame of the GOP can be decoded, or it was released.
        """
        if not self._stream.spec.pixels:
            raise ConfigError(
                "residual() needs the pixels of P-frames, and the stream is decoded with "
                "pixels=False.", hint="Decode it with DecodeSpec(pixels=True).")
        t = self._nearest(t)
        if t not in self._residuals:
            anchor, picture = self._picture(0), self._picture(t)
            self._decode_vectors(t)
            difference = residual(picture, anchor, self._accumulate(t).state, grid=self._grid)
            self._residuals[t] = self._shown(difference)
            self._stream.counters.residuals += 1
        return self._residuals[t]

    def release(self) -> None:
        """Let go of packets, frames and arrays; asking for one after that is a DecodeError."""
        if self._run is None:
            return
        undecoded = sum(self._numbers[t] > self._arrived for t in self._kept)
        self._stream.counters.packets_skipped += undecoded
        self._run = None
        if self._accumulator is not None:
            self._stream.give_back(self._accumulator)
            self._accumulator = None
        self._anchor_rgb = None
        for store in (self._frames, self._cells, self._references, self._fields,
                      self._residuals):
            store.clear()

    # -- decoding ---------------------------------------------------------------------------

    @property
    def first_number(self) -> int:
        """Number of the anchor's packet in the stream."""
        return self._numbers[0]

    @property
    def last_number(self) -> int:
        """Number of the last packet that is decoded for it."""
        return self._numbers[self._kept[-1]]

    def take(self, frame: VideoFrame, *, number: int, recent: list[VideoFrame]) -> None:
        """Called by the run for each decoded frame of this GOP, in order.

        `recent` are the frames decoded since the anchor, newest last, without this one.
        """
        t = self._position_of.get(number)
        if t is None or self._run is None:
            return
        grid = self._grid
        if not (self._has_size and frame.width == grid.source_width_px
                and frame.height == grid.source_height_px) and not self._fits(frame):
            self._stream.counters.errors += 1
            return
        if self._wants(t):
            self._keep(t, frame)
        if number <= self._arrived:
            return
        self._arrived = number
        if t > 0 and recent:
            self._take_vectors(t, frame, recent)

    def _fits(self, frame: VideoFrame) -> bool:
        """Whether `frame` has the size of this GOP; the first one that comes decides on it."""
        grid = self._grid
        if frame.width == grid.source_width_px and frame.height == grid.source_height_px:
            self._has_size = True
            return True
        if self._has_size:
            return False
        # What was made before any frame came is a field at rest, in the size that was expected.
        self._grid = self._stream.grid(frame.width, frame.height)
        self._fields.clear()
        self._accumulator, self._next_step = None, 0
        self._has_size = True
        return True

    def _take_vectors(self, t: int, frame: VideoFrame, recent: list[VideoFrame]) -> None:
        grid, stream = self._grid, self._stream
        words = vector_words(frame)
        if frame.pict_type == _INTRA or not words.size:
            if stream.num_references > 1:  # the states are counted back frame by frame
                self._cells[t] = no_cells(grid)
            return
        self._cells[t] = vector_cells(
            words, grid=grid, whole_pixels=stream.whole_pixels, limit=stream.vector_limit)
        if stream.num_references > 1:
            self._references[t] = chosen_references(words, frame, recent, grid=grid)

    def _wants(self, t: int) -> bool:
        if t in self._wanted:
            return True
        if self._planned is not None:
            return t in self._planned
        if self._run is not None and not self._run.is_restartable:
            return True
        grid = self._grid
        return t == 0 or grid.source_width_px * grid.source_height_px <= _SMALL_FRAME_PX

    def _keep(self, t: int, frame: VideoFrame) -> None:
        if t in self._frames:
            return
        grid = self._grid
        if grid.resizes:
            frame = self._stream.pictures.resized(
                frame, width_px=grid.width_px, height_px=grid.height_px)
        self._frames[t] = frame

    def _decode_vectors(self, t: int) -> None:
        number = self._numbers[t]
        if t > 0 and number > self._arrived:
            self._live_run().advance(number)
            # A damaged packet gives no frame: it counts as arrived, without motion.
            self._arrived = max(self._arrived, number)

    def _accumulate(self, t: int) -> Accumulator:
        if self._accumulator is None:
            self._accumulator = self._stream.accumulator(self._grid)
        if self._next_step > 0 and self._kept[self._next_step - 1] > t:
            self._accumulator.restart()
            self._next_step = 0
        while self._next_step < len(self._kept) and self._kept[self._next_step] <= t:
            step = self._kept[self._next_step]
            cells = self._cells.get(step)
            if cells is not None:
                self._accumulator.advance(cells, self._references.get(step))
            self._next_step += 1
        return self._accumulator

    def _picture(self, t: int) -> NDArray[np.uint8]:
        """RGB of position `t` as it is decoded."""
        if t == 0 and self._anchor_rgb is not None:
            return self._anchor_rgb
        rgb = self._stream.pictures.rgb(self._frame(t))
        self._stream.counters.frames_rgb += 1
        if t == 0:
            self._anchor_rgb = rgb
        return rgb

    def _frame(self, t: int) -> VideoFrame:
        if t not in self._frames:
            self._wanted.add(t)
            self._live_run().fetch(self, self._numbers[t])
            self._arrived = max(self._arrived, self._numbers[t])
        if t in self._frames:
            return self._frames[t]
        before = [p for p in self._frames if p < t]
        if before:
            return self._frames[max(before)]
        return self._first_decodable(t)

    def _first_decodable(self, t: int) -> VideoFrame:
        """The next frame that decodes stands in for a damaged anchor."""
        for later in self._kept:
            if later > t:
                self._wanted.add(later)
                self._live_run().fetch(self, self._numbers[later])
                self._arrived = max(self._arrived, self._numbers[later])
                if later in self._frames:
                    return self._frames[later]
        newest = self._stream.newest
        if newest is not None and self._fits(newest):
            self._keep(t, newest)
            return self._frames[t]
        raise DecodeError(
            f"GOP {self.index} (from {self.times_s[0]:.2f} s) holds no frame that can be decoded.",
            hint="The file is damaged there; re-encode it or choose another part.")

    # -- details ----------------------------------------------------------------------------

    def _live_run(self) -> DecodeRun:
        if self._run is None:
            raise DecodeError(f"GOP {self.index} was released, and its arrays with it.",
                              hint="Read them before release(), and before the next clip is "
                                   "asked for.")
        return self._run

    def _nearest(self, t: int) -> int:
        """The decoded position nearest to `t`, the earlier of two."""
        if not 0 <= t < len(self._numbers):
            raise ConfigError(f"t is {t}; allowed: 0..{len(self._numbers) - 1}.")
        if self._numbers[t] >= 0:
            return t
        at = bisect.bisect_left(self._kept, t)
        around = self._kept[max(at - 1, 0) : at + 1]
        return min(around, key=lambda p: (abs(p - t), p))

    def _shown(self, array: NDArray[Any]) -> NDArray[Any]:
        """What is looked at of a decoded picture or its residual."""
        if self._stream.shows_all:
            return array
        return self._orientation.turned(np.ascontiguousarray(array[self._grid.window.pixels]))

    def _shown_field(self, field: NDArray[np.int16]) -> NDArray[np.int16]:
        if self._stream.shows_all:
            return field
        cut = np.ascontiguousarray(field[self._grid.window.points])
        return self._orientation.turned_field(cut)
