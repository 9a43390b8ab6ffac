"""What a figure is of: every benchmark writes it beside its results."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from medmaskrcnn.models.runtime.precision import processor_features


def machine(*packages: str) -> dict[str, Any]:
    """Command, commit, machine, its load over the last minute, and versions.

    Args:
        packages: Whose versions matter, beside Python's and torch's.
    """
    folder = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)
    words = [Path(sys.argv[0]).stem, *(Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:])]
    return {
        "command": " ".join(["python benchmarks", *words]),
        "commit": head.stdout.strip() or None,
        "processor": processor_features().get("cpu_name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", *packages)},
    }
