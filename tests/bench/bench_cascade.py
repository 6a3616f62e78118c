"""Clips per second, end to end from the file: cascade, static chain, plain RGB network.

    python -m tests.bench.bench_cascade [--json PATH] [--rounds N] [--index CSV] [--form FORM]

Three ways to answer the same labelled test clips, interleaved clip by clip in one process:
  cascade   the bundle's own exit policy; decodes and runs only what it needs
  static    all 12 segments of the same bundle, no early exit
  rgb       the bundle's I-frame network, whole, on 3 decoded RGB frames (every frame is decoded,
            three are converted): what one would write without edgepkd

One thread everywhere. A file is one clip. FORM is what the clips are read as: `source`, the files
as they are; `camera`, the same pictures as H.264 baseline without B-frames; `training`, as MPEG-4
with a GOP of 12. Accuracy is that of these very answers.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from edgepkd.bundle.reading import Bundle
from edgepkd.cascade import Position
from edgepkd.runtime.model import load_bundle, open_session
from edgepkd.runtime.openvino_runner import OpenVinoRunner
from edgepkd.runtime.session import Session
from edgepkd.runtime.settings import ModelConfig
from edgepkd.video import transforms
from edgepkd.video.clips import ClipReader
from tests.bench.report import conditions, write_json

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SUFFIX = {"camera": ".mp4", "training": ".avi"}
NUM_RGB_FRAMES = 3
WHOLE_FILE = 1_000_000


def labelled_clips(index: Path, labels: tuple[str, ...], dataset: str) -> list[tuple[Path, str]]:
    """Path and label of every test clip of `dataset` in `index` with one of `labels`."""
    with index.open(newline="") as rows:
        return [(index.parent / row["path"], row["label"]) for row in csv.DictReader(rows)
                if row["split"] == "test" and row["dataset"] == dataset and row["label"] in labels]


def encoded(source: Path, target: Path, form: str) -> Path:
    """`source` as `form`, at 340x256: what a camera, or the training set, would deliver."""
    # MP4 as a camera's recorder writes it; AVI, like the training form, has no display times.
    codec, options = {
        "camera": ("libx264", {"preset": "veryfast", "profile": "baseline", "refs": "1",
                               "crf": "20"}),
        "training": ("mpeg4", {"qscale": "1", "flags": "+qscale"}),
    }[form]
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        stream.codec_context.max_b_frames = 0
        stream.codec_context.gop_size = 12
        for number, frame in enumerate(reader.decode(video=0)):
            small = frame.reformat(340, 256, "yuv420p")
            small.pts, small.time_base = number, Fraction(1, 25)
            small.pict_type = 0
            writer.mux(stream.encode(small))
        writer.mux(stream.encode(None))
    return target


def cascade_way(session: Session, bundle: Bundle) -> Callable[[Path], tuple[str, Any]]:
    """A way to answer: through `session`, a file as one clip."""
    manifest = bundle.manifest
    clip = replace(manifest.clip, clip_frames=WHOLE_FILE, stride_frames=WHOLE_FILE)

    def answer(path: Path) -> tuple[str, Any]:
        with ClipReader(str(path), clip=clip, inputs=manifest.inputs,
                        decode=manifest.decode) as reader:
            (result,) = session.stream(reader)
        return result.label, result

    return answer


def rgb_way(bundle: Bundle) -> Callable[[Path], tuple[str, Any]]:
    """A way to answer: decode every frame, run the whole I-frame network on three of them."""
    manifest = bundle.manifest
    spec = manifest.inputs["iframe"]
    inputs = dict(manifest.inputs) | {"iframe": replace(spec, num_segments=NUM_RGB_FRAMES)}
    runner = OpenVinoRunner(replace(bundle, manifest=replace(manifest, inputs=inputs)), threads=1)
    crop = transforms.centre_crop(resize_px=spec.resize_px, crop_px=spec.crop_px)

    def answer(path: Path) -> tuple[str, Any]:
        reformatter = VideoReformatter()
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "NONE"
            container.streams.video[0].codec_context.thread_count = 1
            frames = list(container.decode(video=0))
        size = len(frames) / NUM_RGB_FRAMES
        images = []
        for number in range(NUM_RGB_FRAMES):
            frame = reformatter.reformat(frames[int(size * (number + 0.5))], 340, 256, "rgb24",
                                         threads=1)
            image = transforms.ValueImage("iframe", frame.to_ndarray(), (340.0, 256.0))
            images.append(transforms.to_tensor(image, crop, crop_px=spec.crop_px))
        x: Any = np.stack(images)
        for exit_number in range(1, 5):
            x, logits = runner.run(Position("iframe", exit_number), x)
        return manifest.labels[int(logits.mean(axis=0).argmax())], None

    return answer


def measure(
    ways: dict[str, Callable[[Path], tuple[str, Any]]], clips: list[tuple[Path, str]], rounds: int
) -> dict[str, dict[str, Any]]:
    """Time every way on every clip, interleaved; the first, untimed pass compiles and loads."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    right = dict.fromkeys(ways, 0)
    details: dict[str, list[Any]] = {name: [] for name in ways}
    for name, answer in ways.items():
        for path, label in clips:
            got, detail = answer(path)
            right[name] += got == label
            if detail is not None:
                details[name].append(detail)
    for _ in range(rounds):
        for path, _label in clips:
            for name, answer in ways.items():
                start = time.perf_counter()
                answer(path)
                seconds[name].append(time.perf_counter() - start)
    return {name: summary(seconds[name], right[name], len(clips), details[name]) for name in ways}


