"""The process that networks run in: the library's answers, ended at once, failures in words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.hub.model_file import shipped_models
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.store import save_case
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, Provenance, Volume
from napari_medmaskrcnn.engine import client as engine_module
from napari_medmaskrcnn.engine import ipc
from napari_medmaskrcnn.engine.client import Cancelled, Engine, JobFailed
from napari_medmaskrcnn.engine.messages import Failed, JobProgress, OutlineJob, SegmentJob
from napari_medmaskrcnn.engine.worker import time_left, whole_share


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine()
    made.warm_up()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def block() -> Volume:
    """A small CT with two bright balls, which the phantom's model looks at in under a second."""
    grid = Grid((24, 48, 48), np.array([[0, 0, -1.5, 0], [0, -1.5, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]]))
    where = np.indices(grid.shape)
    array = np.full(grid.shape, -60, np.int16)
    for centre, hu in (((12, 14, 14), 120), ((12, 34, 34), 60)):
        away = sum((w - c) ** 2 for w, c in zip(where, centre, strict=True))
        array[away < 64] = hu
    return Volume(array[None], grid, modality="CT", provenance=Provenance(generator=PHANTOM_GENERATOR))


def ignore(_: JobProgress) -> None:
    pass


def test_its_answers_are_the_library_s(engine: Engine, block: Volume, tmp_path: Path):
    import medmaskrcnn

    told: list[JobProgress] = []
    ours = engine.run(SegmentJob(block, "phantom-ct", SegmentOptions(device="cpu")), told.append)
    save_case(ours, tmp_path / "ours.npz")
    save_case(medmaskrcnn.segment(block, "phantom-ct", device="cpu"), tmp_path / "theirs.npz")
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "theirs.npz").read_bytes()
    assert [p.stage for p in told if p.share == 0] == ["load model", "read", "prepare", "find", "measure"]
    assert "cpu" in engine.devices
    shares = [whole_share(p) for p in told]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)


def test_a_scan_is_sent_once_and_a_box_outlined(engine: Engine, block: Volume, monkeypatch):
    engine.run(SegmentJob(block, "phantom-ct"), ignore)
    sent: list[object] = []
    send = ipc.send

    def watched(stream, job):
        sent.append(job.volume)
        send(stream, job)

    monkeypatch.setattr(ipc, "send", watched)
    found = engine.run(OutlineJob(block, "phantom-ct", (5, 5, 5, 20, 24, 24), "tumour"), ignore)
    engine.run(OutlineJob(replace(block), "phantom-ct", (5, 5, 5, 20, 24, 24), "tumour"), ignore)
    assert sent[0] is None and sent[1] is not None
    assert len(found) == 1 and found.grid == block.grid and found.scores[0] == 1


def test_what_fails_is_said_and_the_next_job_runs(engine: Engine, block: Volume, tmp_path: Path):
    real = replace(block, provenance=Provenance())
    with pytest.raises(JobFailed, match="knows only scans made by 'medmaskrcnn phantom'") as failed:
        engine.run(SegmentJob(real, "phantom-ct"), ignore)
    assert failed.value.details == ""
    assert "tick 'Allow scans outside the model's domain'" in str(failed.value) and "--" not in str(failed.value)
    damaged = tmp_path / "damaged.safetensors"
    content = bytearray(shipped_models()["phantom-ct"].read_bytes())
    content[-1000] ^= 0xFF
    damaged.write_bytes(content)
    with pytest.raises(JobFailed, match="damaged"):
        engine.run(SegmentJob(block, str(damaged)), ignore)
    colour = replace(block, array=np.repeat(block.array, 3, axis=0), channel_kind="colour")
    with pytest.raises(JobFailed, match="holds 3 colours, model phantom-ct wants 1"):
        engine.run(SegmentJob(colour, "phantom-ct"), ignore)
    with pytest.raises(JobFailed, match="was made for MR, and this scan is CT"):
        engine.run(SegmentJob(block, "abdomen-mr"), ignore)
    with_it = SegmentJob(block, "abdomen-mr", SegmentOptions(allow_out_of_domain=True))
    assert engine.run(with_it, ignore).record.out_of_domain


def test_it_is_ended_while_it_works(block: Volume):
    engine = Engine()
    ended: list[BaseException] = []
    working = threading.Event()

    def run() -> None:
        try:
            engine.run(SegmentJob(block, "phantom-ct"), lambda p: working.set())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert working.wait(120)
    pid = engine.pid
    assert pid is not None
    engine.stop()
    thread.join(5)
    assert not thread.is_alive() and isinstance(ended[0], Cancelled)
    assert engine.pid is None and not Path(f"/proc/{pid}").exists()


def test_a_process_that_dies_is_told_with_what_to_do(block: Volume, tmp_path: Path, monkeypatch):
    (tmp_path / "ends_at_once.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(engine_module, "MODULE", "ends_at_once")
    with pytest.raises(JobFailed, match="ended with code 7"):
        Engine().run(SegmentJob(block, "phantom-ct"), ignore)
    assert "lack of memory" in engine_module._death_message(-9)


def test_too_little_gpu_memory_means_smaller_tiles_and_the_result_says_so(monkeypatch, block: Volume):
    import torch

    from medmaskrcnn.hub.loaded_model import load_model
    from medmaskrcnn.inference.pipeline import segment
    from napari_medmaskrcnn.engine import process as engine_process

    model = load_model("phantom-ct", device="cpu")
    tried: list[tuple[int, ...]] = []

    def short_of_memory(volume, loaded, **what):
        tried.append(loaded.settings.inference.tile)
        if max(tried[-1]) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return segment(volume, loaded, **what)

    monkeypatch.setattr(engine_process, "segment", short_of_memory)
    result = engine_process.segment_in_memory(SegmentJob(block, "phantom-ct"), model, lambda *_: None)
    assert tried == [(160, 256, 256), (80, 128, 128), (64, 64, 64)]
    assert "tiles of 64 x 64 x 64" in result.record.warnings[-1]
    assert result.record.settings["inference"]["tile"] == [64, 64, 64]

    def never(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine_process, "segment", never)
    memory = engine_process.Memory()
    failed = engine_process.answer(
        SegmentJob(block, "phantom-ct", SegmentOptions(device="cpu")), memory, lambda *_: None
    )
    assert isinstance(failed, Failed) and "too little memory, with the smallest tiles too" in failed.message


def test_what_is_unforeseen_comes_with_its_traceback():
    from napari_medmaskrcnn.engine import process as engine_process

    failed = engine_process.answer(SegmentJob(None, "phantom-ct"), engine_process.Memory(), lambda *_: None)
    assert isinstance(failed, Failed) and "RuntimeError" in failed.message and "Traceback" in failed.details


def test_time_left_is_a_guess_in_words():
    assert time_left(1.0, 0.5) == time_left(30, 0.1) == ""
    assert time_left(10, 0.5) == "about 10 s left"
    assert time_left(300, 0.5) == "about 5 min left"
