"""What does not fit into memory is refused before it is decoded, by every reader, and told as what it is."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io import guard
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.io.values import rescale

SHAPE = (40, 300, 400)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_ALWAYS_TRIED", 1 << 16)
    monkeypatch.setattr(guard, "available_bytes", lambda: 1 << 20)


def too_large(path: Path) -> None:
    with pytest.raises(ReadError, match="too large for this machine"):
        read_volume(path)


def test_volumes(tmp_path: Path, little_memory):
    voxels = np.zeros(SHAPE, np.int16)
    for name in ("a.nii", "a.nii.gz"):
        nib.save(nib.Nifti1Image(voxels.T, np.eye(4)), tmp_path / name)
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / name), useCompression=True)
    for path in sorted(tmp_path.iterdir()):
        too_large(path)


def test_a_compressed_volume_takes_its_size_once(tmp_path: Path):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16).T, np.eye(4)), path)
    read_volume(path)  # what is imported first is not counted
    tracemalloc.start()
    volume = read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.8 * volume.array.nbytes


def test_what_follows_the_voxels_is_not_read_without_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("medmaskrcnn.io.nifti._TAIL_BYTES", 1 << 12)
    raw = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(raw + bytes(100)))
    read_volume(path)
    path.write_bytes(gzip.compress(raw + bytes(1 << 24)))
    with pytest.raises(ReadError, match="more follows its voxels"):
        read_volume(path)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 3.0), (2.0, -1024.0), (1.0, 0.5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_values_in_pieces_are_those_of_one_piece(monkeypatch, dtype: type, slope: float, intercept: float):
    stored = (np.random.default_rng(0).normal(size=(1, 3, 5, 7)) * 90).astype(dtype)
    whole = rescale(stored, slope, intercept)
    monkeypatch.setattr("medmaskrcnn.io.values._PIECE", 4)
    pieces = rescale(stored, slope, intercept)
    assert pieces.dtype == whole.dtype
    np.testing.assert_array_equal(pieces, whole)
    np.testing.assert_allclose(whole, stored.astype(np.float64) * slope + intercept, rtol=1e-6)


def test_big_endian_and_colour(tmp_path: Path):
    values = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    image = nib.Nifti1Image(values.T, np.eye(4), nib.Nifti1Header(endianness=">"))
    image.header.set_data_dtype(">i2")
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.array.dtype == np.int16 and volume.array.dtype.isnative
    assert volume.array.ravel().tolist() == list(range(24))
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / "a.png")
    assert read_volume(tmp_path / "a.png").array.shape == (3, 1, 3, 4)
