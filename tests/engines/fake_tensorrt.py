"""A `tensorrt` module of 10.3 or of 11 for tests: it has and lacks what they have and lack."""

from __future__ import annotations

from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any


class Severity(IntEnum):
    """Of a log line."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ILogger:
    """What a logger must be."""

    Severity = Severity

    def __init__(self) -> None:
        """As the bindings: has to be called."""


class Config:
    """Takes settings and keeps them."""

    def __init__(self, *, own_device: bytes) -> None:
        """`own_device`: timing caches must start so."""
        self.flags: list[str] = []
        self.pools: dict[str, int] = {}
        self.profiles: list[Any] = []
        self._own, self._cache = own_device, b""

    def set_flag(self, flag: str) -> None:
        """Keep it."""
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        """Keep it."""
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Any) -> None:
        """Keep it."""
        self.profiles.append(profile)

    def create_timing_cache(self, content: bytes) -> bytes:
        """The content is the cache."""
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        """Refuse that of another device."""
        assert not ignore_mismatch
        if cache and not cache.startswith(self._own):
            return False
        self._cache = cache or self._own
        return True

    def get_timing_cache(self) -> Any:
        """With one more entry."""
        return SimpleNamespace(serialize=lambda: self._cache + b"+")

    def can_run_on_DLA(self, layer: Any) -> bool:
        """Convolutions only."""
        return layer.type == "LayerType.CONVOLUTION"


class FakeTensorRt(ModuleType):
    """The module; `configs` and `network_flags` are what it was used with."""

    def __init__(self, version: str, *, dla_cores: int = 0, fails: str | None = None,
                 layers: tuple[str, ...] = ("CONVOLUTION", "CAST")) -> None:
        """`fails`: what the builder logs while it gives nothing."""
        super().__init__("tensorrt")
        self.__version__ = version
        self.configs: list[Config] = []
        self.network_flags: list[int] = []
        self.parsed: list[bytes] = []
        self.ILogger = ILogger
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.DeviceType = SimpleNamespace(DLA="dla")
        self.HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="ampere+")
        flags = {"VERSION_COMPATIBLE": "version", "GPU_FALLBACK": "fallback"}
        if version.startswith("10."):
            self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
            flags |= {"FP16": "fp16", "INT8": "int8"}
        else:
            flags["ERROR_ON_TIMING_CACHE_MISS"] = "miss"
        self.BuilderFlag = SimpleNamespace(**flags)
        self.Builder = lambda logger: _Builder(self, logger, dla_cores, fails, layers)
        self.OnnxParser = lambda network, logger: SimpleNamespace(
            parse=lambda content: not self.parsed.append(content), num_errors=0)


class _Builder:
    def __init__(self, module: FakeTensorRt, logger: Any, dla_cores: int, fails: str | None,
                 layers: tuple[str, ...]) -> None:
        self._module, self._logger, self._fails = module, logger, fails
        self.num_DLA_cores, self._layers = dla_cores, layers

    def create_network(self, flags: int) -> Any:
        self._module.network_flags.append(flags)
        return SimpleNamespace(num_layers=len(self._layers), get_layer=lambda i: SimpleNamespace(
            type=f"LayerType.{self._layers[i]}"))

    def create_builder_config(self) -> Config:
        self._module.configs.append(Config(own_device=b"gpu"))
        return self._module.configs[-1]

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(set_shape=lambda name, *three: shapes.update({name: three}),
                               shapes=shapes)

    def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
        if self._fails:
            self._logger.log(Severity.WARNING, "a warning")
            self._logger.log(Severity.ERROR, self._fails)
            return None
        return b"plan"
