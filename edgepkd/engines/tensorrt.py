"""Segments into TensorRT plans: one code for `tensorrt` 10 and 11 and for `tensorrt_rtx`.

Networks are strongly typed: the types in the graph are the precision, and there is no flag for it.
What a version lacks is found by looking at the module, not by its number.
"""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

from edgepkd.bundle.engines import Precision
from edgepkd.engines.builder import Plan, Settings, Shapes, typed_form
from edgepkd.engines.tensorrt_clock import median_ms
from edgepkd.errors import ConfigError, MissingExtraError, ModelError
from edgepkd.libraries.tensorrt import ErrorLog, TensorRt, open_library
from edgepkd.machine import hardware


def open_tensorrt() -> TensorRtBuilder:
    """A builder of the full TensorRT.

    Raises:
        MissingExtraError: it is not installed, or a shared library of it is missing.
    """
    return _opened("tensorrt")


def open_tensorrt_rtx() -> TensorRtBuilder:
    """A builder of TensorRT-RTX, which needs no GPU.

    Raises:
        MissingExtraError: it is not installed.
    """
    return _opened("tensorrt_rtx")


def _opened(library: TensorRt) -> TensorRtBuilder:
    return TensorRtBuilder(open_library(library, purpose=f"building engines with {library}",
                                        on_jetson=hardware.jetson() is not None))


