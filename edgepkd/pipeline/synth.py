"""The verb `data synth`: a small procedural action set, for smoke tests."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgepkd.config import check
from edgepkd.datasets import synth as moving
from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.index import Sample
from edgepkd.datasets.prepare_clip import ClipResult
from edgepkd.datasets.prepared import INDEX, VIDEOS, PreparedClip, Progress, write_failures
from edgepkd.datasets.splits import Shares, assign_splits, check_splits
from edgepkd.datasets.training_form import SUFFIX, training_form
from edgepkd.files import write_atomically
from edgepkd.outputs import check_folder
from edgepkd.pipeline.data import ClipPrepared, DataEvent, DataStarted, finish, settings_of


@dataclass(frozen=True)
class SynthConfig:
    """Settings of `synth`."""

    folder: Path
    num_classes: int = 4
    num_clips: int = 48
    clip_frames: int = 36
    seed: int = 0
    shares: Shares = field(default_factory=Shares)

    def __post_init__(self) -> None:
        most = len(moving.MOTIONS)
        check(2 <= self.num_classes <= most, "classes", got=self.num_classes, allowed=f"2..{most}")
        check(self.num_clips >= 4 * self.num_classes, "clips", got=self.num_clips,
              allowed=f"{4 * self.num_classes} or more (4 scenes of {self.num_classes} classes)")
        check(self.clip_frames >= 2, "clip_frames", got=self.clip_frames, allowed="2 or more")
        check(self.seed >= 0, "seed", got=self.seed, allowed="0 or more")


def synth(config: SynthConfig) -> Generator[DataEvent, None, None]:
    """Make a small procedural action set (`datasets.synth`); the last event is a DataSummary.

    Clips are dealt to scenes in turn, so each scene (the group) shows each class once.

    Raises:
        DataError: the folder holds something else.
        StorageError: it cannot be written, or the disk is full.
    """
    begin = time.perf_counter()
    check_folder("DST", config.folder)
    shares = replace(config.shares, always=True)  # to try every verb on, from few clips
    samples = assign_splits(_synth_samples(config), shares=shares)
    check_splits(samples)
    yield DataStarted("synth", len(samples), config.num_classes, ())
    clips = []
    with Progress(config.folder) as progress:
        (config.folder / INDEX).unlink(missing_ok=True)
        scenes = {group: moving.make_scene(number, seed=config.seed)
                  for number, group in enumerate(dict.fromkeys(s.group for s in samples))}
        for number, sample in enumerate(samples, start=1):
            clip, result = _make_synth_clip(config, sample, scenes[sample.group])
            progress.add(result)
            clips.append(clip)
            yield ClipPrepared(clip.path, clip.source, "done", "", number)
        write_failures(config.folder, ())
        yield finish(config.folder, clips, progress, settings=settings_of(config), layout="synth",
                      failures=(), notes=(), num_kept=0, wall_s=time.perf_counter() - begin)


def _synth_samples(config: SynthConfig) -> tuple[Sample, ...]:
    labels = moving.MOTIONS[: config.num_classes]
    places = [(label, f"scene{scene:02d}")
              for scene in range(-(-config.num_clips // len(labels))) for label in labels]
    return tuple(Sample(Path(VIDEOS, label, f"{group}{SUFFIX}"), label, group, "")
                 for label, group in places[: config.num_clips])


def _make_synth_clip(
    config: SynthConfig, sample: Sample, scene: moving.Scene
) -> tuple[PreparedClip, ClipResult]:
    made = moving.make_clip(sample.label, scene, num_frames=config.clip_frames)
    path = config.folder / sample.path
    write_atomically(path, made.content)
    source = f"synth:{sample.label}/{sample.group}/seed{config.seed}"
    result = ClipResult(sample.path.as_posix(), "done", form=training_form(),
                        sha256=sha256_of(path), frames=made.num_frames)
    return PreparedClip(result.path, sample.label, sample.group, sample.split, result.sha256,
                        result.frames, result.form, source, "", 0), result
