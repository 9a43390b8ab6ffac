"""Sequences of a case: names of files, grids, and what is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.nnunet_names import case_and_channel, files_of_case, group_cases
from medmaskrcnn.io.sequences import stack_sequences
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.volume import Provenance, Volume

AFFINE = np.array([[0, 0, -1.5, 4], [0, -1.5, 0, 5], [3.0, 0, 0, 6], [0, 0, 0, 1]])


def slope(grid: Grid) -> np.ndarray:
    """Values that are linear in space, which linear interpolation gives back exactly."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return (grid.index_to_ras(index) @ [1.0, 2.0, 3.0]).astype(np.float32)[None]


def scan(grid: Grid, name: str, **changes: object) -> Volume:
    volume = Volume(slope(grid), grid, modality="MR", provenance=Provenance(files=(name,), series_uid=name))
    return replace(volume, **changes)


def test_names_of_files() -> None:
    assert case_and_channel(Path("x/BRATS_001_0002.nii.gz")) == ("BRATS_001", 2)
    assert case_and_channel(Path("a_0000.mha")) == ("a", 0)
    for other in ("a_000.nii.gz", "a_0000", "_0000.nii", "._a_0000.nii.gz", "a_00000.nii.gz", "a.nii.gz"):
        assert case_and_channel(Path(other)) is None, other


def test_files_are_grouped_by_case_and_folder() -> None:
    files = [Path(f"{folder}/a_{channel}.nii.gz") for folder in "xy" for channel in ("0001", "0000")]
    assert group_cases([*files, Path("x/other.nii.gz")], 2) == {
        Path("x/a"): (Path("x/a_0000.nii.gz"), Path("x/a_0001.nii.gz")),
        Path("y/a"): (Path("y/a_0000.nii.gz"), Path("y/a_0001.nii.gz")),
    }
    with pytest.raises(ReadError, match=r"case x/a has the sequences _0001; the model wants _0000, _0001"):
        group_cases(files[:1], 2)
    with pytest.raises(ReadError, match=r"_0000, _0001; the model wants _0000, _0001, _0002"):
        group_cases(files, 3)
    with pytest.raises(ReadError, match="one channel of the case a"):
        group_cases([Path("a_0000.nii"), Path("a_0000.mha")], 1)


def test_a_path_means_its_case(tmp_path: Path) -> None:
    files = [tmp_path / f"a_{channel:04d}.nii.gz" for channel in range(2)]
    for file in files:
        file.touch()
    for path in (files[0], files[1], tmp_path / "a", tmp_path):
        assert files_of_case(path, 2) == tuple(files)
        assert files_of_case(path, 1) is None
    (tmp_path / "notes.txt").touch()
    assert files_of_case(tmp_path, 2) is None and files_of_case(tmp_path / "notes.txt", 2) is None
    assert files_of_case(tmp_path / "b", 2) is None


def test_sequences_of_one_grid_are_stacked_as_they_are() -> None:
    grid = Grid((4, 5, 6), AFFINE)
    second = scan(grid, "f")
    found = stack_sequences({"T1": scan(grid, "t"), "FLAIR": replace(second, array=second.array + 1)})
    assert found.channel_names == ("T1", "FLAIR") and found.modality == "MR"
    assert np.array_equal(found.array[0], slope(grid)[0]) and np.array_equal(found.array[1], slope(grid)[0] + 1)
    assert found.provenance.notes == ()
    assert [(one.name, one.files, one.resampled) for one in found.provenance.channels] == [
        ("T1", ("t",), False),
        ("FLAIR", ("f",), False),
    ]


def test_another_grid_is_resampled_and_told() -> None:
    first = Grid((6, 10, 12), AFFINE)
    turned = AFFINE[:, [2, 1, 0, 3]] @ np.diag([0.9, 1.1, 0.8, 1.0])  # other order of axes, other spacing
    turned[:3, 3] += [3.0, 3.0, -4.0]
    found = stack_sequences({"CT": scan(first, "c"), "PET": scan(Grid((30, 16, 12), turned), "p")})
    inside = (slice(1, -1),) * 3
    np.testing.assert_allclose(found.array[1][inside], slope(first)[0][inside], atol=1e-3)
    assert found.grid is first and found.provenance.channels[1].resampled
    assert "PET was resampled to the grid of CT" in found.provenance.notes[0]


def test_sequences_that_do_not_meet_are_refused() -> None:
    near, far = Grid((4, 5, 6), AFFINE), AFFINE.copy()
    far[:3, 3] += [0, 0, 500]
    with pytest.raises(ReadError, match="FLAIR covers 0% of sequence T1"):
        stack_sequences({"T1": scan(near, "t"), "FLAIR": scan(Grid((4, 5, 6), far), "f")})
    half = AFFINE.copy()
    half[2, 3] += 3.0
    found = stack_sequences({"T1": scan(near, "t"), "FLAIR": scan(Grid((4, 5, 6), half), "f")})
    assert "covers 75%" in found.provenance.notes[1] and found.array[1, 0].max() == slope(Grid((4, 5, 6), half)).min()


def test_geometry_is_not_guessed() -> None:
    flat = pixel_grid((1, 5, 6))
    same = Volume(np.ones((1, 1, 5, 6)), flat)
    assert stack_sequences({"a": same, "b": same}).array.shape == (2, 1, 5, 6)
    with pytest.raises(ReadError, match="no geometry that relates them"):
        stack_sequences({"a": same, "b": Volume(np.ones((1, 1, 5, 7)), pixel_grid((1, 5, 7)))})
    with pytest.raises(ReadError, match="sequence b holds 2 volumes"):
        stack_sequences({"a": same, "b": Volume(np.ones((2, 1, 5, 6)), flat)})


def test_other_frames_of_reference_are_told() -> None:
    grid, moved = Grid((4, 5, 6), AFFINE), AFFINE.copy()
    moved[0, 3] += 0.7
    parts = {
        name: scan(own, name, provenance=Provenance(frame_of_reference_uid=uid))
        for name, own, uid in (("a", grid, "1"), ("b", Grid((4, 5, 6), moved), "2"))
    }
    assert any("frames of reference" in note for note in stack_sequences(parts).provenance.notes)
