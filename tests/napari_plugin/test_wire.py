"""Messages come out as they went in."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np

from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.store import save_case
from medmaskrcnn.structures.volume import Provenance, ReadingPolicy, Volume
from medmaskrcnn.system.child_process import Channel
from napari_medmaskrcnn.engine.ipc import receive, send
from napari_medmaskrcnn.engine.messages import Done, Failed, JobProgress, OutlineJob, Ready, SegmentJob

SHAPE = (4, 10, 12)
BLOCKS = [("liver", 0.9, (0, 1, 1), (2, 5, 6)), ("tumour", 0.4, (1, 2, 2), (1, 2, 2))]


def through(*messages):
    pipe = io.BytesIO()
    channel = Channel(pipe, pipe)
    for message in messages:
        send(channel, message)
    pipe.seek(0)
    return [receive(channel) for _ in messages]


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
    candidates = replace(result.candidates, removed=np.array([0, 2], np.uint8))
    result = replace(result, candidates=candidates, run={"seconds": {"find": 1.5}})
    case, instances, nothing = through(Done(result), Done(result.instances), Done(result.candidates.select([])))
    save_case(result, tmp_path / "a.npz")
    save_case(case.answer, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert case.answer.run == result.run and len(instances.answer) == 1 and len(nothing.answer) == 0
    assert instances.answer.masks[0].array.dtype == np.bool_
