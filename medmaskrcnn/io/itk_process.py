"""ITK in a process of its own: a file that makes it crash, hang or take all memory costs that file alone.

The process is started with the first NRRD or MetaImage file and kept; it is started again after it died.
"""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from threading import Lock, Timer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.errors import ReadError
from medmaskrcnn.system.child_process import ChildProcess

_PATIENCE_S = 60.0
_SLOWEST_BYTES_PER_S = 2e6  # of a network drive, unpacking included


@dataclass(frozen=True)
class ItkImage:
    """What ITK knows of an image.

    Attributes:
        extents: x, y, z, t: as many as there are.
        components: Values of each voxel.
        is_byte: Whether these are unsigned bytes.
        is_complex: Whether these are complex numbers.
        spacing, direction, origin: In mm along x, y, z; a square matrix by rows; L, P, S in mm.
    """

    extents: tuple[int, ...]
    components: int
    is_byte: bool
    is_complex: bool
    spacing: tuple[float, ...]
    direction: tuple[float, ...]
    origin: tuple[float, ...]


_lock = Lock()
_process: ChildProcess | None = None
_owner = 0


def read_with_itk(path: Path, *, voxels: bool, n_bytes: int = 0) -> tuple[ItkImage, NDArray[Any] | None]:
    """Geometry of a file, and its voxels ``(t, z, y, x, components)`` as far as it has these axes.

    Args:
        path: A file whose header was checked by :func:`~medmaskrcnn.io.text_headers.read_text_header`.
        voxels: Whether to read the voxels.
        n_bytes: Their size, which decides how long to wait.

    Raises:
        ReadError: if ITK cannot read it, dies of it, or does not come to an end.
    """
    with _lock:
        child = _running()
        too_long = Timer(_PATIENCE_S + (n_bytes / _SLOWEST_BYTES_PER_S if voxels else 0.0), child.kill)
        too_long.start()
        try:
            child.send({"path": str(path), "voxels": voxels})
            answer, arrays = child.receive()
        except (OSError, EOFError) as error:
            _close()
            raise ReadError(
                f"{path} cannot be read: the reader stopped at it. It is damaged, or made to harm; copy or export it "
                "again"
            ) from error
        finally:
            too_long.cancel()
    if "error" in answer:
        raise RuntimeError(answer["error"].strip().splitlines()[-1])
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in answer.items()}
    image = ItkImage(**fields)
    return image, np.asarray(arrays[0]) if arrays else None


def _running() -> ChildProcess:
    """The process of this process: one that was forked needs its own."""
    global _process, _owner
    if _process is None or _owner != os.getpid() or _process.poll() is not None:
        _process, _owner = ChildProcess("medmaskrcnn.io.itk_worker", quiet=True), os.getpid()
    return _process


@atexit.register
def _close() -> None:
    global _process
    if _process is not None and _owner == os.getpid():
        with suppress(TimeoutExpired):
            _process.close()
    _process = None
