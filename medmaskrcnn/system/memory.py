"""The memory of processes: how much one has, and large blocks that stay with it from one pass of a network to the next.

glibc hands every large block back to the system as soon as it is freed, and asks for it again for the next layer; the
kernel then clears it page by page. In a network of large maps that takes a fifth of the time. Telling glibc to keep
such blocks cannot be undone, since that also ends its own adapting of the limits: so it is done only in processes that
are ours alone, the command line and the workers, which :func:`allow_retaining` at their start. In anybody else's Python
:func:`retain_freed_memory` does nothing; nor does it on systems with another C library, nor for blocks of threads
other than the main one, which have heaps of their own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

# malloc.h of glibc: which parameter mallopt(3) sets.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_RETAIN = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}
_GLIBC_DEFAULTS = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 << 10, _TOP_PAD: 128 << 10}

_lock = Lock()
_allowed = False
_users = 0


def allow_retaining() -> None:
    """Let :func:`retain_freed_memory` work in this process; for a program of ours to call when it starts."""
    global _allowed
    _allowed = True


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """While this lasts freed memory is kept for the next use; the last one to leave gives it back to the system.

    Does nothing unless :func:`allow_retaining` was called.
    """
    global _users
    library = _glibc() if _allowed else None
    if library is None:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            _set(library, _RETAIN)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(library, _GLIBC_DEFAULTS)
                library.malloc_trim(0)


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


def _set(library: Any, parameters: dict[int, int]) -> None:
    for name, value in parameters.items():
        library.mallopt(name, value)


@cache
def _glibc() -> Any:
    """The C library if it is glibc, else ``None``."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):  # Windows has no confstr, others do not know the name
        return None
    return ctypes.CDLL(None) if version else None