class TensorRtBuilder:
    """Compiles segments with one of the TensorRT modules."""

    def __init__(self, trt: ModuleType) -> None:
        """Make a builder over module `trt`."""
        self._trt: Any = trt
        self._log = ErrorLog(trt)
        self._builder = self._trt.Builder(self._log.logger)
        self._ahead_of_time = hasattr(trt, "ComputeCapability")
        self.version = str(trt.__version__)

    def build(self, content: bytes, *, precision: Precision, shapes: Shapes, settings: Settings,
              timing_cache: bytes = b"") -> Plan:
        """As the contract says."""
        self._log.clear()
        # Before 11 the DLA takes only networks whose types are chosen by the builder.
        weak = settings.dla is not None and hasattr(self._trt.BuilderFlag, "FP16")
        network, parser = self._parse(
            typed_form(content, "fp32" if weak else precision), strong=not weak)
        config = self._builder.create_builder_config()
        self._set_profile(config, shapes)
        self._set_flags(config, settings)
        notes = self._use_timing_cache(config, timing_cache, required=settings.require_timing_cache)
        if settings.dla is not None:
            notes += self._use_dla(config, network, settings.dla, weak=weak)
        serialized = self._builder.build_serialized_network(network, config)
        if serialized is None:
            raise ModelError(f"TensorRT {self.version} cannot build it: {self._log.take()}",
                             hint="More workspace may help: --workspace-mb; or another precision.")
        del parser  # it owns the weights until here
        return Plan(bytes(serialized), self._timing_cache(config), notes)

    def measure(self, plan: bytes, *, shapes: Shapes) -> float | str:
        """Median of one call, of GPU and launch together."""
        if not hardware.has_gpu():
            return "no NVIDIA GPU here"
        try:
            return median_ms(self._trt, self._log.logger, plan, shapes.batch(shapes.opt_frames))
        except MissingExtraError:
            return "cuda-python is not installed"
        except ModelError as error:
            return error.message.rstrip(".")

    # ---- the network

    def _parse(self, content: bytes, *, strong: bool) -> tuple[Any, Any]:
        flags = getattr(self._trt, "NetworkDefinitionCreationFlag", None)
        typed = getattr(flags, "STRONGLY_TYPED", None)  # in 11 there is nothing else
        network = self._builder.create_network(
            1 << int(typed) if strong and typed is not None else 0)
        parser = self._trt.OnnxParser(network, self._log.logger)
        if not parser.parse(content):
            reasons = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
            raise ModelError(
                f"TensorRT {self.version} cannot read the segment: "
                f"{'; '.join(reasons) or self._log.take()}",
                hint="Export the run again with this version of edgepkd.")
        return network, parser

    def _set_profile(self, config: Any, shapes: Shapes) -> None:
        profile = self._builder.create_optimization_profile()
        profile.set_shape("x", *(shapes.batch(n) for n in (
            shapes.min_frames, shapes.opt_frames, shapes.max_frames)))
        config.add_optimization_profile(profile)

    # ---- settings

    def _set_flags(self, config: Any, settings: Settings) -> None:
        trt = self._trt
        config.builder_optimization_level = settings.optimization_level
        if settings.workspace_mb is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE,
                                         settings.workspace_mb * (1 << 20))
        if self._ahead_of_time and (settings.version_compatible or settings.hardware_compatible):
            raise ConfigError(
                "version_compatible or hardware_compatible is set; allowed: neither with"
                " TensorRT-RTX, whose plans run on every GPU from compute capability 8.0 on.")
        if settings.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if settings.hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if settings.compute_capabilities:
            self._set_compute_capabilities(config, settings.compute_capabilities)

    def _set_compute_capabilities(self, config: Any, wanted: tuple[str, ...]) -> None:
        known = getattr(self._trt, "ComputeCapability", None)
        names = [f"SM{capability.replace('.', '')}" for capability in wanted]
        unknown = [name for name in names if not hasattr(known, name)]
        if unknown:
            raise ConfigError(
                f"compute_capabilities has {', '.join(unknown)}; allowed: "
                f"{', '.join(n for n in dir(known) if n.startswith('SM')) or 'none'}"
                f" with TensorRT {self.version}.")
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            config.set_compute_capability(getattr(known, name), index)

    def _use_dla(self, config: Any, network: Any, core: int, *, weak: bool) -> tuple[str, ...]:
        """All that the DLA can do goes there; a note names what cannot."""
        trt = self._trt
        if core >= self._builder.num_DLA_cores:
            raise ConfigError(f"dla is {core}; allowed: cores below"
                              f" {self._builder.num_DLA_cores} on this machine.",
                              hint="Leave --dla out to build for the GPU.")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        if weak:
            config.set_flag(trt.BuilderFlag.FP16)
        layers = [network.get_layer(i) for i in range(network.num_layers)]
        left = Counter(str(layer.type).rsplit(".", 1)[-1].lower() for layer in layers
                       if not config.can_run_on_DLA(layer))
        if sum(left.values()) == len(layers):
            raise ModelError(f"no layer of the segment can run on the DLA of TensorRT"
                             f" {self.version}.", hint="Leave --dla out to build for the GPU.")
        return (f"on the GPU, not on the DLA: {', '.join(f'{n} {k}' for k, n in left.items())}",
                ) if left else ()

    # ---- timing cache

    def _use_timing_cache(self, config: Any, known: bytes, *, required: bool) -> tuple[str, ...]:
        if self._ahead_of_time:
            # There it changes nothing, and asks for a GPU.
            if required:
                raise ConfigError("require_timing_cache is set; allowed: only where there is a"
                                  " timing cache, which TensorRT-RTX has not.")
            return ()
        notes: tuple[str, ...] = ()
        if not config.set_timing_cache(config.create_timing_cache(known), False):
            notes = ("the timing cache is of another GPU or version: started a new one",)
            config.set_timing_cache(config.create_timing_cache(b""), False)
        if required:
            flag = getattr(self._trt.BuilderFlag, "ERROR_ON_TIMING_CACHE_MISS", None)
            if flag is None:
                raise ConfigError(f"require_timing_cache is set; allowed: not with TensorRT"
                                  f" {self.version}, which cannot fail on a miss.")
            config.set_flag(flag)
        return notes

    def _timing_cache(self, config: Any) -> bytes | None:
        cache = None if self._ahead_of_time else config.get_timing_cache()
        return bytes(cache.serialize()) if cache is not None else None


def _parser_error(error: Any) -> str:
    """Node, operator and reason, in the parser's own words."""
    name, operator = (str(getattr(error, part, str)()) for part in ("node_name", "node_operator"))
    where = f"node {name or error.node()} ({operator}): " if name or operator else ""
    return f"{where}{error.desc().strip()}"
