"""Messages come out as they went in, over a pipe as it is: in pieces, and cut off."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.store import save_case
from medmaskrcnn.structures.volume import Provenance, ReadingPolicy, Volume
from napari_medmaskrcnn.engine.ipc import receive, send
from napari_medmaskrcnn.engine.messages import Done, Failed, JobProgress, OutlineJob, Ready, SegmentJob

SHAPE = (4, 10, 12)
BLOCKS = [("liver", 0.9, (0, 1, 1), (2, 5, 6)), ("tumour", 0.4, (1, 2, 2), (1, 2, 2))]


def through(*messages):
    pipe = io.BytesIO()
    for message in messages:
        send(pipe, message)
    pipe.seek(0)
    return [receive(pipe) for _ in messages]


def test_small_messages():
    sent = [Ready(("cuda", "cpu")), JobProgress("find", 0.25), Failed("too bad: Å", "line 3")]
    assert through(*sent) == sent


def test_a_job_and_its_scan(make_result):
    volume, _ = make_result(BLOCKS, SHAPE)
    policy = ReadingPolicy("by position", "positions", tilt_deg=3.5)
    origin = Provenance("DICOM", ("a", "b"), "1.2", "1.3", "1.4", ("1.5",), None, ("a note",), policy)
    full = replace(volume, array=volume.array[:, ::-1], window=(40.0, 400.0), provenance=origin)
    job = SegmentJob(
        full,
        "phantom-ct",
        SegmentOptions(
            device="cpu", engine="torch", classes=("liver",), region=((0, 1, 2), (3, 4, 5)), allow_out_of_domain=True
        ),
    )
    (got,) = through(job)
    assert isinstance(got, SegmentJob) and isinstance(got.volume, Volume)
    np.testing.assert_array_equal(got.volume.array, full.array)
    assert got.volume.array.dtype == np.int16 and got.volume.array.flags.writeable
    assert got.volume.grid == full.grid and got.volume.provenance == origin and got.volume.window == (40.0, 400.0)
    assert vars(replace(got, volume=None)) == vars(replace(job, volume=None))
    (box,) = through(OutlineJob(None, "m", (0.0, 1.5, 2.0, 3.0, 4.0, 5.0), "liver"))
    assert box.volume is None and box.box_vox == (0.0, 1.5, 2.0, 3.0, 4.0, 5.0) and box.class_name == "liver"


def test_answers(make_result, tmp_path):
    _, result = make_result(BLOCKS, SHAPE)
    result = replace(result, run={"seconds": {"find": 1.5}})
    case, instances, nothing = through(Done(result), Done(result.instances), Done(result.candidates.select([])))
    save_case(result, tmp_path / "a.npz")
    save_case(case.answer, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert case.answer.run == result.run and len(instances.answer) == 1 and len(nothing.answer) == 0
    assert instances.answer.masks[0].array.dtype == np.bool_


def test_a_pipe_that_breaks_off_and_one_that_talks_nonsense(make_result):
    pipe = io.BytesIO()
    send(pipe, SegmentJob(make_result(BLOCKS, SHAPE)[0], "m"))
    for length in (0, 5, 40, len(pipe.getvalue()) - 1):
        with pytest.raises(EOFError):
            receive(io.BytesIO(pipe.getvalue()[:length]))
    with pytest.raises(ValueError, match="no message of ours"):
        receive(io.BytesIO(b"\xff" * 64))
