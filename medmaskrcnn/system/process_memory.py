"""How much memory a process has."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path


def resident_mb(pid: int) -> float | None:
    """Resident memory of a process in MiB; ``None`` where the system does not tell, 0 for a process that is gone."""
    try:
        if Path("/proc/self/statm").exists():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        if find_spec("psutil") is None:
            return None
        return float(import_module("psutil").Process(pid).memory_info().rss) / 2**20
    except (OSError, IndexError):
        return 0.0
    except Exception as error:  # psutil's own, whose classes are not there without it
        if type(error).__name__ in ("NoSuchProcess", "AccessDenied"):
            return 0.0
        raise
