"""Clips of a training set as uint8 arrays, decoded once and kept on disk.

Every clip is normalised to the training form first (340x256, MPEG-4, GOP 12, no B-frames), also
those that could be read natively: a network must not see which encoder made a clip. Clips that
`edgepkd data` has brought to that form already are read as they are. What is kept
are the very value images of `edgepkd.video`, at full size, so that training, calibration and test
crops come from the code that runs on the device.

The name of an entry is a hash of the file's content and of the settings. Writers do not disturb
each other: an entry is written to a temporary folder and renamed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepkd import plain_json
from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Modality, Route
from edgepkd.datasets.hashes import sha256_of
from edgepkd.datasets.index import Sample
from edgepkd.datasets.pools import Crash, LocalPool
from edgepkd.datasets.training_form import training_form
from edgepkd.errors import DataError, SourceError
from edgepkd.files import new_folder
from edgepkd.training.augment import Light, relit
from edgepkd.training.recipe import TrainRecipe
from edgepkd.video import transforms
from edgepkd.video.clips import Clip, ClipReader
from edgepkd.video.sampling import Place
from edgepkd.video.transforms import Geometry, Uint8, ValueImage

VERSION = 1
"""Raise it when what `edgepkd.video` makes changes: old entries are then not found any more."""
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
        """Name of the entry of the file with this content, prepared in this form (or in none)."""
        values = {"version": VERSION, **asdict(self), **({"form": form} if form else {})}
        settings = json.dumps(values, sort_keys=True, default=str)
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
    entry = folder / spec.key(sample.sha256 or sha256_of(sample.path), sample.form)
    if not entry.is_dir():
        # Re-encoded once by `edgepkd data`; a second time would only lose quality.
        is_prepared = sample.form == training_form(spec.clip.gop_frames)
        _write_entry(entry, _decode(sample.path, spec, "native" if is_prepared else "normalize"))
    return _read_entry(entry)


def decode_all(
    samples: Sequence[Sample], *, spec: CacheSpec, folder: Path, jobs: int,
    on_clip: Callable[[int], None] | None = None,
) -> tuple[tuple[Sample, ...], dict[Sample, str]]:
    """Decode what is not in `folder` yet, in `jobs` processes.

    Returns the samples that can be read, and the others with the reason. `on_clip` gets the number
    of clips done.

    Raises:
        StorageError: the folder cannot be written. DataError: a process died.
    """
    reasons: dict[Sample, str] = {}
    # starting processes takes longer than a look at what is there
    waiting = [s for s in samples
               if not (s.sha256 and (folder / spec.key(s.sha256, s.form)).is_dir())]
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
            if on_clip:
                on_clip(num_there + done)
    in_order = {s: reasons[s] for s in samples if s in reasons}
    return tuple(s for s in samples if s not in reasons), in_order


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


def _write_entry(entry: Path, content: tuple[dict[str, Any], dict[Modality, Uint8]]) -> None:
    facts, arrays = content
    with new_folder(entry, what="decoded clips") as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
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
