"""Why a case failed, as a sentence for the user, and whether another try may help."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable

from medmaskrcnn.errors import AmbiguousInputError, MedMaskRCNNError, ReadError, UnsuitableScanError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that every further case would meet too."""

HIDDEN = "<source>"


def explain(error: BaseException, about: str) -> str:
    """What to tell the user of ``error``: a sentence that names what it is about (a file, a folder).

    Errors that are ours or the operating system's explain themselves; any other is a defect of the program.
    """
    if isinstance(error, MedMaskRCNNError):
        reason = str(error).replace("resample_irregular=True", "--resample-irregular")
        if isinstance(error, AmbiguousInputError):
            reason += "\nGive --series with a number or UID of these, or --series largest."
    elif is_memory(error):
        reason = "not enough memory for this scan"
    elif isinstance(error, OSError):
        reason = _explain_os_error(error)
    else:
        reason = f"internal error ({type(error).__name__}: {error}); please report it with what --log FILE writes"
    return reason if about in reason else f"{about}: {reason}"


def _explain_os_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += "; make room or give another folder to -o"
    return f"{reason} ({error.filename})" if error.filename else reason


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out, the machine's or the GPU's; less running beside it may help."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def is_no_room(error: BaseException | None) -> bool:
    """Whether the disk was full, which every case after this one would meet too."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        error = error.__cause__
    return False


def is_refusal(error: BaseException) -> bool:
    """Whether the scan is to blame: it cannot be read or does not fit the model. Anything else is a failure."""
    return isinstance(error, (ReadError, UnsuitableScanError))


def without_paths(text: str, paths: Iterable[str]) -> str:
    """``text`` with each of ``paths``, and what lies below them, replaced: paths often hold patients' names."""
    for path in sorted({p for p in paths if p not in ("", os.sep, ".")}, key=len, reverse=True):
        text = re.sub(r"(?<![\w-])" + re.escape(path) + r"(?![\w-])([\\/][^\s:,;'\"()]*)?", HIDDEN, text)
    return text
