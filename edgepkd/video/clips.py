"""A source as clips: windows of whole GOPs whose tensors are made when they are asked for.

What is not asked for is not decoded: `tensor("mv")` makes no picture, `tensor("iframe")` decodes no
P-frame where the stream has its own key frames. Times are those of the stream, counted from its
first frame, and never frame number by frame rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields

import numpy as np

from edgepkd.closing import Closing
from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Modality, Route, check
from edgepkd.errors import ConfigError, DecodeError, SourceError
from edgepkd.video import transforms
from edgepkd.video.decoder import DecodeCounters
from edgepkd.video.gop import Gop
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.probe import StreamInfo, probe
from edgepkd.video.routes import RouteChoice, choose_route
from edgepkd.video.sampling import Place, sample_test
from edgepkd.video.source import Source, open_video
from edgepkd.video.stream import StreamReader
from edgepkd.video.transforms import Float32, Geometry, ValueImage
from edgepkd.video.video_input import VideoInput

_UNKNOWN_FPS = 25.0


class Clip:
    """Some GOPs in a row and what the networks want of them; valid until the next clip is read.

    >>> import edgepkd.video
    >>> with edgepkd.video.open("clip.mp4", clip_frames=24) as clips:
    ...     clip = next(iter(clips))
    ...     print(f"{clip.start_s:.1f} s to {clip.end_s:.1f} s, frames: {clip.gop_lengths}")
    ...     print([gop.motion(5).shape for gop in clip.gops])
    0.0 s to 2.4 s, frames: (12, 12)
    [(256, 455, 2), (256, 455, 2)]

    Attributes:
        index: number of the clip in its source.
        gops: its GOPs, lazy.
        start_s, end_s: seconds since the first frame of the source.
        num_frames: displayed frames in all GOPs.
        counters: what was read and decoded for this clip so far.
    """

    def __init__(
        self,
        index: int,
        gops: Sequence[Gop],
        *,
        reader: ClipReader,
        counters: DecodeCounters,
        num_released: int,
    ) -> None:
        self.index = index
        self.gops = tuple(gops)
        self.num_frames = sum(gop.num_frames for gop in gops)
        self.counters = counters
        self._reader = reader
        self._num_released = num_released
        self._images: dict[tuple[Modality, Place], ValueImage] = {}
        self._tensors: dict[Modality, Float32] = {}
        times = [time for gop in gops for time in gop.times_s]
        steps = np.diff(times)
        step = float(np.median(steps)) if steps.size else 1 / reader.fps
        self.start_s = times[0] - reader.first_time_s
        self.end_s = times[-1] + step - reader.first_time_s

    @property
    def gop_lengths(self) -> tuple[int, ...]:
        """Frames of each GOP, the layout that `sampling` works on."""
        return tuple(gop.num_frames for gop in self.gops)

    def places(self, modality: Modality) -> tuple[Place, ...]:
        """Return the place of each temporal segment under the reader's test rule."""
        return self._reader.places(self.gop_lengths, modality)

    def tensor(self, modality: Modality, *, geometry: Geometry | None = None) -> Float32:
        """Return the network input of `modality`, float32, `InputSpec.input_shape`.

        `geometry` is the test centre crop if None. Decodes what is missing, once.

        Raises:
            ConfigError: the reader was not given this modality; one of `edgepkd.video.open` is
                given none.
            DecodeError: the frames it needs cannot be decoded.
        """
        if geometry is None and modality in self._tensors:
            return self._tensors[modality]
        spec = self._reader.input_spec(modality)
        crop = geometry or transforms.centre_crop(resize_px=spec.resize_px, crop_px=spec.crop_px)
        tensor = np.empty(spec.input_shape, np.float32)
        frames = tensor.reshape(spec.num_segments, -1, spec.crop_px, spec.crop_px)  # a view
        for place, out in zip(self.places(modality), frames, strict=True):
            transforms.to_tensor(self.image(modality, place), crop, crop_px=spec.crop_px, out=out)
        if geometry is None:
            self._tensors[modality] = tensor
        return tensor

    def image(self, modality: Modality, place: Place) -> ValueImage:
        """Return one signal of one frame as uint8 values, before cropping (paper.md 1.3).

        Raises:
            DecodeError: the frames it needs cannot be decoded.
        """
        key = modality, place
        if key not in self._images:
            with self._reader.metered(self.counters):
                self._images[key] = self._make_image(modality, place)
        return self._images[key]

    def release(self) -> None:
        """Free frames and packets that no later clip needs; counts what was never decoded."""
        with self._reader.metered(self.counters):
            for gop in self.gops[: self._num_released]:
                gop.release()
        self._num_released = 0
        self._images.clear()

    def _make_image(self, modality: Modality, place: Place) -> ValueImage:
        gop = self.gops[place.gop]
        picture = float(gop.width_px), float(gop.height_px)
        if modality == "iframe":
            return ValueImage(modality, gop.iframe(), picture)
        if modality == "residual":
            shape = gop.height_px, gop.width_px, 3
            signal = gop.residual(place.t) if place.t else np.zeros(shape, np.int16)
            return ValueImage(modality, transforms.residual_to_uint8(signal), picture)
        field = gop.motion(place.t)
        rows, columns = field.shape[:2]
        left, top, right, bottom = gop.field_margins
        # After `motion`: only a decoded anchor shows the size of its pictures for certain.
        scale = transforms.motion_scale(*gop.source_size_px)
        values = transforms.mv_to_uint8(field, scale=scale)
        return ValueImage(modality, values, (columns - left - right, rows - top - bottom),
                          (left, top))


