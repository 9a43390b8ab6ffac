"""A patient who moved between three examinations: every lesion is found again, and its change is the true one."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app
from medmaskrcnn.errors import ReadError
from medmaskrcnn.evaluation.followup.align import Alignment, align_rigidly
from medmaskrcnn.evaluation.followup.compare import Examination, compare
from medmaskrcnn.evaluation.followup.tracks import TimePoint, follow
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.store import save_case
from medmaskrcnn.structures.volume import Volume

VOLUME_TOLERANCE = 0.05  # share of the true volume: what the contract asks for
PLACE_TOLERANCE_MM = 2.0  # of a registration at 3 mm voxels
NAMES = ("lesion", "node")

# Centre (R, A, S in mm, in the body's own frame), class, and radius in mm at each of three times; 0: not there.
LESIONS = (
    ((30.4, 10.6, 0.8), 0, (10, 13, 16)),  # grows
    ((-35.3, 15.7, 20.6), 0, (14, 11, 8)),  # shrinks
    ((0.3, -25.6, -25.2), 0, (0, 8, 9)),  # appears
    ((-20.4, -20.7, 10.4), 0, (9, 9, 0)),  # vanishes
    ((12.6, 30.3, 25.7), 0, (8, 0, 8)),  # is missed once
    ((30.4, 10.7, 26.9), 1, (8, 8, 8)),  # of another class, near the one that grows
    ((48.3, -5.4, -30.6), 0, (8, 8, 8)),  # two of a kind, near each other
    ((30.2, -5.6, -30.9), 0, (7.5, 8, 9)),
)


def turned(degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> np.ndarray:
    """A rigid motion of the patient, ``(4, 4)``."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = (i for i in range(3) if i != axis)
        turn = np.eye(4)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    matrix[:3, 3] = shift_mm
    return matrix


MOTIONS = (np.eye(4), turned((4, -6, 9), (12, -8, 15)), turned((-5, 3, -8), (-10, 6, -20)))


@dataclass(frozen=True)
class Exam:
    scan: Volume
    result: CaseResult


def examine(t: int) -> Exam:
    """The patient at one time: a body with organs, drawn where it lies, its lesions as a perfect model finds them."""
    spacing, shape = np.array([2.5, 2.0, 2.0]), (60, 80, 90)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -spacing[2]], [0, -spacing[1], 0], [spacing[0], 0, 0]])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    grid = Grid(shape, affine)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    motion = np.linalg.inv(MOTIONS[t])
    body = grid.index_to_ras(index) @ motion[:3, :3].T + motion[:3, 3]
    values = np.full(shape, -1000.0)
    rng = np.random.default_rng(7)  # the same organs each time
    values[inside(body, (0, 0, 0), (70, 55, 200))] = 40
    for centre, radii, value in ORGANS:
        values[inside(body, centre, radii)] = value
    masks = []
    for centre, label, radii in LESIONS:
        if radii[t]:
            mask = inside(body, centre, (radii[t],) * 3)
            values[mask] = 90
            masks.append((label, mask))
    values += rng.normal(0, 8, shape)
    order = np.random.default_rng(t).permutation(len(masks))  # ids say nothing
    labels, crops = [masks[i][0] for i in order], [Mask((0, 0, 0), masks[i][1]).tight() for i in order]
    scores = np.linspace(0.99, 0.6, len(crops), dtype=np.float32)
    found = Instances.from_masks(grid, NAMES, labels, crops, scores=scores)
    scan = Volume(values.round().astype(np.int16)[None], grid, modality="CT")
    record = RunRecord("medmaskrcnn 0", "truth", "0" * 64, "CC0-1.0", "cpu", "fp32")
    return Exam(scan, CaseResult(found, 0.5, measure_instances(scan, found), record))


ORGANS = (
    ((-35, 10, 15), (30, 28, 35), 110.0),
    ((38, 12, 5), (22, 25, 28), 130.0),
    ((0, -38, 0), (14, 12, 200), 400.0),
    ((-28, -22, -30), (10, 14, 25), 160.0),
    ((28, -24, -25), (11, 13, 24), 170.0),
    ((5, 25, -40), (35, 20, 15), -60.0),
)


