"""How much memory this process may still take: what every reader compares with its need before it allocates.

The smallest of what the machine has left, what a container or batch system allows (control groups) and what the shell
allows (``ulimit -v``). A scan that does not fit is refused by a sentence; without the check the system would end the
process, or another one, in the middle of a case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

_KILOBYTE = 1024
_GROUPS = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Bytes of memory that can still be allocated, at least 0; ``None`` where the system does not tell."""
    limits = [*_of_machine(), *_of_groups(), *_of_shell()]
    return max(0, min(limits)) if limits else None


def _of_machine() -> Iterator[int]:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * _KILOBYTE
                return
    except OSError:  # not Linux
        if find_spec("psutil") is not None:
            yield int(import_module("psutil").virtual_memory().available)


def _of_groups() -> Iterator[int]:
    """What the control groups of this process have left, version 2 and 1; file caches count as free."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers == "":
                names, root = ("memory.max", "memory.current", "inactive_file"), _GROUPS
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                root = _GROUPS / "memory"
            else:
                continue
            own = root / place.strip("/")
            for folder in (own, *own.parents):
                if folder == root.parent:
                    break
                yield from _of_group(folder, *names)


def _of_group(folder: Path, limit_name: str, used_name: str, cache_name: str) -> Iterator[int]:
    try:
        limit, used = (folder / limit_name).read_text().strip(), int((folder / used_name).read_text())
        if limit == "max":
            return
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield int(limit) - used + int(stat.get(cache_name, 0))
    except (OSError, ValueError):  # this group has no such limit
        return


def _of_shell() -> Iterator[int]:
    try:
        resource = import_module("resource")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):  # Windows, macOS
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield int(soft) - pages * os.sysconf("SC_PAGE_SIZE")
