"""The worker program of :mod:`medmaskrcnn.io.dicom.decode_pool`: receives paths and returns pixels."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.mosaic import read_slices
from medmaskrcnn.io.dicom.pixels import decode_file
from medmaskrcnn.system.child_process import channel_to_parent


def main() -> None:
    """Decode one path after the other until the parent process ends."""
    parent = channel_to_parent()
    with suppress(EOFError, BrokenPipeError):
        while True:
            request, _ = parent.receive()
            try:
                header, _ = read_slices(Path(request.pop("path")))
                pixels = decode_file(header, **request)
            except ReadError as error:
                parent.send({"error": str(error)})
            else:
                parent.send({}, [pixels])


if __name__ == "__main__":
    main()
