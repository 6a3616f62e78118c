"""What must go together for engines: JetPack, TensorRT, cuda-python, torch and Torch-TensorRT."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgepkd.libraries.versions import Library, library_version

ENGINE_LIBRARIES: tuple[Library, ...] = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class JetPack:
    """A JetPack and what it brings; from NVIDIA's release notes."""

    name: str
    python: str
    tensorrt: str
    """Versions that it runs, such as '10.3'."""
    cuda_python: str
    """Requirement of the cuda-python that goes with its CUDA."""


JETPACKS = {
    36: JetPack("JetPack 6", "3.10", "10.3", "cuda-python>=12.6,<13"),
    38: JetPack("JetPack 7.0 or 7.1", "3.12", "10.13", "cuda-python>=13,<14"),
    39: JetPack("JetPack 7.2", "3.12", "10.13 and newer, 11.4.1 from 7.2.2 on",
                "cuda-python>=13,<14"),
}
"""Release of Jetson Linux, the number after R -> JetPack."""


def jetpack(jetson: str | None) -> JetPack | None:
    """The JetPack of a board that `hardware.jetson` describes; None if it is none we know."""
    release = re.search(r"\bR(\d+)\b", jetson or "")
    return JETPACKS.get(int(release[1])) if release else None


def engine_versions() -> dict[Library, str | None]:
    """Libraries for engines that are installed -> version, None if they cannot be imported."""
    return {library: library_version(library) for library in ENGINE_LIBRARIES
            if importlib.util.find_spec(library) is not None}


@dataclass(frozen=True)
class ForeignTensorrt:
    """A TensorRT of the package index, where JetPack's would be the right one."""

    place: Path
    """The folder of packages that it is in."""
    distributions: tuple[str, ...]
    """What pip calls its parts."""
    hidden: Path | None
    """The system's folder of packages whose tensorrt is not seen because of it."""


def foreign_tensorrt(path: Sequence[str]) -> ForeignTensorrt | None:
    """The TensorRT that comes first on `path` (sys.path), if it is not the system's own."""
    places = {Path(entry): _tensorrt_distributions(entry) for entry in path if entry}
    places = {place: names for place, names in places.items()
              if names or (place / "tensorrt" / "__init__.py").is_file()}
    # Debian's Python keeps what the system brings in dist-packages; pip has site-packages or,
    # as root, a dist-packages that comes earlier.
    first, *others = places or [None]
    hidden = next((place for place in others if place and place.name == "dist-packages"), None)
    if first is None or (first.name == "dist-packages" and hidden is None):
        return None
    return ForeignTensorrt(first, places[first], hidden)


def _tensorrt_distributions(entry: str) -> tuple[str, ...]:
    """Distributions in a folder that are TensorRT or parts of it, but not TensorRT-RTX."""
    found = {re.sub(r"[-_.]+", "-", name).lower() for each in metadata.distributions(path=[entry])
             if (name := each.metadata["Name"])}
    parts = re.compile(r"tensorrt(-cu\d+)?(-(libs|bindings|lean|dispatch))*")
    return tuple(sorted(filter(parts.fullmatch, found)))


def engine_backends(
    versions: Mapping[Library, str | None], *, has_gpu: bool, has_cuda_python: bool
) -> dict[str, str]:
    """Each library for engines -> what it can do here."""
    backends: dict[str, str] = {}
    for library in ENGINE_LIBRARIES:
        version = versions.get(library)
        if version is None:
            backends[library] = ("does not work: installed, but cannot be imported"
                                 if library in versions else "not installed")
            continue
        can_build = has_gpu or library == "tensorrt_rtx"
        builds = "builds engines" if can_build else "builds no engines"
        if not has_gpu:
            runs = "runs none: no GPU is seen"
        else:
            runs = "runs them" if has_cuda_python else "runs none without cuda-python"
        backends[library] = f"{version}; {builds}, {runs}"
    return backends


