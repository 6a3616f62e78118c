"""Targets: what an engine is built for, read from the recipes `export/*.toml` and checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgepkd.bundle.engines import AskedPrecision, Precision, is_target_name
from edgepkd.config import check, from_mapping
from edgepkd.errors import ConfigError
from edgepkd.libraries.versions import Library
from edgepkd.machine import hardware
from edgepkd.recipes import load_recipe, recipe_names

BuilderName = Literal["tensorrt", "tensorrt_rtx", "openvino", "onnx"]

# The CPU computes in FP32 where it does not compute in INT8: an FP16 plan would be the same.
PRECISIONS: dict[BuilderName, tuple[Precision, ...]] = {
    "tensorrt": ("fp32", "fp16", "int8"), "tensorrt_rtx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "int8"), "onnx": (),
}
_VERSION = re.compile(r"\d+(\.\d+)*")
_RANGE = re.compile(r">=\d+(\.\d+)*(,<\d+(\.\d+)*)?")


@dataclass(frozen=True)
class Target:
    """One recipe of `export/`. Version ranges read '>=10.3,<10.4'; any of several may hold."""

    purpose: str
    name: str
    builder: BuilderName = "onnx"
    precision: AskedPrecision = "auto"
    """Unless another one is asked for."""
    weights: Literal["fp32", "fp16"] = "fp32"
    """How an ONNX bundle stores float weights."""
    versions: tuple[str, ...] = ()
    """Ranges of library versions; none: any."""
    jetson: str | None = None
    """What the device tree calls the board, such as 'Orin Nano'; None: no board in particular."""
    compute_capability: str | None = None
    """Of the only GPU that the engines are for; None: the one of the building machine."""
    compute_capabilities: tuple[str, ...] = ()
    """TensorRT-RTX: GPUs to build for ahead of time; none: all from 8.0 on."""
    memory_gb: float | None = None
    """Unified memory of the smallest board of this kind."""
    workspace_share: float = 0.25
    """Of the memory that the builder may use as workspace."""
    int8: bool = True
    weight_bits: Literal[7, 8] | None = None
    """Most bits of quantised weights, and what `quantize` gives them for this target. 7: CPUs
    without a dot product for bytes (VNNI) overflow silently on 8. None: any, and `quantize` keeps
    to its recipe."""
    version_compatible: bool = False
    hardware_compatible: bool = False
    portable: bool = False
    """Whether plans can be made version- or hardware-compatible at all."""
    dla_cores: int = 0
    dla_versions: tuple[str, ...] = ()
    """Ranges of library versions that know the DLA of this board."""
    optimization_level: int = 3
    """Of the builder, 0 (quick) to 5 (thorough)."""
    agreement_floor: float = 0.95
    """Share of clips to which the deployed cascade must give the answer of its twin in torch; the
    export fails where Wilson's interval lies below it. Rounding decides close calls: 97.5 to 100 %
    of 240 clips were seen along a cascade whose logits differed by up to a tenth."""
    float_agreement_floor: float = 0.8
    """The same against the FP32 networks that were quantised; 90 to 98 % were seen there."""

    def __post_init__(self) -> None:
        check(self.builder in get_args(BuilderName), "builder", got=self.builder,
              allowed=", ".join(get_args(BuilderName)))
        check(self.precision in get_args(AskedPrecision), "precision", got=self.precision,
              allowed=", ".join(get_args(AskedPrecision)))
        check(self.weight_bits in (7, 8, None), "weight_bits", got=self.weight_bits, allowed="7, 8")
        check(self.weights in ("fp32", "fp16"), "weights", got=self.weights, allowed="fp32, fp16")
        for setting in ("versions", "dla_versions"):
            check(all(_RANGE.fullmatch(r) for r in getattr(self, setting)), setting,
                  got=getattr(self, setting), allowed="ranges such as '>=10.3,<10.4'")
        for version in (self.compute_capability, *self.compute_capabilities):
            check(version is None or bool(re.fullmatch(r"\d+\.\d", version)),
                  "compute_capability", got=version, allowed="such as '8.7'")
        check(self.memory_gb is None or self.memory_gb > 0, "memory_gb", got=self.memory_gb,
              allowed="above 0")
        check(0 < self.workspace_share <= 0.9, "workspace_share", got=self.workspace_share,
              allowed="above 0, up to 0.9")
        check(0 <= self.optimization_level <= 5, "optimization_level",
              got=self.optimization_level, allowed="0..5")
        for setting in ("agreement_floor", "float_agreement_floor"):
            check(0 <= getattr(self, setting) <= 1, setting, got=getattr(self, setting),
                  allowed="0..1")
        check(not self.dla_versions or self.dla_cores > 0, "dla_cores", got=self.dla_cores,
              allowed="1 or more where dla_versions are given")
        check(self.portable or not (self.version_compatible or self.hardware_compatible),
              "portable", got=False, allowed="true where compatible plans are the default")

    @property
    def library(self) -> Library:
        """The package that builds and runs the engines.

        Raises:
            ConfigError: the target has none: it stands for the ONNX files of the bundle.
        """
        if self.builder == "onnx":
            raise ConfigError(
                f"target {self.name!r} is the ONNX form itself, which a bundle always holds;"
                f" engines are for: {', '.join(engine_target_names())}.",
                hint="A run folder becomes a bundle: edgepkd export RUN --target onnx")
        return self.builder

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What can be built."""
        return tuple(p for p in PRECISIONS[self.builder] if p != "int8" or self.int8)

    @property
    def float_precision(self) -> Precision:
        """Of segments that are not quantised, and of the rival of INT8 in `auto`."""
        return "fp16" if "fp16" in self.precisions else "fp32"

    def accepts(self, version: str) -> bool:
        """Whether the recipe holds for this version of the library."""
        return not self.versions or within(version, self.versions)

    def is_this_board(self) -> bool:
        """Whether this machine is what the target names; any machine, where it names no board."""
        if self.jetson is None:
            return True
        board = (hardware.jetson() or "").lower()
        # An AGX Orin and an Orin NX both are an Orin: the words must all be there.
        return bool(board) and all(word in board.replace("-", " ").split()
                                   for word in self.jetson.lower().split())


def load_target(name: str) -> Target:
    """The target of recipe `name`, or of the TOML file that `name` is the path of.

    Raises:
        ConfigError: there is no such recipe (lists those there are), or a key is wrong.
    """
    values = {"name": Path(name).stem if name.endswith(".toml") else name,
              **load_recipe("export", name)}
    target = from_mapping(Target, values, where=f"export recipe {name}")
    check(is_target_name(target.name), "name of the target", got=target.name,
          allowed="letters, digits, '_', '-' and '.', up to 64: it is the name of a folder")
    return target


def engine_target_names() -> tuple[str, ...]:
    """Recipes that engines can be built for."""
    return tuple(n for n in recipe_names("export") if load_target(n).builder != "onnx")


def within(version: str, ranges: Sequence[str]) -> bool:
    """Whether `version` lies in one of `ranges`, such as ('>=10.3,<10.4', '>=11.4.1')."""
    numbers = _numbers(version)
    for text in ranges:
        low, _, high = text.removeprefix(">=").partition(",<")
        if _numbers(low) <= numbers and (not high or numbers < _numbers(high)):
            return True
    return False


def _numbers(version: str) -> tuple[int, ...]:
    found = _VERSION.match(version)
    return tuple(map(int, found[0].split("."))) if found else ()
