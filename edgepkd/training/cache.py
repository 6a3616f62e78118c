"""Clips of a training set as uint8 arrays, decoded once and kept on disk.

Every clip is normalised to the training form first (340x256, MPEG-4, GOP 12, no B-frames), also
those that could be read natively: a network must not see which encoder made a clip. Clips that
`edgepkd data` has brought to that form already are read as they are. What is kept
are the very value images of `edgepkd.video`, at full size, so that training, calibration and test
crops come from the code that runs on the device.

The name of an entry is a hash of the file's content and of the settings that matter to it, so the
same clip prepared elsewhere is found again. Writers do not disturb each other: an entry is written
to a temporary folder and renamed. How large the folder may get is the business of
`training.entries`. Arrays lie there as they are: packed by zlib they take less than half, but to
unpack a residual takes 0.9 ms of a core, five times as long as making a view of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepkd import plain_json
from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Modality, Route, facts_of
from edgepkd.datasets.hashes import content_of
from edgepkd.datasets.index import Sample
from edgepkd.datasets.pools import Crash, LocalPool
from edgepkd.datasets.training_form import training_form
from edgepkd.errors import DataError, SourceError
from edgepkd.files import new_folder
from edgepkd.training import entries
from edgepkd.training.augment import Light, relit
from edgepkd.training.recipe import TrainRecipe
from edgepkd.video import transforms
from edgepkd.video.clips import Clip, ClipReader
from edgepkd.video.sampling import Place
from edgepkd.video.transforms import Geometry, Uint8, ValueImage

VERSION = 1
"""Raise it when what `edgepkd.video` makes changes: all that came of old entries is then void."""
WHOLE_FILE_FRAMES = 1_000_000


@dataclass(frozen=True)
class CacheSpec:
    """What is kept of a clip."""

    clip: ClipSpec
    inputs: Mapping[Modality, InputSpec]
    decode: DecodeSpec
    train_positions: tuple[int, ...] = (3, 5, 7, 9, 11)
    """GOP positions whose residual is kept for training, besides the places of the test rule."""

    def key(self, content_sha256: str, form: str = "") -> str:
        """Name of what networks see of the file with this content, prepared in this form (or in
        none); what is made of it is named by it."""
        return _hash(content_sha256, form, {"version": VERSION, **_facts(self)})

    def entry(self, content_sha256: str, form: str = "") -> str:
        """Name of its entry: as `key`, but settings that change no byte of it do not count."""
        values = _facts(self)
        for name in ("clip_frames", "stride_frames"):  # a file is one clip
            del values["clip"][name]
        for one in values["inputs"].values():  # whole pictures are kept
            del one["resize_px"], one["crop_px"]
        return _hash(content_sha256, form, {"version": VERSION, **values})

    @property
    def summary(self) -> str:
        """The settings in a line, for people."""
        counts = ", ".join(f"{m} x{one.num_segments}" for m, one in self.inputs.items())
        return (f"{counts}; {self.clip.sampling}, GOP {self.clip.gop_frames}, residuals at "
                f"{' '.join(map(str, self.train_positions))}")


def _facts(spec: CacheSpec) -> dict[str, Any]:
    """Settings that count; how fields reach a network is nothing to what is kept of a clip."""
    inputs = {m: replace(one, stack=False) for m, one in spec.inputs.items()}
    return dict(facts_of(replace(spec, inputs=inputs)))


def _hash(content_sha256: str, form: str, values: dict[str, Any]) -> str:
    settings = json.dumps({**values, **({"form": form} if form else {})}, sort_keys=True,
                          default=str)
    return hashlib.sha256(f"{content_sha256}\n{settings}".encode()).hexdigest()[:32]


def cache_spec(recipe: TrainRecipe) -> CacheSpec:
    """What a recipe needs of each clip."""
    return CacheSpec(clip=recipe.clip, inputs=recipe.inputs, decode=recipe.decode)


@dataclass(frozen=True, eq=False)
class ClipArrays:
    """Value images of one clip, memory-mapped; a whole file is one clip."""

    gop_lengths: tuple[int, ...]
    test_places: Mapping[Modality, tuple[Place, ...]]
    extents: Mapping[Modality, tuple[float, float]]
    places: Mapping[Modality, Mapping[Place, int]]
    """Place -> row of the array."""
    pixels: Mapping[Modality, NDArray[np.uint8]]
    """[places, rows, columns, channels]."""

    def image(self, modality: Modality, place: Place) -> ValueImage:
        """One signal of one frame.

        Raises:
            KeyError: this place was not kept.
        """
        row = self.places[modality][place]
        return ValueImage(modality, self.pixels[modality][row], self.extents[modality])

    def tensor(
        self, modality: Modality, places: Sequence[Place], geometry: Geometry, *, crop_px: int,
        light: Light | None = None,
    ) -> NDArray[np.float32]:
        """Network input of `places`, under `light`: float32 [len(places), C, crop_px, crop_px]."""
        images = [self.image(modality, place) for place in places]
        if light:
            images = relit(images, light)
        return np.stack([
            transforms.to_tensor(image, geometry, crop_px=crop_px) for image in images
        ])


def cached_clip(sample: Sample, *, spec: CacheSpec, folder: Path) -> ClipArrays:
    """Arrays of `sample`, from `folder` if they are there, else decoded and left there.

    Raises:
        SourceError: the clip cannot be decoded.
        DataError: an entry in the cache is damaged.
    """
    entry = folder / spec.entry(content_of(sample), sample.form)
    for _ in range(3):
        if not entry.is_dir():
            # Re-encoded once by `edgepkd data`; a second time would only lose quality.
            is_prepared = sample.form == training_form(spec.clip.gop_frames)
            route: Route = "native" if is_prepared else "normalize"
            _write_entry(entry, _decode(sample.path, spec, route), summary=spec.summary)
        try:
            clip = _read_entry(entry)
        except DataError:
            if entry.is_dir():
                raise
            continue  # another command made room at this moment
        entries.touch(entry)
        return clip
    raise DataError(f"{entry} is removed again and again while it is needed.",
                    hint="Another command fills the same cache: give both a larger --cache-gb.")


def decode_all(
    samples: Sequence[Sample], *, spec: CacheSpec, folder: Path, jobs: int,
    limit_gb: float = entries.DEFAULT_GB, on_clip: Callable[[int], None] | None = None,
) -> tuple[tuple[Sample, ...], dict[Sample, str]]:
    """Decode what is not in `folder` yet, in `jobs` processes.

    Returns the samples that can be read, and the others with the reason. `on_clip` gets the number
    of clips done. Where the folder gets larger than `limit_gb`, what was used longest ago goes, but
    none of these samples.

    Raises:
        StorageError: the folder cannot be written, or the clips do not fit in the limit.
        DataError: a process died.
    """
    reasons: dict[Sample, str] = {}
    names = {sample: _name(sample, spec, reasons) for sample in samples}
    needed = {name for name in names.values() if name}
    room = entries.Room(folder, needed, num=len(needed), limit_gb=limit_gb)
    # starting processes takes longer than a look at what is there
    waiting = [s for s in samples if names[s] and not (folder / names[s]).is_dir()]
    num_there = len(samples) - len(waiting)
    if on_clip and num_there:
        on_clip(num_there)
    if waiting:
        results = LocalPool(jobs).run(partial(_try_clip, spec=spec, folder=folder), waiting)
        for done, (sample, reason) in enumerate(results, start=1):
            if isinstance(reason, Crash):
                raise DataError(f"{sample.path} cannot be decoded: {reason.reason}.",
                                hint="Use fewer --jobs; clips that are done are kept.")
            if reason:
                reasons[sample] = reason
            else:
                room.added(names[sample])
            if on_clip:
                on_clip(num_there + done)
    in_order = {s: reasons[s] for s in samples if s in reasons}
    return tuple(s for s in samples if s not in reasons), in_order


def _name(sample: Sample, spec: CacheSpec, reasons: dict[Sample, str]) -> str:
    """Name of the entry of a clip; empty where its file cannot be read, which goes to `reasons`."""
    try:
        return spec.entry(content_of(sample), sample.form)
    except OSError as error:
        reasons[sample] = f"{sample.path} cannot be read: {error.strerror or error}."
        return ""


def _try_clip(sample: Sample, *, spec: CacheSpec, folder: Path) -> str:
    """Decode one clip; returns why it cannot be, or nothing."""
    try:
        cached_clip(sample, spec=spec, folder=folder)
    except SourceError as error:
        return error.message
    return ""


def _decode(
    path: Path, spec: CacheSpec, route: Route
) -> tuple[dict[str, Any], dict[Modality, Uint8]]:
    whole = ClipSpec(
        clip_frames=WHOLE_FILE_FRAMES, stride_frames=WHOLE_FILE_FRAMES,
        gop_frames=spec.clip.gop_frames, sampling=spec.clip.sampling, position=spec.clip.position,
    )
    with ClipReader(str(path), clip=whole, inputs=spec.inputs, decode=spec.decode,
                    route=route) as reader:
        clip = next(iter(reader))
        facts: dict[str, Any] = {"gop_lengths": clip.gop_lengths, "modalities": {}}
        arrays: dict[Modality, Uint8] = {}
        for modality in spec.inputs:
            places = _places_to_keep(clip, modality, spec)
            images = [clip.image(modality, place) for place in places]
            arrays[modality] = np.stack([image.pixels for image in images])
            facts["modalities"][modality] = {
                "places": places, "test": clip.places(modality), "extent": images[0].extent,
            }
    return facts, arrays


def _places_to_keep(clip: Clip, modality: Modality, spec: CacheSpec) -> list[Place]:
    """All anchors; all motion fields; residuals of the test rule and of `train_positions`."""
    kept = set(clip.places(modality))
    for gop, length in enumerate(clip.gop_lengths):
        if modality == "iframe":
            kept.add(Place(gop, 0))
        elif modality == "mv":
            kept |= {Place(gop, t) for t in range(1, length)}
        else:
            kept |= {Place(gop, t) for t in spec.train_positions if t < length}
    return sorted(kept)


def _write_entry(
    entry: Path, content: tuple[dict[str, Any], dict[Modality, Uint8]], *, summary: str
) -> None:
    facts, arrays = content
    with new_folder(entry, what="decoded clips") as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        facts["settings"] = summary
        (folder / "facts.json").write_text(plain_json.dumps(facts), encoding="utf-8")


def _read_entry(entry: Path) -> ClipArrays:
    try:
        facts = plain_json.loads((entry / "facts.json").read_text(encoding="utf-8"))
        modalities = facts["modalities"]
        pixels = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in modalities}
        return ClipArrays(
            gop_lengths=tuple(facts["gop_lengths"]),
            test_places={m: tuple(Place(*p) for p in f["test"]) for m, f in modalities.items()},
            extents={m: (f["extent"][0], f["extent"][1]) for m, f in modalities.items()},
            places={m: {Place(*p): row for row, p in enumerate(f["places"])}
                    for m, f in modalities.items()},
            pixels=pixels,
        )
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            OverflowError) as error:
        raise DataError(f"cache entry {entry} is damaged: {error}.",
                        hint="Delete it; it will be made again.") from error