def summary(seconds: list[float], right: int, count: int, details: list[Any]) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {
        "clips_per_s": round(len(seconds) / sum(seconds), 2),
        "ms_p50": round(statistics.median(seconds) * 1e3, 2),
        "ms_p90": round(statistics.quantiles(seconds, n=10)[-1] * 1e3, 2),
        "accuracy": round(right / count, 4), "num_clips": count,
    }
    if details:
        mean = {part: statistics.fmean(getattr(d, f"{part}_ms") for d in details)
                for part in ("read", "decode", "nets", "decision")}
        row |= {"ms_mean": {part: round(ms, 2) for part, ms in mean.items()},
                "mean_exit": round(statistics.fmean(d.exit_number for d in details), 2),
                "gmac": round(statistics.fmean(d.gmac for d in details), 3),
                "packets_decoded": sum(d.decode.packets_decoded for d in details),
                "packets_skipped": sum(d.decode.packets_skipped for d in details)}
    return row


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--dataset")
    parser.add_argument("--form", choices=("source", "camera", "training"), nargs="+",
                        default=["source", "camera", "training"])
    args = parser.parse_args()
    bundle = load_bundle(args.model)
    recipe = bundle.manifest.provenance["recipe"]
    index = args.index or SHARED / recipe["index"]
    clips = labelled_clips(index, bundle.manifest.labels, args.dataset or recipe["dataset"])
    config = ModelConfig(threads=1)
    ways = {
        "cascade": cascade_way(open_session(bundle, config), bundle),
        "static": cascade_way(open_session(bundle, replace(config, static=True)), bundle),
        "rgb": rgb_way(bundle),
    }
    document: dict[str, Any] = {"conditions": conditions(
        bundle=bundle.manifest.name, clips=index.name, threads=1, rounds=args.rounds)}
    print(json.dumps(document["conditions"]))
    for form in args.form:
        with tempfile.TemporaryDirectory() as folder:
            used = clips if form == "source" else [
                (encoded(path, Path(folder) / f"{number}{SUFFIX[form]}", form), label)
                for number, (path, label) in enumerate(clips)]
            rows = measure(ways, used, args.rounds)
        document[form] = rows
        for name, row in rows.items():
            print(f"{form:9} {name:8}", json.dumps(row))
        rate = {name: row["clips_per_s"] for name, row in rows.items()}
        print(f"{form:9} cascade is {rate['cascade'] / rate['static']:.2f}x static, "
              f"{rate['cascade'] / rate['rgb']:.2f}x rgb")
    if args.json:
        write_json(args.json, document)


if __name__ == "__main__":
    main()
