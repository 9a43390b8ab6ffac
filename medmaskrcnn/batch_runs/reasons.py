"""Why a case failed, as a sentence for the user, and whether another try may help."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping

from medmaskrcnn.errors import InvalidOptionError, MedMaskRCNNError, ReadError, Remedy, UnsuitableScanError
from medmaskrcnn.system.exceptions import words_of

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that every further case would also raise."""

HIDDEN = "<source>"

_NO_MEMORY = ("allocate memory", "Cannot allocate", "out of memory", "std::bad_alloc", "can't start new thread")


IN_SUMMARY: Mapping[Remedy, str] = {
    Remedy.ALLOW_OUT_OF_DOMAIN: "Choose another model, or allow scans out of the model's domain in a new batch",
    Remedy.RESAMPLE_IRREGULAR: "A new batch may interpolate even slices (resample irregular)",
    Remedy.MERGE_SERIES: "A new batch may read them as one series (merge series)",
    Remedy.DROP_DUPLICATES: "A new batch may read each image once (drop duplicates)",
    Remedy.GIVE_ONE_VOLUME: "The model takes one volume of each series",
    Remedy.GIVE_SEQUENCES: "A new batch may say which series of a study are the sequences (channels)",
    Remedy.REPORT: "Please report it",
    Remedy.USE_FP32: "Try precision fp32 in a new batch, and if that does not help, another model",
    Remedy.USE_TORCH: "Without them use engine torch in a new batch",
}
"""Text of each remedy in the summary of a batch."""


def explain(error: BaseException, about: str) -> str:
    """The reason of an error, as a sentence that names the file or folder it is about.

    Our own errors and those of the operating system explain themselves; any other is a defect of the program.
    :func:`remedy_of` gives what may be done.
    """
    if isinstance(error, MedMaskRCNNError):
        reason = error.reason
    elif isinstance(error, InvalidOptionError):
        reason = str(error)
    elif is_memory(error):
        reason = "not enough memory for this scan"
    elif isinstance(error, OSError):
        reason = _explain_os_error(error)
    else:
        reason = f"internal error ({words_of(error)})"
    return reason if about in reason else f"{about}: {reason}"


def remedy_of(error: BaseException) -> Remedy | None:
    """What the user may do about an error."""
    if isinstance(error, MedMaskRCNNError):
        return error.remedy
    return None if is_memory(error) or isinstance(error, (OSError, InvalidOptionError)) else Remedy.REPORT


def _explain_os_error(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += "; make room or give another folder"
    return f"{reason} ({error.filename})" if error.filename else reason


def is_memory(error: BaseException) -> bool:
    """Whether memory of the machine or GPU ran out; running the case alone may help."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # torch's allocator, numeric libraries and the loader of libraries, under a limit such as that of ulimit -v
    return isinstance(error, RuntimeError | ImportError) and any(words in str(error) for words in _NO_MEMORY)


def is_no_room(error: BaseException | None) -> bool:
    """Whether the disk was full, which would also fail every later case."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        error = error.__cause__
    return False


def is_refusal(error: BaseException) -> bool:
    """Whether the scan is the cause: it cannot be read or does not fit the model. Anything else is a failure."""
    return isinstance(error, (ReadError, UnsuitableScanError))


def without_paths(text: str, paths: Iterable[str]) -> str:
    """``text`` with each of ``paths``, and what lies below them, replaced: paths often hold patients' names."""
    there = {p for p in paths if p not in ("", os.sep, ".") and p in text}  # a series may have 20,000 files
    for path in sorted(there, key=len, reverse=True):
        text = re.sub(r"(?<![\w-])" + re.escape(path) + r"(?![\w-])([\\/][^\s:,;'\"()]*)?", HIDDEN, text)
    return text