class ClipReader(Closing):
    """Reads a source as clips, once. A context manager.

    Attributes:
        info: what the probe found.
        choice: the route taken and why; with `route` given, that route.
        counters: what was read and decoded so far, over all clips.
        first_time_s: where `Gop.times_s` begin; `Clip.start_s` counts from there.
        num_frames_estimate: frames to expect, for a progress bar; None for a camera.
        fps: frames per second, 25 if the stream does not tell.
        notes: what had to be assumed to open the source, in words for the user.
        warnings: what is wrong with the source though it can be read, in words for the user; grows
            while clips are read.
    """

    def __init__(
        self,
        source: Source | VideoInput,
        *,
        clip: ClipSpec,
        inputs: Mapping[Modality, InputSpec] | None = None,
        decode: DecodeSpec | None = None,
        route: Route = "auto",
        fps: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Open and probe `source`; decodes a few of its first frames to see what they are.

        `inputs` are what the networks see of a clip; without any, clips have GOPs but no tensors.
        An open VideoInput is taken over and closed with the reader. `fps` is the frame rate of an
        image sequence, and of a stream that names none; `limits` are how much it may ask for. Both
        are for a source that is not open yet.

        Raises:
            SourceError: it cannot be opened or has no video.
            LimitError: it asks for more than its limits allow; while it is read, too.
            ConfigError: `inputs` is empty, contradicting settings, or `route` 'native' for a
                stream whose vectors would be wrong or missing.
        """
        self._check(clip, inputs, decode, route)
        self._clip_spec, self._inputs = clip, dict(inputs or {})
        self._decode = decode or DecodeSpec(gop_frames=clip.gop_frames)
        self._video = (source if isinstance(source, VideoInput)
                       else open_video(source, fps=fps, limits=limits))
        try:
            self.info: StreamInfo = probe(self._video)
            self.choice: RouteChoice = _choice(self.info, route, self._decode.max_short_side_px)
        except BaseException:
            self._video.close()
            raise
        self.counters = DecodeCounters()
        self.fps = self.info.fps or _UNKNOWN_FPS
        self.first_time_s = 0.0
        self.warnings: list[str] = []
        self.notes: tuple[str, ...] = tuple(self._video.notes)
        self._started = self._has_gops = False
        self._stream = StreamReader(self._video, info=self.info, route=route,
                                    choice=self.choice, decode=self._decode,
                                    counters=self.counters, warnings=self.warnings)

    @property
    def num_frames_estimate(self) -> int | None:
        """Frames to expect, from what was seen or from the duration, never from frame counts."""
        if self.info.seen_all:
            return self.info.num_packets_seen
        if self.info.duration_s is None:
            return None
        return round(self.info.duration_s * self.fps)

    def __iter__(self) -> Iterator[Clip]:
        """Yield clips in order; asking for the next one releases the one before.

        Raises:
            SourceError: the source was read already, or a camera stopped sending.
            DecodeError: nothing in the source decodes.
        """
        self._start()
        for clip in self._windows():
            yield clip
            clip.release()
        self._check_any()

    def gops(self) -> Iterator[Gop]:
        """Yield the GOPs in order, without clips; asking for the next one releases the one before.

        >>> import edgepkd.video
        >>> with edgepkd.video.open("clip.mp4") as clips:
        ...     moved = {gop.times_s[0]: abs(gop.motion(11)).mean() for gop in clips.gops()}
        >>> print(f"{max(moved, key=moved.get)} s: {max(moved.values()) / 4:.1f} px")
        6.0 s: 18.6 px

        Raises:
            SourceError: the source was read already, or a camera stopped sending.
            DecodeError: nothing in the source decodes.
        """
        self._start()
        for gop in self._stream.gops():
            self._note_first(gop)
            yield gop
            gop.release()
        self._check_any()

    def places(self, gop_lengths: Sequence[int], modality: Modality) -> tuple[Place, ...]:
        """Return where `modality` looks in a clip of this layout under the test rule."""
        return sample_test(
            gop_lengths, modality=modality, num_segments=self.input_spec(modality).num_segments,
            rule=self._clip_spec.sampling, position=self._clip_spec.position)

    def input_spec(self, modality: Modality) -> InputSpec:
        """Return the settings of one modality.

        Raises:
            ConfigError: the reader was not given it.
        """
        check(modality in self._inputs, "modality", got=modality,
              allowed=(", ".join(self._inputs) or "none") + " (the inputs of this reader)")
        return self._inputs[modality]

    @contextmanager
    def metered(self, into: DecodeCounters) -> Iterator[None]:
        """Add to `into` what is counted inside the block."""
        before = self.counters.copy()
        try:
            yield
        finally:
            _add(into, self.counters - before)

    def close(self) -> None:
        """Close the source; a second call does nothing."""
        self._video.close()

    def _start(self) -> None:
        if self._started:
            raise SourceError(f"{self.info.source} was read already; it is read once.",
                              hint="Open it again.")
        self._started = True

    def _note_first(self, gop: Gop) -> None:
        if not self._has_gops:
            self.first_time_s, self._has_gops = gop.times_s[0], True

    def _check_any(self) -> None:
        if not self._has_gops:
            raise DecodeError(
                f"{self.info.source} opens, but holds no frame that decodes "
                f"({self.counters.packets_read} packets read).",
                hint="The file is damaged; record or copy it again.")

    def _windows(self) -> Iterator[Clip]:
        gops = self._stream.gops()
        window: list[Gop] = []
        index, skip, num_new, counters = 0, 0.0, 0, DecodeCounters()
        while True:
            with self.metered(counters):
                gop = next(gops, None)
            if gop is None:
                break
            self._note_first(gop)
            if gop.begins_anew:
                # What lies on both sides of a break is not one clip.
                if num_new:
                    yield self._clip(index, window, counters, len(window))
                    index, counters = index + 1, DecodeCounters()
                window, skip, num_new = [], 0.0, 0
            if skip > gop.num_frames / 2:
                skip -= gop.num_frames
                gop.release()
                continue
            skip = 0.0
            window.append(gop)
            num_new += 1
            if sum(g.num_frames for g in window) < self._clip_spec.clip_frames:
                continue
            num_dropped, skip = self._stride(window)
            yield self._clip(index, window, counters, num_dropped)
            window, counters = window[num_dropped:], DecodeCounters()
            index, num_new = index + 1, 0
        if num_new:
            yield self._clip(index, window, counters, len(window))

    def _stride(self, window: Sequence[Gop]) -> tuple[int, float]:
        """Return how many GOPs leave the window, and the frames to skip after it.

        The next clip starts at the GOP nearest to `stride_frames`, at least one further; clips
        that are not meant to overlap never do.
        """
        clip, stride = self._clip_spec.clip_frames, self._clip_spec.stride_frames
        passed, count = 0, 0
        while count < len(window) and (
            stride >= clip or count == 0 or passed + window[count].num_frames / 2 < stride
        ):
            passed += window[count].num_frames
            count += 1
        return count, float(max(0, stride - passed))

    def _clip(
        self, index: int, window: Sequence[Gop], counters: DecodeCounters, num_released: int
    ) -> Clip:
        clip = Clip(index, window, reader=self, counters=counters, num_released=num_released)
        if self._inputs and self._clip_spec.stride_frames >= self._clip_spec.clip_frames:
            self._plan(clip)
        return clip

    def _plan(self, clip: Clip) -> None:
        """Tell each GOP which pictures will be wanted, so that nothing decodes twice."""
        wanted: list[set[int]] = [set() for _ in clip.gops]
        for modality in self._inputs:
            if modality != "mv":
                for place in clip.places(modality):
                    wanted[place.gop].add(place.t)
        for gop, positions in zip(clip.gops, wanted, strict=True):
            gop.plan(positions)

    @staticmethod
    def _check(
        clip: ClipSpec, inputs: Mapping[Modality, InputSpec] | None, decode: DecodeSpec | None,
        route: Route,
    ) -> None:
        check(inputs is None or bool(inputs), "inputs", got="empty",
              allowed="an InputSpec for each modality, or None")
        check(route in ("auto", "native", "normalize"), "route", got=route,
              allowed="auto, native, normalize")
        if decode is not None:
            check(decode.gop_frames == clip.gop_frames, "decode.gop_frames",
                  got=decode.gop_frames, allowed=f"{clip.gop_frames}, the same as clip.gop_frames")


def _choice(info: StreamInfo, route: Route, max_short_side_px: int) -> RouteChoice:
    choice = choose_route(info, max_short_side_px=max_short_side_px)
    if route == "native" and not choice.native_possible:
        raise ConfigError(f"route is 'native', but {info.source} cannot take it: {choice.reason}; "
                          "allowed: auto, normalize.", hint="Use --route auto.")
    if route in ("auto", choice.route):
        return choice
    return RouteChoice("native" if route == "native" else "normalize", f"asked for ({route})",
                   choice.native_possible)


def _add(into: DecodeCounters, difference: DecodeCounters) -> None:
    for item in fields(into):
        setattr(into, item.name, getattr(into, item.name) + getattr(difference, item.name))
