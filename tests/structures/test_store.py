"""instances.npz: no loss, the same bytes for the same work, and no harm from damaged or hostile files."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmaskrcnn.errors import OutputError, ReadError
from medmaskrcnn.structures import store
from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances, Removal
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.store import load_case, save_case

finite = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | finite
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    centroid = draw(st.none() | st.tuples(finite, finite, finite))
    return Measurement(
        draw(st.sampled_from(["mm", "px"])),
        draw(finite),
        draw(maybe),
        draw(maybe),
        centroid,
        *draw(st.tuples(maybe, maybe, maybe)),
    )


@st.composite
def cases(draw: st.DrawFn) -> CaseResult:
    """Results of any size from nothing on, with masks that may overlap, touch the border or be empty."""
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    affine = np.eye(4)
    affine[:3, :3] += draw(st.floats(-0.4, 0.4)) * np.eye(3, k=1)
    affine[:3, 3] = draw(st.tuples(finite, finite, finite))
    n = draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = [Mask((0, 0, 0), rng.random(shape) < rng.choice([0.0, 0.02, 0.3, 1.0])).tight() for _ in range(n)]
    names = tuple(draw(st.lists(st.text(), min_size=1, max_size=3)))
    found = Instances(
        grid=Grid(shape, affine, spacing_known=draw(st.booleans())),
        class_names=names,
        labels=rng.integers(0, len(names), n),
        scores=np.sort(rng.random(n, dtype=np.float32))[::-1],
        boxes=rng.normal(size=(n, 6)).astype(np.float32),
        masks=tuple(masks),
        removed=rng.integers(0, draw(st.sampled_from([1, len(Removal)])), n).astype(np.uint8),
    )
    record = RunRecord(
        *draw(st.tuples(*[st.text()] * 6)),
        settings=draw(st.dictionaries(st.text(), json_values, max_size=3)),
        source=draw(st.dictionaries(st.text(), json_values, max_size=3)),
        warnings=tuple(draw(st.lists(st.text(), max_size=2))),
        out_of_domain=draw(st.booleans()),
    )
    figures = tuple(draw(measurements()) for _ in range(n))
    return CaseResult(found, draw(finite), figures, record, run={"host": draw(st.text())})


def assert_same(a: CaseResult, b: CaseResult) -> None:
    assert a.candidates.grid == b.candidates.grid
    assert a.candidates.class_names == b.candidates.class_names
    for name in ("labels", "scores", "boxes", "removed"):
        left, right = getattr(a.candidates, name), getattr(b.candidates, name)
        assert left.dtype == right.dtype and np.array_equal(left, right), name
    assert a.candidates.masks == b.candidates.masks
    assert (a.score_threshold, a.measurements, a.record) == (b.score_threshold, b.measurements, b.record)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_nothing_is_lost(case: CaseResult, tmp_path: Path) -> None:
    save_case(case, tmp_path / "instances.npz")
    back = load_case(tmp_path / "instances.npz")
    assert_same(case, back)
    assert back.run == {}


def small_case() -> CaseResult:
    """Two overlapping instances on a 4 x 5 x 6 grid, a third below the threshold, and one without voxels."""
    masks = (np.ones((2, 3, 3), bool), np.ones((1, 2, 2), bool), np.ones((1, 1, 1), bool), np.zeros((0, 0, 0), bool))
    found = Instances(
        grid=Grid((4, 5, 6), np.diag([3.0, 1.0, 1.0, 1.0])),
        class_names=("liver", "tumour"),
        labels=np.array([0, 1, 1, 0]),
        scores=np.array([0.9, 0.8, 0.1, 0.05], np.float32),
        boxes=np.zeros((4, 6), np.float32),
        masks=tuple(map(Mask, ((0, 0, 0), (1, 1, 1), (3, 4, 5), (0, 0, 0)), masks)),
    )
    figure = Measurement("mm", 1.5, 2.0, 1.0, (0.1, 0.2, 0.3), 40.0, -3.0, 90.0)
    nothing = Measurement("mm", 0.0, None, None, None, None, None, None)
    record = RunRecord("medmaskrcnn 0.1.0", "m", "0" * 64, "Apache-2.0", "cpu", "fp32", {"b": 1, "a": [1, 2]})
    return CaseResult(found, 0.5, (figure, figure, figure, nothing), record, run={"host": "ward-7", "seconds": 3.2})


def test_same_work_is_the_same_bytes(tmp_path: Path) -> None:
    case = small_case()
    save_case(case, tmp_path / "a.npz")
    reordered = replace(case.record, settings={"a": [1, 2], "b": 1})
    save_case(replace(case, record=reordered, run={"host": "elsewhere", "seconds": 9.9}), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {(info.date_time, info.create_system) for info in archive.infolist()} == {((1980, 1, 1, 0, 0, 0), 3)}


def test_run_is_not_in_the_file(tmp_path: Path) -> None:
    save_case(small_case(), tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert all(b"ward-7" not in archive.read(name) for name in archive.namelist())


def test_numpy_reads_it_without_pickle(tmp_path: Path) -> None:
    save_case(small_case(), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        assert json.loads(data["header"].tobytes())["format"] == "medmaskrcnn case"
        # 2*3*3 = 18 voxels in 3 bytes, 4 in one, 1 in one, none
        assert data["mask_bits"].tolist() == [255, 255, 0b11000000, 0b11110000, 0b10000000]


def test_without_removed_candidates_the_file_is_as_it_was_before_there_were_any(tmp_path: Path) -> None:
    case = small_case()
    removed = replace(case, candidates=replace(case.candidates, removed=np.array([0, 1, 0, 2], np.uint8)))
    for name, one in (("plain", case), ("removed", removed)):
        save_case(one, tmp_path / f"{name}.npz")
    with np.load(tmp_path / "plain.npz") as plain, np.load(tmp_path / "removed.npz") as other:
        assert {*other.files} - {*plain.files} == {"removed"} and other["removed"].tolist() == [0, 1, 0, 2]
        assert all(plain[name].tobytes() == other[name].tobytes() for name in plain.files)
    rewrite(tmp_path / "removed.npz", removed=np.array([0, 1, 0, 9], np.uint8))
    with pytest.raises(ReadError, match="is damaged: removed must lie in"):
        load_case(tmp_path / "removed.npz")


def test_numpy_numbers_in_the_record_are_kept(tmp_path: Path) -> None:
    case = small_case()
    save_case(replace(case, record=replace(case.record, settings={"score": np.float64(0.25)})), tmp_path / "a.npz")
    assert load_case(tmp_path / "a.npz").record.settings == {"score": 0.25}


def test_unsaveable_record_is_told(tmp_path: Path) -> None:
    case = small_case()
    with pytest.raises(TypeError, match="must hold JSON values"):
        save_case(replace(case, record=replace(case.record, settings={"at": Path("x")})), tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*No such file"):
        save_case(small_case(), tmp_path / "none" / "a.npz")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a.npz").write_bytes(b"earlier")
    monkeypatch.setattr(store, "_write_zip", full)
    with pytest.raises(OutputError, match="No space left"):
        save_case(small_case(), tmp_path / "a.npz")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.npz", b"earlier")]


def rewrite(path: Path, **entries: Any) -> None:
    """Replace entries of a saved case; an array is stored as npy, bytes as they are, None drops the entry."""
    with zipfile.ZipFile(path) as archive:
        held: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
    for name, value in entries.items():
        held[f"{name}.npy"] = value
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in held.items():
            if isinstance(value, np.ndarray):
                stream = io.BytesIO()
                np.save(stream, value)
                value = stream.getvalue()
            if value is not None:
                archive.writestr(name, value)


def header_of(path: Path, **changes: Any) -> np.ndarray:
    with np.load(path) as data:
        header = json.loads(data["header"].tobytes())
    return np.frombuffer(json.dumps({**header, **changes}).encode(), np.uint8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_case(small_case(), tmp_path / "instances.npz")
    return tmp_path / "instances.npz"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="there is no file"):
        load_case(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(40)])
def test_foreign_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ReadError, match="not a medmaskrcnn result"):
        load_case(tmp_path / "x.npz")


def test_foreign_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", header=np.frombuffer(b'{"format": "other"}', np.uint8))
    with pytest.raises(ReadError, match="does not say"):
        load_case(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", a=np.zeros(3))
    with pytest.raises(ReadError, match="no header"):
        load_case(tmp_path / "y.npz")


def test_pickles_are_refused(saved: Path) -> None:
    rewrite(saved, labels=np.array([{"a": 1}] * 4, dtype=object))
    with pytest.raises(ReadError, match="damaged"):
        load_case(saved)


def test_newer_version(saved: Path) -> None:
    rewrite(saved, header=header_of(saved, version=2))
    with pytest.raises(ReadError, match="newer medmaskrcnn"):
        load_case(saved)


def test_every_truncation_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(0, len(whole), 97):
        saved.write_bytes(whole[:length])
        with pytest.raises(ReadError):
            load_case(saved)


def test_flipped_bytes_never_pass_for_something_else(saved: Path) -> None:
    whole, case = saved.read_bytes(), small_case()
    for position in range(0, len(whole), 7):
        saved.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        with suppress(ReadError):  # what loads in spite of it, a byte of a date for instance, is unharmed
            assert_same(case, load_case(saved))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", np.zeros(3, np.int64), "labels must be"),
        ("labels", np.full(4, 7), "labels must lie in 0..1"),
        ("scores", np.zeros(4), "scores must be <f4"),
        ("affine", np.zeros((4, 4)), "affine"),
        ("grid_shape", np.array([4, 5, 2]), "leave"),
        ("mask_shapes", np.full((4, 3), -1), "leave"),
        ("mask_bits", np.zeros(4, np.uint8), "mask_bits must be"),
        ("extra", np.zeros(1), "should hold"),
        ("boxes", None, "should hold"),
    ],
)
def test_inconsistent_entries(saved: Path, name: str, value: Any, message: str) -> None:
    rewrite(saved, **{name: value})
    with pytest.raises(ReadError, match=message):
        load_case(saved)


@pytest.mark.parametrize("change", [{"surprise": 1}, {"measurements": []}, {"record": {}}, {"class_names": "liver"}])
def test_inconsistent_header(saved: Path, change: dict[str, Any]) -> None:
    rewrite(saved, header=header_of(saved, **change))
    with pytest.raises(ReadError):
        load_case(saved)


def test_a_bomb_is_refused_before_it_is_unpacked(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = np.tile(np.array([[10**4, 10**4, 10**4]]), (4, 1))
    rewrite(saved, grid_shape=np.array([10**4] * 3), mask_starts=np.zeros((4, 3), np.int64), mask_shapes=claim)
    rle_from_string: list[object] = []
    monkeypatch.setattr(np, "unpackbits", rle_from_string.append)
    with pytest.raises(ReadError, match="4000000000000 voxels, more than"):
        load_case(saved)
    assert rle_from_string == []


def test_the_limit_may_be_raised_and_lowered(saved: Path) -> None:
    assert len(load_case(saved, max_mask_voxels=23).candidates) == 4
    with pytest.raises(ReadError, match="raise max_mask_voxels"):
        load_case(saved, max_mask_voxels=22)


def test_large_header_claim(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_HEADER_BYTES", 100)
    with pytest.raises(ReadError, match="claims a header"):
        load_case(saved)
