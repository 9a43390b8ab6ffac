"""Scans that are in memory already, as the libraries of this field hold them, become Volumes.

Each library has its own order of axes and its own world. None of it is guessed: an array without a spacing has none,
and what a library adds by itself is noted.

=================== ================================= ============================================================
what                array                             its geometry
=================== ================================= ============================================================
NumPy array, tensor ``(D, H, W)``, ``(C, D, H, W)``,  ``affine`` or ``spacing_mm`` follow the array's own axes; RAS
                    ``(H, W)``
nibabel image       x, y, z, t; z becomes D           ``affine`` to RAS, in the units of its header
SimpleITK image     ``GetArrayFromImage``: z, y, x    spacing, direction and origin in LPS
MONAI MetaTensor    C, x, y, z; z becomes D           ``affine`` to the ``space`` of its metadata, RAS or LPS
pydicom datasets    as if read from files             as if read from files
=================== ================================= ============================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmaskrcnn.io.dicom_datasets import volume_of_datasets
from medmaskrcnn.io.options import AS_STORED, ReadingOptions
from medmaskrcnn.io.values import rescale
from medmaskrcnn.structures.grid import LPS_FROM_RAS, FloatArray, Grid, pixel_grid
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, ChannelKind, Provenance, Volume

_MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
_AXES_OF_SPACING = (
    "Only the spacing was given: slices are taken as running up, rows to the back and columns to the left, as "
    "SimpleITK takes an array; left and right are not known for certain."
)
_IDENTITY = "The affine is the identity, which MONAI fills in where none was given; left and right are not certain."
_NO_ORIENTATION = "The image gives voxel sizes but no orientation; left and right are not known for certain."


def as_volume(
    source: Any,
    *,
    spacing_mm: Sequence[float] | None = None,
    affine: ArrayLike | None = None,
    modality: str | None = None,
    series: str | None = None,
    options: ReadingOptions = AS_STORED,
) -> Volume:
    """Make a Volume of a scan in memory; voxels are neither copied nor resampled where that can be avoided.

    Args:
        source: A Volume; a NumPy array or torch tensor ``(H, W)``, ``(D, H, W)`` or ``(C, D, H, W)``; a nibabel or
            SimpleITK image; a MONAI MetaTensor ``(C, *spatial)``; a pydicom dataset, or a list of those of a series.
        spacing_mm: Of an array alone: distance between voxel centres along D, H, W, whose directions then are taken as
            up, to the back and to the left. Without it and ``affine`` the spacing is unknown, as that of a picture.
        affine: Of an array alone: ``(4, 4)``, index along the array's axes D, H, W to R, A, S in mm. nibabel's affine
            fits the array of the same image without turning either.
        modality: DICOM Modality such as ``"CT"``, where the source does not tell it.
        series: Of datasets of several series: which one.
        options: How DICOM datasets are read.

    Raises:
        TypeError: if the source is of none of these kinds, or its values are no real numbers.
        ValueError: if its shape or geometry cannot be used, or a geometry was given for what has its own.
        ReadError: if DICOM datasets form no volume.
    """
    array_like = isinstance(source, np.ndarray) or (_is(source, "torch", "Tensor") and not _is_metatensor(source))
    if (spacing_mm is not None or affine is not None) and not array_like:
        raise ValueError(f"spacing_mm and affine belong to an array; {_kind(source)} has a geometry of its own")
    if isinstance(source, Volume):
        return source
    if array_like:
        return _of_array(_values(source), spacing_mm, affine, modality)
    if _is_metatensor(source):
        return _of_metatensor(source, modality)
    if _is(source, "nibabel", "SpatialImage"):
        return _of_nibabel(source, modality)
    if _is(source, "SimpleITK", "Image"):
        return _of_sitk(source, modality)
    datasets = [source] if _is(source, "pydicom", "Dataset") else source
    if isinstance(datasets, Sequence) and datasets and all(_is(one, "pydicom", "Dataset") for one in datasets):
        return volume_of_datasets(datasets, series=series, options=options)
    raise TypeError(
        f"{_kind(source)} is no scan. Give a path, a Volume, a NumPy array, a nibabel or SimpleITK image, a MetaTensor "
        "of MONAI, or the pydicom datasets of a series"
    )


def _of_array(
    array: NDArray[Any], spacing_mm: Sequence[float] | None, affine: ArrayLike | None, modality: str | None
) -> Volume:
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3:
        if array.dtype == np.uint8 and array.shape[2] in (3, 4) and min(array.shape[:2]) > 4:
            raise ValueError(
                f"an array of shape {array.shape} looks like a colour picture with its channels last; give "
                "np.moveaxis(array, -1, 0)[:, None], which is (C, 1, H, W)"
            )
        array = array[None]
    if array.ndim != 4:
        raise ValueError(f"an array must be (H, W), (D, H, W) or (C, D, H, W), got {array.shape}")
    shape = (array.shape[1], array.shape[2], array.shape[3])
    notes: tuple[str, ...] = ()
    if affine is not None and spacing_mm is not None:
        raise ValueError("give either spacing_mm or affine, which holds the spacing")
    if affine is not None:
        grid = Grid(shape, np.asarray(affine, dtype=np.float64))
    elif spacing_mm is not None:
        if len(spacing_mm) != 3 or not all(0 < float(step) < np.inf for step in spacing_mm):
            raise ValueError(f"spacing_mm must be three positive numbers along D, H, W, got {list(spacing_mm)}")
        directions = pixel_grid(shape).affine_vox_to_ras
        grid, notes = Grid(shape, directions @ np.diag([*map(float, spacing_mm), 1.0])), (_AXES_OF_SPACING,)
    else:
        grid = pixel_grid(shape)
    return _volume(array, grid, modality, notes)


def _of_nibabel(image: Any, modality: str | None) -> Volume:
    """``(x, y, z, t)`` to ``(C, D, H, W)`` by transposing, as :mod:`medmaskrcnn.io.nifti` reads the file."""
    if image.affine is None:
        raise ValueError("the nibabel image has no affine, so its voxels lie nowhere; give the array with a spacing")
    header, affine, notes = image.header, np.asarray(image.affine, dtype=np.float64), []
    if hasattr(header, "get_xyzt_units"):
        factor = _MM_PER_UNIT[header.get_xyzt_units()[0]]
        affine = np.diag([factor, factor, factor, 1.0]) @ affine
        if factor != 1:
            notes.append("Lengths in the image are not in mm; they were converted.")
        if not int(header["sform_code"]) and not int(header["qform_code"]):
            notes.append(_NO_ORIENTATION)
    described = bytes(header["descrip"]).decode("latin-1") if "descrip" in header else ""
    array = np.asanyarray(image.dataobj)
    if array.dtype.names:
        array = np.stack([array[name] for name in ("R", "G", "B")], axis=-1)
    made = _from_xyz(array, affine, modality, tuple(notes), colour=image.dataobj.dtype.names is not None)
    if PHANTOM_GENERATOR not in described:
        return made
    return replace(made, provenance=replace(made.provenance, generator=PHANTOM_GENERATOR))


def _of_metatensor(image: Any, modality: str | None) -> Volume:
    """``(C, x, y, z)`` by its affine; metadata of another world than RAS are converted."""
    if getattr(image, "pending_operations", None):
        raise ValueError("the MetaTensor has transforms that are still to be applied; apply them (lazy=False) first")
    values, meta = _values(image), image.meta
    original = meta.get("original_channel_dim")
    without_channel = original == "no_channel" or (isinstance(original, float) and np.isnan(original))
    spatial = values.ndim if without_channel and values.ndim <= 3 else values.ndim - 1
    if spatial not in (2, 3):
        raise ValueError(f"a MetaTensor must be (C, *spatial), one scan of a batch, got {tuple(values.shape)}")
    if spatial == values.ndim:
        values = values[None]
    space = str(meta.get("space", "RAS"))
    if space not in ("RAS", "LPS"):
        raise ValueError(f"the MetaTensor's affine leads to the space {space!r}; RAS or LPS is needed")
    given = np.asarray(image.affine.detach().cpu(), dtype=np.float64)
    affine = np.eye(4)
    rank = given.shape[0] - 1
    affine[:rank, :rank], affine[:rank, 3] = given[:rank, :rank], given[:rank, rank]
    if spatial == 2 and np.array_equal(affine, np.eye(4)):
        array = np.swapaxes(values, 1, 2)[:, None]  # a picture: columns first, of unknown spacing
        return _volume(array, pixel_grid((1, array.shape[2], array.shape[3])), modality, ())
    notes = (_IDENTITY,) if np.array_equal(affine, np.eye(4)) else ()
    if space == "LPS":
        affine = LPS_FROM_RAS @ affine
    array = np.moveaxis(values, 0, -1)
    if spatial == 2:
        array = array[:, :, None]
    return _from_xyz(array, affine, modality, notes)


def _from_xyz(
    array: NDArray[Any], affine: FloatArray, modality: str | None, notes: tuple[str, ...], *, colour: bool = False
) -> Volume:
    """``(x, y, z)`` or ``(x, y, z, C)`` with an affine of these axes: transposed, no voxel is moved."""
    extents = [n for n in array.shape[3:] if n > 1]
    if len(extents) > 1 or array.ndim < 2:
        raise ValueError(f"an image must have two to four axes x, y, z, t, got {array.shape}")
    x, y, z = [*array.shape, 1][:3]
    stored = array.T.reshape(extents[0] if extents else 1, z, y, x)
    return _volume(stored, Grid((z, y, x), affine[:, [2, 1, 0, 3]]), modality, notes, colour=colour)


def _of_sitk(image: Any, modality: str | None) -> Volume:
    """``GetArrayFromImage`` gives z, y, x and components last; spacing, direction and origin lead to LPS."""
    import SimpleITK as sitk  # here: whoever has such an image has loaded it

    dims, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    array = sitk.GetArrayViewFromImage(image)
    if components > 1:
        array = np.moveaxis(array, -1, 0)
    if dims == 4 and components > 1:
        raise ValueError("a SimpleITK image of four axes and several components cannot be read; extract one of them")
    t, z, y, x = (1,) * (4 - dims) + array.shape[-dims:]
    array = np.array(array).reshape(components * t, z, y, x)  # a copy: the view ends with the image
    kind = image.GetPixelID() in (sitk.sitkVectorUInt8,) and components == 3
    if dims == 2:
        unit = image.GetSpacing() == (1.0, 1.0)
        note = () if unit else ("A picture of two axes has no slice thickness; measurements are in pixels.",)
        return _volume(array, pixel_grid((1, y, x)), modality, note, colour=kind)
    affine: FloatArray = np.eye(4)
    direction = np.asarray(image.GetDirection()).reshape(dims, dims)[:3, :3]
    affine[:3, :3] = (direction * np.asarray(image.GetSpacing())[:3])[:, ::-1]
    affine[:3, 3] = np.asarray(image.GetOrigin())[:3]
    return _volume(array, Grid((z, y, x), LPS_FROM_RAS @ affine), modality, (), colour=kind)


def _volume(
    array: NDArray[Any], grid: Grid, modality: str | None, notes: tuple[str, ...], *, colour: bool = False
) -> Volume:
    if array.dtype.kind not in "iuf":
        raise TypeError(f"a scan holds real numbers, got an array of {array.dtype}")
    kind: ChannelKind = "scalar" if array.shape[0] == 1 else "colour" if colour else "unknown"
    return Volume(rescale(array, 1.0, 0.0), grid, modality, kind, provenance=Provenance("memory", notes=notes))


def _values(source: Any) -> NDArray[Any]:
    """The numbers of an array or of a tensor on any device."""
    if isinstance(source, np.ndarray):
        return np.asarray(source)
    tensor = source.detach().cpu()
    tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has none
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def _is_metatensor(source: Any) -> bool:
    return _is(source, "monai", "MetaTensor")


def _is(source: Any, package: str, name: str) -> bool:
    """Whether an object is of a class of another library, which is not imported to find out."""
    return any(c.__name__ == name and c.__module__.split(".")[0] == package for c in type(source).__mro__)


def _kind(source: Any) -> str:
    return f"{type(source).__module__.split('.')[0]}'s {type(source).__name__}"
