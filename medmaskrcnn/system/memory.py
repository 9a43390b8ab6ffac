"""The memory of processes: how much one uses, and retaining large freed blocks between forward passes.

glibc returns every large block to the system as soon as it is freed, and requests it again for the next layer; the
kernel then clears it page by page. In a network with large feature maps that takes a fifth of the time. Making glibc
keep such blocks cannot be undone fully, since it also disables glibc's dynamic thresholds: so it is done only in our
own processes, the command line and the workers, which call :func:`allow_retaining` when they start. In any other Python
process :func:`retain_freed_memory` does nothing; nor does it on systems with another C library, nor for blocks of
threads other than the main one, which have their own heaps.
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

# Parameter numbers of mallopt(3), from malloc.h of glibc.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_RETAIN = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}
_GLIBC_DEFAULTS = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 << 10, _TOP_PAD: 128 << 10}

_lock = Lock()
_allowed = False
_users = 0


def allow_retaining() -> None:
    """Enable :func:`retain_freed_memory` in this process; our own programs call it when they start."""
    global _allowed
    _allowed = True


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Keep freed memory for reuse within the context; when the last one exits, it is returned to the system.

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
    """Resident memory of a process in MiB; ``None`` if the system does not report it, 0 for an ended process."""
    try:
        if Path("/proc/self/statm").exists():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        if find_spec("psutil") is None:
            return None
        return float(import_module("psutil").Process(pid).memory_info().rss) / 2**20
    except (OSError, IndexError):
        return 0.0
    except Exception as error:  # psutil's exceptions, whose classes exist only if it is installed
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
    except (AttributeError, ValueError, OSError):  # Windows has no confstr, other systems do not know the name
        return None
    return ctypes.CDLL(None) if version else None