def inside(points: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    return (((points - np.array(centre)) / np.array(radii)) ** 2).sum(axis=-1) <= 1


@pytest.fixture(scope="module")
def exams() -> list[Exam]:
    return [examine(t) for t in range(3)]


@pytest.fixture(scope="module")
def followed(exams: list[Exam]):
    return compare([Examination(f"t{n}", exam.result, lambda e=exam: e.scan) for n, exam in enumerate(exams, start=1)])


@pytest.mark.slow
def test_scans_are_laid_over_one_another(followed):
    points, _ = followed
    for point, motion in zip(points[1:], MOTIONS[1:], strict=True):
        corners = np.array([[r, a, s] for r in (-50, 50) for a in (-40, 40) for s in (-60, 60)], dtype=float)
        moved = corners @ motion[:3, :3].T + motion[:3, 3]
        assert np.abs(point.alignment.to_fixed(moved) - corners).max() < PLACE_TOLERANCE_MM
        assert np.allclose(point.alignment.to_moving(point.alignment.to_fixed(moved)), moved)
        assert point.alignment.method == "rigid registration"
        assert point.alignment.correlation > 0.9
        assert not point.alignment.is_poor


def test_every_lesion_is_followed_and_its_change_is_the_true_one(followed):
    points, tracks = followed
    assert len(tracks) == len(LESIONS)
    for centre, label, radii in LESIONS:
        (track,) = (k for k in tracks if is_at(k, points, np.array(centre, dtype=float), NAMES[label]))
        for t, radius in enumerate(radii):
            sighting = track.sightings[t]
            assert (sighting is not None) == (radius > 0)
            if sighting is not None:
                true = 4 / 3 * np.pi * radius**3
                assert abs(sighting.measurement.volume_unit3 / true - 1) < VOLUME_TOLERANCE, (centre, t)


def is_at(track, points, centre: np.ndarray, name: str) -> bool:
    t = next(i for i, sighting in enumerate(track.sightings) if sighting is not None)
    place = points[t].alignment.to_fixed(np.array(track.sightings[t].measurement.centroid_ras))
    return bool(track.class_name == name and np.linalg.norm(place - centre) < 2 * PLACE_TOLERANCE_MM)


def test_states_tell_the_course(followed):
    _, tracks = followed
    courses = sorted(tuple(track.state(t) for t in range(3)) for track in tracks)
    assert courses == sorted(
        [("present",) * 3] * 5
        + [("absent", "new", "present"), ("present", "present", "vanished"), ("present", "vanished", "present")]
    )


def test_what_a_scan_does_not_reach_has_not_vanished(exams: list[Exam]):
    first, second = exams[0], exams[0]
    grid = second.scan.grid
    affine = grid.affine_vox_to_ras.copy()
    affine[:3, 3] += affine[:3, 0] * 35  # the upper slices alone
    short = Grid((grid.shape[0] - 35, *grid.shape[1:]), affine)
    none = second.result.candidates.select([])
    empty = CaseResult(replace(none, grid=short), 0.5, (), second.result.record)
    same = Alignment(np.eye(4), "frame of reference")
    tracks = follow([TimePoint("a", first.result, same), TimePoint("b", empty, same)])
    states = {track.state(1) for track in tracks}
    assert states == {"vanished", "not covered"} or states == {"not covered"}
    low = min(tracks, key=lambda k: k.sightings[0].measurement.centroid_ras[2])
    assert low.state(1) == "not covered"


def test_a_shared_frame_of_reference_needs_no_scan(exams: list[Exam]):
    framed = [replace(e.result, record=replace(e.result.record, source={"frame_of_reference_uid": "1.2"}))
              for e in (exams[0], exams[0])]  # fmt: skip

    def no_scan() -> Volume:
        raise AssertionError("nobody needs the scan")

    points, tracks = compare([Examination(str(n), result, no_scan) for n, result in enumerate(framed)])
    assert [point.alignment.method for point in points] == ["frame of reference"] * 2
    assert all(track.state(1) == "present" for track in tracks)


@pytest.mark.slow
def test_other_patients_are_doubted(exams: list[Exam]):
    rng = np.random.default_rng(0)
    noise = replace(exams[1].scan, array=rng.normal(0, 100, exams[1].scan.array.shape).astype(np.int16))
    assert align_rigidly(noise, exams[0].scan).is_poor


def test_pairs_are_the_best_in_sum_and_not_too_far():
    def exam(*centres: float) -> TimePoint:
        exam = examine_spheres(centres)
        return TimePoint("t", exam, Alignment(np.eye(4), "frame of reference"))

    # Nearest first would pair 10 with 12 and leave 0 and 24 alone; in sum 0-12 is too far, so 10-12, 24 is new.
    tracks = follow([exam(0.0, 10.0), exam(12.0, 24.0)], tolerance_mm=9.0)
    assert [tuple(s is not None for s in track.sightings) for track in tracks] == [
        (True, False), (True, True), (False, True),
    ]  # fmt: skip
    # With more tolerance both pairs are plausible and the order is kept.
    tracks = follow([exam(0.0, 10.0), exam(12.0, 24.0)], tolerance_mm=40.0)
    assert len(tracks) == 2


def examine_spheres(centres: tuple[float, ...]) -> CaseResult:
    grid = Grid((5, 5, 60), np.diag([1.0, 1.0, 1.0, 1.0]))
    n = len(centres)
    masks = [Mask((1, 1, int(c)), np.ones((3, 3, 3), bool)) for c in centres]
    found = Instances.from_masks(grid, NAMES, [0] * n, masks, scores=[0.9] * n)
    scan = Volume(np.zeros((1, 5, 5, 60), np.int16), grid)
    record = RunRecord("medmaskrcnn 0", "truth", "0" * 64, "CC0-1.0", "cpu", "fp32")
    return CaseResult(found, 0.5, measure_instances(scan, found), record)


def test_one_class_under_two_names_is_one_track():
    """The second result's model spells its class otherwise, a third one's has another word for it."""

    def exam(label: str, name: str) -> Examination:
        result = examine_spheres((10.0,))
        record = replace(result.record, source={"frame_of_reference_uid": "1.2"})
        found = replace(result.candidates, class_names=(name, "node"))
        return Examination(label, replace(result, candidates=found, record=record), lambda: pytest.fail("not needed"))

    exams = [exam("a", "lesion"), exam("b", "Lesion"), exam("c", "tumour")]
    _, (track,) = compare(exams, rename={"tumour": "lesion"}, classes=["LESION"])
    assert track.class_name == "lesion" and all(track.sightings)
    _, tracks = compare(exams)
    assert [t.class_name for t in tracks] == ["lesion", "tumour"]
    with pytest.raises(ValueError, match="brain"):
        compare(exams, rename={"brain": "lesion"})


@pytest.fixture
def on_disk(exams: list[Exam], tmp_path: Path) -> list[Path]:
    """Result folders as ``segment`` leaves them, scans beside them."""
    folders = []
    for n, exam in enumerate(exams[:2]):
        folder = tmp_path / f"r{n}"
        folder.mkdir()
        file = tmp_path / f"scan{n}.nii.gz"
        affine = exam.scan.grid.affine_vox_to_ras[:, [2, 1, 0, 3]]
        nib.save(nib.Nifti1Image(exam.scan.array[0].T, affine), file)
        volume = read_volume(file)
        found = replace(exam.result.candidates, grid=volume.grid)
        save_case(
            CaseResult(found, 0.5, measure_instances(volume, found), exam.result.record), folder / "instances.npz"
        )
        (folder / "run.json").write_text(json.dumps({"input_files": [str(file)]}))
        folders.append(folder)
    return folders


def test_the_command(on_disk: list[Path], tmp_path: Path):
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["followup", *map(str, on_disk), "-o", str(out), "--classes", "lesion"])
    assert done.exit_code == 0, done.output
    assert "rigid registration" in done.output
    document = json.loads((out / "changes.json").read_text())
    assert {lesion["class"] for lesion in document["lesions"]} == {"lesion"}
    rows = list(csv.DictReader((out / "changes.csv").open()))
    grown = max((r for r in rows if r["volume_change_percent"]), key=lambda r: float(r["volume_change_percent"]))
    assert abs(float(grown["volume_change_percent"]) - 100 * (13**3 / 10**3 - 1)) < 10
    before = (out / "changes.csv").read_bytes()
    CliRunner().invoke(app, ["followup", *map(str, on_disk), "-o", str(out), "--classes", "lesion"])
    assert (out / "changes.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (lambda args: args[:1], 2, "two time points or more"),
        (lambda args: [*args, "--classes", "brain"], 2, "brain"),
        (lambda args: [*args, "--rename", "brain=lesion"], 2, "brain"),
        (lambda args: [*args, "--label", "a", "--label", "a"], 2, "different labels"),
        (lambda args: [args[0], "nowhere"], 1, "is no result"),
        (lambda args: [*args, "--scan", args[0]], 2, "as many scans"),
    ],
)
def test_mistakes_are_told(change: Callable, code: int, told: str, on_disk: list[Path], tmp_path: Path):
    arguments = change([str(folder) for folder in on_disk])
    done = CliRunner().invoke(app, ["followup", *arguments, "-o", str(tmp_path / "out")])
    assert done.exit_code == code
    assert told in " ".join(done.output.split())


def test_a_scan_that_is_gone_is_told(on_disk: list[Path], tmp_path: Path):
    (tmp_path / "scan1.nii.gz").unlink()
    done = CliRunner().invoke(app, ["followup", *map(str, on_disk), "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "give --scan" in done.output


def test_another_scan_is_told(exams: list[Exam]):
    examinations = [
        Examination("a", exams[0].result, lambda: exams[0].scan),
        Examination("b", exams[1].result, lambda: replace(exams[1].scan, grid=Grid((60, 80, 90), np.eye(4)))),
    ]
    with pytest.raises(ReadError, match="not the one that its result was made from"):
        compare(examinations)
