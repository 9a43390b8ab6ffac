"""napari's reader: scans, folders of DICOM, DICOM SEG and RTSTRUCT, and the result folders of ``medmaskrcnn segment``.

``path -> Volume or CaseResult -> layer data``; :mod:`.image_layers` and :mod:`.result_layers` do the second step.
"""

from __future__ import annotations

import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from medmaskrcnn.errors import MedMaskRCNNError, ReadError
from medmaskrcnn.io.discover import find_scans
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.io.scan_info import ScanInfo
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.io.label_reader import KINDS, labels_with_scan
from napari_medmaskrcnn.layers.image_layers import LayerData, volume_to_layer
from napari_medmaskrcnn.layers.result_layers import result_to_layers

try:
    import napari
except ImportError:  # the reader works without a viewer
    napari = None

RESULT_FILE = "instances.npz"
RUN_FILE = "run.json"

logger = logging.getLogger(__name__)

_ENDINGS = (
    ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png",
    ".jpg", ".jpeg", ".tiff", ".tif", ".dcm", ".dicom", ".ima", ".zip",
)  # fmt: skip


def napari_get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """napari's reader hook: our reader for ``path``, or ``None`` if we certainly cannot read it.

    Args:
        path: A file or folder, or several, each of which is opened separately.
    """
    paths = _as_paths(path)
    return read_layers if paths and all(map(_may_be_ours, paths)) else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Layers of a scan, of every series in a folder, or of a result.

    Raises:
        ReadError: if a path holds nothing that can be shown; the message states what it holds instead.
    """
    return [layer for one in _as_paths(path) for layer in (_result_layers(one) or _scan_layers(one))]


def open_volumes() -> list[Volume]:
    """The scans whose layers are open in napari's current viewer; empty without a viewer."""
    viewer = napari.current_viewer() if napari is not None else None
    layers = viewer.layers if viewer is not None else []
    return [
        layer.metadata["medmaskrcnn"]["volume"] for layer in layers if "volume" in layer.metadata.get("medmaskrcnn", {})
    ]


def _as_paths(path: str | Sequence[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, str) else [Path(one) for one in path]


def _may_be_ours(path: Path) -> bool:
    """A quick check by file extension, or by the first bytes for archives and files without a known extension."""
    name = path.name.lower()
    if path.is_dir() or name.endswith(_ENDINGS):
        return True
    try:
        return _is_result(path) if name.endswith(".npz") else _is_dicom(path)
    except OSError:
        return False


def _is_result(path: Path) -> bool:
    """Whether an ``.npz`` has the entries that every result has."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"header.npy", "mask_bits.npy"} <= set(archive.namelist())


def _is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do: 128 bytes, then ``DICM`` (PS3.10, section 7.1)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _result_layers(path: Path) -> list[LayerData]:
    """Layers of a result file or folder, above its scan if that still exists; empty if the path is neither."""
    file = path / RESULT_FILE if path.is_dir() else path
    if file.suffix != ".npz" or not file.is_file():
        return []
    result = load_case(file)
    is_open = next((v for v in open_volumes() if v.grid == result.candidates.grid), None)
    volume = is_open or scan_of_result(result, file.with_name(RUN_FILE))
    scan = [] if volume is None or is_open else [volume_to_layer(volume, volume.modality or "scan")]
    return [*scan, *result_to_layers(result, volume)]


def scan_of_result(result: CaseResult, run_file: Path) -> Volume | None:
    """The scan that a result was made from, found by the paths in ``run.json``.

    ``None`` if there is no such file, or if what is there now is no longer that scan.
    """
    try:
        files = [Path(name) for name in json.loads(run_file.read_text(encoding="utf-8"))["input_files"]]
        source = files[0] if len(files) == 1 else files[0].parent
        volume = read_volume(source, series=result.record.source.get("series_uid"))
    except (MedMaskRCNNError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        logger.info("%s: the scan was not found: %s", run_file, error)
        return None
    return volume if volume.grid == result.candidates.grid else None


def _scan_layers(path: Path) -> list[LayerData]:
    """An image layer for every scan in ``path``, only the first visible, with its SEG and RTSTRUCT above them."""
    found = find_scans(path)
    scans = [one for one in found if one.info.segmentable]
    objects = [one.files[0] for one in found if one.info.kind in KINDS]
    if not scans and objects:
        return [layer for file in objects for layer in _label_layers(file, open_volumes(), alone=True)]
    if not scans:
        reasons = "; ".join(f"{Path(one.info.path).name}: {one.info.reason}" for one in found[:5])
        raise ReadError(f"{path} holds no scan that can be shown. {reasons or 'It is empty.'}")
    layers: list[LayerData] = []
    for number, scan in enumerate(scans, start=1):
        name = layer_name(scan.info, number if len(scans) > 1 else None)
        try:
            layer = volume_to_layer(scan.read(), name)
        except Exception as error:  # whatever is wrong with one series, the others are shown
            if len(scans) == 1:
                raise
            warnings.warn(f"{name} was left out: {in_words(error) or type(error).__name__}", stacklevel=2)
            logger.info("%s was left out", name, exc_info=True)
            continue
        layer[1]["visible"] = not layers
        layers.append(layer)
    if not layers:
        raise ReadError(f"none of the {len(scans)} scans in {path} can be read")
    volumes = [layer[1]["metadata"]["medmaskrcnn"]["volume"] for layer in layers]
    return [*layers, *(layer for file in objects for layer in _label_layers(file, volumes, alone=False))]


def _label_layers(file: Path, volumes: Sequence[Volume], *, alone: bool) -> list[LayerData]:
    """Layers of a SEG or RTSTRUCT, above its scan if that is not open. Errors are raised only if ``alone``."""
    try:
        result, volume = labels_with_scan(file, volumes)
    except Exception as error:  # as with the scans
        if alone:
            raise
        warnings.warn(f"{file.name} was left out: {in_words(error) or type(error).__name__}", stacklevel=2)
        logger.info("%s was left out", file.name, exc_info=True)
        return []
    scan = [] if any(volume is one for one in volumes) else [volume_to_layer(volume, volume.modality or "scan")]
    return [*scan, *result_to_layers(result, volume)]


def layer_name(info: ScanInfo, number: int | None) -> str:
    """A name without patient data: the modality of a DICOM series, else the file's own name.

    Args:
        info: The scan.
        number: Its number among several, else ``None``.
    """
    if info.series_uid is None and info.format != "DICOM":
        name = Path(info.path).name
        ending = next((e for e in _ENDINGS if name.lower().endswith(e)), "")
        return name[: len(name) - len(ending)]
    kind = info.modality or "scan"
    return kind if number is None else f"{kind} {number}"
