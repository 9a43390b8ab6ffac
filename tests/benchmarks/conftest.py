"""Fixtures of this room's tests, and the folder of the benchmarks, which is no package."""

import sys
from pathlib import Path

from small_networks import _same_weights_every_time, tiny_model

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

__all__ = ["_same_weights_every_time", "tiny_model"]
