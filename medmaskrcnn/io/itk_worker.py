"""The worker program of :mod:`medmaskrcnn.io.itk_process`: receives paths, returns geometry and voxels read by ITK."""

from __future__ import annotations

from contextlib import suppress

import SimpleITK as sitk

from medmaskrcnn.system.child_process import Channel, channel_to_parent


def main() -> None:
    """Read one path after the other until the parent process ends."""
    parent = channel_to_parent()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with suppress(EOFError, BrokenPipeError):
        while True:
            request, _ = parent.receive()
            try:
                _answer(parent, request["path"], voxels=request["voxels"])
            except Exception as error:  # ITK raises RuntimeError for whatever is wrong with a file
                parent.send({"error": str(error)})


def _answer(parent: Channel, path: str, *, voxels: bool) -> None:
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    answer = {
        "extents": [int(n) for n in reader.GetSize()],
        "components": int(reader.GetNumberOfComponents()),
        "is_byte": reader.GetPixelID() in (sitk.sitkVectorUInt8, sitk.sitkUInt8),
        "is_complex": "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()),
        "spacing": list(reader.GetSpacing()),
        "direction": list(reader.GetDirection()),
        "origin": list(reader.GetOrigin()),
    }
    if not voxels or answer["is_complex"]:
        parent.send(answer)
        return
    image = reader.Execute()
    parent.send(answer, [sitk.GetArrayViewFromImage(image)])  # a view, without a copy: the image must live as long


if __name__ == "__main__":
    main()
