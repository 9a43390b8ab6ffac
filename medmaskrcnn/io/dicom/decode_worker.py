"""The program that :mod:`medmaskrcnn.io.dicom.decode_pool` starts: paths in on standard input, pixels out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.header import read_header
from medmaskrcnn.io.dicom.pixels import decode_file


def main() -> None:
    """Answer one line, a JSON string with a path, after the other until the input ends."""
    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        try:
            pixels = np.ascontiguousarray(decode_file(read_header(Path(json.loads(line))))[0])
            out.write(json.dumps({"shape": pixels.shape, "dtype": pixels.dtype.str}).encode() + b"\n")
            out.write(pixels.data.cast("B"))
        except ReadError as error:
            out.write(json.dumps({"error": str(error)}).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
