"""Engines as a Jetson Orin Nano would have built them."""

from __future__ import annotations

from edgepkd.bundle.engines import BuiltOn

ORIN = BuiltOn(library="tensorrt", library_version="10.3.0.30", os="linux", machine="aarch64",
               python="3.10.12", compute_capability="8.7", jetson="NVIDIA Jetson Orin Nano")
