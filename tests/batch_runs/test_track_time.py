"""A cine series is one film: a thing that moves through it is one instance, with its place in every frame."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from tiny_models import tiny_settings
from typer.testing import CliRunner

import medmaskrcnn
from medmaskrcnn.batch_runs.find import find_series
from medmaskrcnn.batch_runs.plan import BatchCase
from medmaskrcnn.cli.main import app
from medmaskrcnn.errors import AmbiguousInputError, UnsuitableScanError
from medmaskrcnn.export.tracks import write_tracks
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.inference.suitability import check_suitable
from medmaskrcnn.inference.track_time import read_scan
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Film

N_FRAMES, SIDE = 6, 48


@pytest.fixture(scope="module")
def cine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cine MR: one sagittal slice, a bright disc that wanders and swells. Only to be read."""
    folder = tmp_path_factory.mktemp("scan") / "cine"
    folder.mkdir()
    series, study, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for t in range(N_FRAMES):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.FrameOfReferenceUID, image.Modality, image.PatientID = frame_of_reference, "MR", "cine"
        image.InstanceNumber, image.TriggerTime = t + 1, 40.0 * t
        image.ImagePositionPatient, image.ImageOrientationPatient = [5, -30, 30], [0, 1, 0, 0, 0, -1]
        image.PixelSpacing, image.SliceThickness = [1.5, 1.25], 8
        image.Rows = image.Columns = SIDE
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
        disc = (rows - 20 - t) ** 2 + (columns - 24) ** 2 <= (8 + t / 2) ** 2
        image.PixelData = (100 + 300 * disc).astype(np.uint16).tobytes()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.save_as(folder / f"{(7 * t) % 11}.dcm", enforce_file_format=True)  # names tell no order
    return folder


@pytest.fixture(scope="module")
def tracked(cine: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> BatchCase:
    """The cine MR as a batch segments it."""
    out = tmp_path_factory.mktemp("batch") / "out"
    (case,) = medmaskrcnn.batch(cine, out, model=tiny_model, track=True, device="cpu")
    return case


def test_time_points_are_series_of_their_own_unless_tracked(cine: Path):
    assert len(find_series([cine])) == N_FRAMES
    (film,) = find_series([cine], track=True)
    assert (film.verdict, film.part, film.slices, len(film.files)) == ("queued", "cine", N_FRAMES, N_FRAMES)


def test_a_volume_is_no_film(clean_archive: Path):
    assert find_series([clean_archive], track=True) == find_series([clean_archive])


@pytest.mark.slow
def test_instances_are_linked_along_time(tracked: BatchCase):
    assert tracked.status == "done", tracked.reason
    result = tracked.result()
    assert result.instances.grid.shape == (N_FRAMES, SIDE, SIDE)
    document = json.loads((tracked.folder / "result.json").read_text())
    assert document["geometry"]["unit"] == "px"
    rows = list(csv.DictReader((tracked.folder / "tracks.csv").open()))
    frames = Counter(row["track"] for row in rows)
    assert max(frames.values()) > 1  # one instance, several frames
    for row in rows:
        assert float(row["area_mm2"]) == pytest.approx(int(row["area_px"]) * 1.5 * 1.25, abs=1e-3)
    for i, mask in enumerate(result.instances.masks):
        areas = [int(row["area_px"]) for row in rows if row["track"] == str(i + 1)]
        assert sum(areas) == mask.n_voxels


def test_the_table_by_hand():
    mask = np.zeros((2, 2, 3), bool)
    mask[0, 0, 0] = mask[1, :, 1] = True
    found = Instances.from_masks(pixel_grid((4, 9, 9)), ("heart",), [0], [Mask((1, 4, 5), mask)], scores=[0.75])
    record = RunRecord("medmaskrcnn 0", "m", "0", "", "cpu", "fp32")
    volume = medmaskrcnn.Volume(np.zeros((1, 4, 9, 9), np.int16), found.grid)
    result = CaseResult(found, 0.5, measure_instances(volume, found), record)
    known, unknown = io.StringIO(), io.StringIO()
    write_tracks(result, (2.0, 0.5), known)
    write_tracks(result, None, unknown)
    assert known.getvalue().splitlines()[1:] == [
        "1,heart,0.7500,1,1,1.000,4.00,5.00",
        "1,heart,0.7500,2,2,2.000,4.50,6.00",
    ]
    assert unknown.getvalue().splitlines()[1] == "1,heart,0.7500,1,1,,4.00,5.00"


@pytest.mark.slow
def test_segment_reads_a_film_too(cine: Path, tracked: BatchCase, tiny_model: Path, tmp_path: Path):
    result = medmaskrcnn.segment(cine, tiny_model, track=True, device="cpu")
    assert result.candidates.grid.shape == (N_FRAMES, SIDE, SIDE)
    ours, theirs = result.instances, tracked.result().instances
    assert all(np.array_equal(a, b) for a, b in zip(ours.masks, theirs.masks, strict=True)) and len(ours)

    out = tmp_path / "one"
    ran = CliRunner().invoke(app, ["segment", str(cine), "-o", str(out), "--model", str(tiny_model), "--track"])
    assert ran.exit_code == 0, ran.stderr
    assert (out / "tracks.csv").read_bytes() == (tracked.folder / "tracks.csv").read_bytes()
    again = ["segment", str(cine), "-o", str(out), "--model", str(tiny_model), "--series", "1", "--overwrite"]
    assert CliRunner().invoke(app, again).exit_code == 0
    assert not (out / "tracks.csv").exists()  # it would speak of another result


def test_which_of_several_films(cine: Path, clean_archive: Path, tmp_path: Path):
    both = tmp_path / "both"
    shutil.copytree(cine, both / "cine")
    shutil.copytree(next(clean_archive.iterdir()), both / "ct")
    with pytest.raises(AmbiguousInputError):
        read_scan(both, SegmentOptions(track=True))
    uid = next(scan.series_uid for scan in medmaskrcnn.describe(cine))
    film = read_scan(both, SegmentOptions(track=True, series=uid))
    assert film.film == Film((1.5, 1.25)) and film.grid.shape[0] == N_FRAMES
    ct = read_scan(both, SegmentOptions(track=True, series="largest"))
    assert ct.film is None and ct.modality == "CT"


def test_a_model_of_volumes_does_not_track(cine: Path):
    film = read_scan(cine, SegmentOptions(track=True))
    with pytest.raises(UnsuitableScanError, match="models of slices alone"):
        check_suitable(film, tiny_settings(3))
