"""A small scan with a liver, a tumour in it, a candidate below the threshold and one without voxels."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Provenance, Volume
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

Case = tuple[CaseResult, Volume]

SHAPE = (12, 20, 24)


def spl_affine() -> np.ndarray:
    """Slices of 3 mm upwards, rows of 2 mm to the back, columns of 1.5 mm to the left."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 3, -2, -1.5, 1
    affine[:3, 3] = 17.25, 20.5, -40.125
    return affine


def make_case(grid: Grid, *, colour: bool = False, **record: Any) -> Case:
    """The scan on ``grid`` (of shape SHAPE or one slice of it) and its result, ids: liver 1, tumour 2."""
    flat = grid.shape[0] == 1
    liver, tumour = np.ones((1 if flat else 6, 10, 12), bool), np.ones((1 if flat else 2, 3, 4), bool)
    starts = [[0 if flat else 5, 8, 10], [0 if flat else 3, 4, 6], [0, 0, 0], [0, 0, 0]]
    masks = (tumour, liver, np.ones((1, 1, 1), bool), np.zeros((0, 0, 0), bool))
    low = np.array(starts)
    high = low + [m.shape for m in masks]
    found = Instances(
        grid=grid,
        class_names=("liver", "tumour"),
        labels=np.array([1, 0, 1, 0]),
        scores=np.array([0.9, 0.8, 0.1, 0.75], np.float32),
        boxes=np.concatenate([low - 0.25, high + 0.5], axis=1).astype(np.float32),
        masks=tuple(map(Mask, starts, masks)),
    )
    n_channels = 3 if colour else 1
    array = np.arange(n_channels * np.prod(grid.shape)).reshape(n_channels, *grid.shape)
    volume = Volume(
        (array % 251).astype(np.uint8 if colour else np.int16),
        grid,
        modality=None if colour else "CT",
        channel_kind="colour" if colour else "scalar",
        provenance=Provenance(files=("/patients/DOE^JANE/scan.nii.gz",)),
    )
    settings: dict[str, Any] = {"score": 0.5, **record.pop("settings", {})}
    made = RunRecord("medmaskrcnn 0.1.0", "m", "ab" * 32, "Apache-2.0", "cpu", "fp32", settings, {"modality": "CT"})
    run = {"host": "ward-7", "seconds": {"total": 3.5}, "input": "/patients/DOE^JANE"}
    return CaseResult(found, 0.5, measure_instances(volume, found), replace(made, **record), run), volume


@pytest.fixture
def case() -> Case:
    return make_case(Grid(SHAPE, spl_affine()))


@pytest.fixture
def build() -> Callable[..., Case]:
    return make_case


@pytest.fixture
def picture() -> Case:
    return make_case(pixel_grid((1, *SHAPE[1:])), colour=True)


def put(volume: Volume, masks: dict[str, list[np.ndarray]], **record: Any) -> CaseResult:
    """A result on a scan: per class its masks ``(D, H, W)``; the score falls from 0.9 by 0.01 from mask to mask."""
    names = tuple(masks)
    found = [(label, mask) for label, name in enumerate(names) for mask in masks[name]]
    crops = [Mask((0, 0, 0), mask).tight() for _, mask in found]
    scores = (0.9 - 0.01 * np.arange(len(found))).astype(np.float32)
    instances = Instances.from_masks(volume.grid, names, [label for label, _ in found], crops, scores=scores)
    made = RunRecord("medmaskrcnn 0.1.0", "m", "ab" * 32, "Apache-2.0", "cpu", "fp32", {"score": 0.5})
    return CaseResult(instances, 0.5, measure_instances(volume, instances), replace(made, **record))


@pytest.fixture(scope="session")
def put_masks() -> Callable[..., CaseResult]:
    return put


@pytest.fixture(scope="session")
def ct_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tilted CT series of 6 slices of 40 x 44 pixels."""
    folder = tmp_path_factory.mktemp("ct")
    settings = PhantomSettings(
        seed=3, shape=(6, 40, 44), spacing_mm=(40.0, 9.0, 8.0), tumours=0, gantry_tilt_degrees=8.0
    )
    write_dicom_series(make_phantom(settings), folder)
    return folder


@pytest.fixture
def ct(ct_folder: Path) -> Volume:
    return read_volume(ct_folder)


@pytest.fixture
def ct_case(ct: Volume) -> Case:
    """A liver with a hole, a tumour that lies partly in it, and a kidney of a single voxel."""
    liver, tumour, kidney = (np.zeros(ct.grid.shape, bool) for _ in range(3))
    liver[1:4, 8:30, 5:25] = True
    liver[2, 15:20, 10:14] = False
    tumour[2:5, 25:33, 20:28] = True
    kidney[5, 39, 43] = True
    return put(ct, {"liver": [liver], "liver tumour": [tumour], "left kidney": [kidney]}), ct


@pytest.fixture(scope="session")
def errors_of() -> Callable[[Path], list[str]]:
    """Errors that the standard's checker finds in a DICOM file; it must have recognised what it is."""

    def check(path: Path) -> list[str]:
        program = shutil.which("dciodvfy")
        assert program
        told = subprocess.run([program, str(path)], capture_output=True, check=False).stderr
        told = told.decode("utf-8", "replace").splitlines()
        assert {"Segmentation", "RTStructureSet", "Comprehensive3DSR"} & set(told), told
        return [line for line in told if line.startswith("Error")]

    return check


@pytest.fixture(scope="session")
def dcmqi() -> Callable[..., str]:
    """``dcmqi(program, *arguments)``: runs one of dcmqi's programs and gives what it said; it must end well."""
    package = pytest.importorskip("dcmqi", reason="needs dcmqi (pip install dcmqi)")

    def run(program: str, *arguments: object) -> str:
        path = next(Path(package.__file__).parent.rglob(f"bin/{program}*"))
        done = subprocess.run([str(path), *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
