"""Large blocks of memory stay with the process from one pass of the network to the next.

glibc hands every large block back to the system as soon as it is freed, and asks for it again for the next layer; the
kernel then clears it page by page. In a network of large maps that takes a fifth of the time. Nothing happens on
systems with another C library, nor for blocks of threads other than the main one, which have heaps of their own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

# malloc.h of glibc: which parameter mallopt(3) sets.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}
_AS_IT_COMES = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 << 10, _TOP_PAD: 128 << 10}

_lock = Lock()
_users = 0


@contextmanager
def memory_kept() -> Iterator[None]:
    """While this lasts freed memory is kept for the next use; the last one to leave gives it back to the system."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _set(_KEEP)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(_AS_IT_COMES)
                _give_back()


def _set(parameters: dict[int, int]) -> None:
    if (library := _glibc()) is not None:
        for name, value in parameters.items():
            library.mallopt(name, value)


def _give_back() -> None:
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library if it is glibc, else ``None``."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):  # Windows has no confstr, others do not know the name
        return None
    return ctypes.CDLL(None) if version else None
