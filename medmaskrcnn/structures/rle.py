"""Column-wise run-length encoding of masks, in COCO's text code."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from medmaskrcnn.structures.mask import BoolArray


def run_lengths(mask: BoolArray) -> list[int]:
    """Lengths of the runs of a mask ``(rows, columns)`` down its columns, beginning with unset pixels.

    Example:
        >>> run_lengths(np.array([[False, True], [True, True]]))
        [1, 3]
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    starts = [0, *changes.tolist(), flat.size]
    runs = [b - a for a, b in pairwise(starts)]
    return [0, *runs] if flat.size and flat[0] else runs


def rle_encode(runs: list[int]) -> str:
    """Encode runs in COCO's text code: five bits per letter, from the fourth run on minus the last run but one."""
    letters = []
    for k, run in enumerate(runs):
        value = run - runs[k - 2] if k > 2 else run
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            letters.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(letters)


def rle_from_string(text: str) -> list[int]:
    """The runs of COCO's text code; the inverse of :func:`rle_encode`.

    Raises:
        ValueError: if the text is cut short or contains other letters.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"a run-length code cannot hold {letter!r}")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the run-length code is cut short")
    return runs


def rle_decode(runs: list[int], height: int, width: int) -> BoolArray:
    """The mask ``(height, width)`` of runs; the inverse of :func:`run_lengths`.

    Raises:
        ValueError: if the runs do not fill the mask.
    """
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"runs of {sum(runs)} pixels cannot fill a mask of {height} x {width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape((height, width), order="F"))
