"""Sample data: a synthetic CT as a folder of DICOM, with and without a result. Nothing is downloaded."""

from __future__ import annotations

import getpass
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.system.version import __version__
from napari_medmaskrcnn.layers.image_layers import LayerData, volume_to_layer
from napari_medmaskrcnn.layers.result_layers import result_to_layers

SEED = 1
RESULT = "phantom-1.npz"
"""What the model ``phantom-ct`` finds in the phantom of :data:`SEED`."""

NAME = "phantom CT"
_COMPLETE = "complete"


def phantom_layers() -> list[LayerData]:
    """The image layer of the phantom, read from DICOM."""
    return [volume_to_layer(read_volume(phantom_folder() / "ct"), NAME)]


def phantom_with_result_layers() -> list[LayerData]:
    """The phantom with the result of ``phantom-ct`` on it."""
    volume = read_volume(phantom_folder() / "ct")
    with as_file(files("napari_medmaskrcnn") / "sample" / RESULT) as path:
        result = load_case(path)
    return [volume_to_layer(volume, NAME), *result_to_layers(result, volume)]


def phantom_folder() -> Path:
    """This version's folder in the temporary directory, with the phantom's DICOM series ``ct``.

    It is created on first use, which takes about ten seconds.
    """
    # imported here because only the samples need the data set package
    from medmaskrcnn_datasets.dicom_series import write_dicom_series
    from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

    home = Path(tempfile.gettempdir()) / f"medmaskrcnn-{__version__}-{getpass.getuser()}"
    folder = home / f"phantom-{SEED}"
    if not (folder / _COMPLETE).exists():
        write_dicom_series(make_phantom(PhantomSettings(seed=SEED)), folder / "ct")
        (folder / _COMPLETE).touch()
    return folder
