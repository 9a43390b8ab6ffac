"""The worker program of :mod:`medmaskrcnn.io.dicom.decode_pool`: receives paths and returns pixels."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.header import read_header
from medmaskrcnn.io.dicom.pixels import decode_file
from medmaskrcnn.system.child_process import channel_to_parent


def main() -> None:
    """Decode one path after the other until the parent process ends."""
    parent = channel_to_parent()
    with suppress(EOFError, BrokenPipeError):
        while True:
            request, _ = parent.receive()
            try:
                pixels = decode_file(read_header(Path(request["path"])))[0]
            except ReadError as error:
                parent.send({"error": str(error)})
            else:
                parent.send({}, [pixels])


if __name__ == "__main__":
    main()