def torch_tensorrt_note(torch: str | None, torch_tensorrt: str | None) -> str:
    """Whether the Torch-TensorRT that is here fits the torch that is here; which would."""
    if torch_tensorrt is None:
        fitting = f" (here {torch}: torch-tensorrt=={_release(torch)}.*)" if torch else ""
        return f"not installed; each release 2.N takes torch 2.N only{fitting}"
    if torch is None or _release(torch) != _release(torch_tensorrt):
        return (f"does not work: {torch_tensorrt} takes torch {_release(torch_tensorrt)}.* only,"
                f" here is {torch or 'none'}")
    return f"{torch_tensorrt}, with torch {torch}; brings a TensorRT of its own"


def engine_steps(
    packages: Mapping[str, str | None], versions: Mapping[Library, str | None], *,
    has_gpu: bool, jetson: str | None, python: str, foreign: ForeignTensorrt | None = None,
) -> tuple[str, ...]:
    """What to do next to run engines on this machine's GPU; nothing where there is none."""
    if not has_gpu:
        return ()
    board = jetpack(jetson)
    if jetson is not None and board is None:
        return ("This Jetson's JetPack is not one that edgepkd makes engines on; allowed: "
                f"{', '.join(pack.name for pack in JETPACKS.values())}. The CPU works.",)
    steps = []
    if board is not None and _release(python) != board.python:
        steps.append(f"{board.name} has its TensorRT for Python {board.python}, this is {python}:"
                     f" python{board.python} -m venv --system-site-packages edge")
    if foreign is not None:
        steps.append(_remove(foreign))
    elif not any(versions.values()):
        steps.append(
            f"{board.name} brings TensorRT {board.tensorrt}: sudo apt-get install"
            " python3-libnvinfer, and a virtual environment with --system-site-packages"
            if board is not None else
            "A GPU is here. To run engines on it: pip install 'edgepkd[tensorrt]' (or, on RTX"
            " cards, 'edgepkd[tensorrt-rtx]')")
    elif board is not None and (version := versions.get("tensorrt")) and not _on(version, board):
        steps.append(f"{board.name} runs TensorRT {board.tensorrt}; here is {version}, which did"
                     " not come with it: pip uninstall tensorrt")
    if packages.get("cuda-python") is None:
        wanted = board.cuda_python if board else "edgepkd[cuda]"
        steps.append(f"Engines run through cuda-python: pip install '{wanted}'")
    return tuple(steps) or (
        "To make engines for the GPU: edgepkd export NAME.edgepkd --target"
        f" {_a_target(versions, jetson)}",)


def _remove(foreign: ForeignTensorrt) -> str:
    names = " ".join(foreign.distributions) or "tensorrt"
    why = (f"hides JetPack's in {foreign.hidden}" if foreign.hidden else
           "is not JetPack's, which is the one that works here")
    return (f"The tensorrt in {foreign.place} {why}: python -m pip uninstall {names}, then"
            " `edgepkd doctor`")


def _on(version: str, board: JetPack) -> bool:
    """Whether a TensorRT of `version` runs on `board`."""
    major, minor = map(int, _release(version).split("."))
    if board.python == "3.10":
        return (major, minor) == (10, 3)
    return (major, minor) >= (10, 13)


def _a_target(versions: Mapping[Library, str | None], jetson: str | None) -> str:
    if jetson is not None:
        boards = {"Orin Nano": "jetson-orin-nano", "Orin NX": "jetson-orin-nx",
                  "AGX Orin": "jetson-agx-orin", "Thor": "jetson-thor"}
        return next((target for board, target in boards.items() if board in jetson), "tensorrt")
    return "tensorrt" if versions.get("tensorrt") else "tensorrt-rtx"


def _release(version: str) -> str:
    """'2.13' of '2.13.0+cu130'."""
    found = re.match(r"\d+\.\d+", version)
    return found[0] if found else version
