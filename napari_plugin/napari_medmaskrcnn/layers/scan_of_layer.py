"""The scan behind an image layer: the one that our reader opened, or one made from any other image layer.

The library works on a :class:`Volume`; napari shows layers. Layers from our reader carry their scan, with modality,
window and DICOM source. The axes of other layers are interpreted as napari shows them: slices, rows, columns, from
head to feet, front to back, right to left, in the directions that the layer's whole transform gives them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Provenance, Volume
from napari_medmaskrcnn.layers.placement import layer_affine

KEY = "medmaskrcnn"
_IPL = np.array([[0.0, 0, -1], [0, -1, 0], [-1, 0, 0]])  # directions of the shown axes I, P, L in R, A, S
MILLIMETRES = {"millimeter": 1.0, "mm": 1.0, "micrometer": 1e-3, "µm": 1e-3, "centimeter": 10.0, "meter": 1000.0}
"""Units of napari's layers that are lengths, in mm."""


class NoScan(ValueError):
    """The layer cannot be segmented; the message is for the user."""


def scan_of_layer(layer: Any, *, channels: int = 1) -> Volume:
    """The scan that an image layer shows.

    Args:
        layer: A napari image layer, or ``None``.
        channels: Number of sequences that the layer may hold in one, as its first axis of four.

    Raises:
        NoScan: if there is none, or the layer is not a scan.
    """
    if layer is None:
        raise NoScan("There is no image layer. Open a scan first: File > Open, or drop a DICOM folder on the window.")
    ours = layer.metadata.get(KEY, {})
    if "volume" in ours:
        return _checked(ours["volume"], layer.name, channels)
    if getattr(layer, "multiscale", False):
        raise NoScan(f"{layer.name} has several resolutions. Give one of them: right-click > Split Stack.")
    data = np.asarray(layer.data)
    if layer.rgb:
        return _made(np.moveaxis(data, -1, 0), layer, "colour")
    if data.ndim == 4 and len(data) == channels > 1:
        return _made(data, layer, "unknown")
    if data.ndim > 3:
        raise NoScan(_too_many_axes(layer.name, data.ndim, data.shape[0]))
    return _made(data[None], layer, "scalar")


def _checked(volume: Volume, name: str, channels: int) -> Volume:
    if volume.channel_kind == "unknown" and volume.array.shape[0] not in (1, channels):
        raise NoScan(_too_many_axes(name, 4, volume.array.shape[0]))
    return volume


def _too_many_axes(name: str, axes: int, first: int) -> str:
    return (
        f"{name} has {axes} axes ({first} volumes: time points, echoes or channels). Models work on one volume: "
        "right-click the layer > Split Stack, then choose one of the parts."
    )


def _made(array: Any, layer: Any, kind: Any) -> Volume:
    """A volume from a layer of another reader, ``array`` being ``(C, [D,] H, W)``."""
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise NoScan(f"{layer.name} holds {array.dtype} values; a scan holds numbers.")
    flat = array.ndim == 3
    shape = (1, *array.shape[1:]) if flat else array.shape[1:]
    axes = 2 if flat else 3
    units = [str(unit) for unit in layer.units][-axes:]
    known = all(unit in MILLIMETRES for unit in units)
    factor = [MILLIMETRES[unit] for unit in units] if known else [1.0] * axes
    world = layer_affine(layer, axes)
    to_mm = np.eye(4)
    to_mm[-axes - 1 :, -axes - 1 :] = np.diag([*factor, 1.0]) @ world
    affine = np.eye(4)
    affine[:3] = _IPL @ to_mm[:3]
    if not known:
        affine[:3, :3] /= np.linalg.norm(affine[:3, :3], axis=0)  # one pixel
    try:
        grid = Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine, spacing_known=known)
    except ValueError as error:
        raise NoScan(f"{layer.name} has a transform that no scan can have: {error}") from error
    notes = (f"Made from the napari layer; its axes were taken as slices, rows, columns of {layer.name!r}.",)
    whole = array.reshape(array.shape[0], *shape)
    return Volume(whole, grid, channel_kind=kind, provenance=Provenance("memory", notes=notes))
