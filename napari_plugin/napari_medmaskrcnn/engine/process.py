"""The program that :mod:`.client` starts: it receives jobs and answers them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.hub.loaded_model import LoadedModel, load_as_asked
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.inference.segment_box import segment_box
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.child_process import channel_to_parent
from medmaskrcnn.system.memory import allow_retaining
from napari_medmaskrcnn.engine import ipc
from napari_medmaskrcnn.engine.messages import Done, Failed, Job, JobProgress, OutlineJob, Ready, SegmentJob

NICENESS = 5
"""The viewer has priority where both need the same core."""

_SMALLEST_TILE = 64


@dataclass
class Memory:
    """What is kept from job to job."""

    volume: Volume | None = None
    model: LoadedModel | None = None
    model_key: tuple[str, float, str, str, str] | None = None


def main() -> None:
    """Answer jobs until the pipe is closed."""
    allow_retaining()
    viewer = channel_to_parent()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    ipc.send(viewer, Ready(_devices()))
    memory = Memory()
    while True:
        try:
            job = ipc.receive(viewer)
        except EOFError:
            return
        if isinstance(job, (SegmentJob, OutlineJob)):
            ipc.send(viewer, answer(job, memory, lambda stage, share: ipc.send(viewer, JobProgress(stage, share))))


def answer(job: Job, memory: Memory, on_progress: Callable[[str, float], None]) -> Done | Failed:
    """Run a job; any error becomes a message."""
    try:
        memory.volume = job.volume if job.volume is not None else memory.volume
        if memory.volume is None:
            raise RuntimeError("the first job came without a scan")
        return Done(_do(replace(job, volume=memory.volume), memory, on_progress))
    except MedMaskRCNNError as error:
        return Failed(error.reason, remedy=error.remedy)
    except ValueError as error:
        return Failed(str(error))
    except torch.OutOfMemoryError:
        return Failed(
            "The GPU has too little memory, with the smallest tiles too. Choose the CPU, "
            "or close what else uses the GPU."
        )
    except MemoryError:
        return Failed("There is too little memory for this scan. Try a region of it, or close other programs.")
    except Exception as error:
        return Failed(f"Something unforeseen went wrong: {type(error).__name__}: {error}", traceback.format_exc())


def _do(job: Job, memory: Memory, on_progress: Callable[[str, float], None]) -> object:
    assert job.volume is not None
    on_progress("load model", 0.0)
    model = _model(job, memory)
    if isinstance(job, SegmentJob):
        return segment_in_memory(job, model, on_progress)
    return segment_box(job.volume, model, job.box_vox, job.class_name, job.options)


def segment_in_memory(job: SegmentJob, model: LoadedModel, on_progress: Callable[[str, float], None]) -> CaseResult:
    """Segment; if GPU memory runs out, retry with half the batch or tile size, which the result then records."""
    assert job.volume is not None
    warnings: tuple[str, ...] = ()
    while True:
        try:
            result = segment(job.volume, model, options=job.options, progress=on_progress)
        except torch.OutOfMemoryError:
            smaller = with_smaller_tiles(model)
            if smaller is None:
                raise
            model = smaller
            inference = model.settings.inference
            size = " x ".join(map(str, inference.tile))
            what = (
                f"tiles of {size}, {inference.tiles_per_batch}"
                if model.settings.model.spatial_dims == 3
                else f"{inference.slices_per_batch} slices"
            )
            warnings = (f"The GPU's memory was too small: done with {what} at a time, which may change what is found.",)
            torch.cuda.empty_cache()
            continue
        return replace(result, record=replace(result.record, warnings=(*result.record.warnings, *warnings)))


def with_smaller_tiles(model: LoadedModel) -> LoadedModel | None:
    """The same model with half the batch or tile size; ``None`` if both are as small as is sensible."""
    inference, in_tiles = model.settings.inference, model.settings.model.spatial_dims == 3
    batch = "tiles_per_batch" if in_tiles else "slices_per_batch"
    many: int = getattr(inference, batch)
    if many > 1:
        change: dict[str, object] = {batch: many // 2}
    elif in_tiles and max(inference.tile) > _SMALLEST_TILE:
        change = {"tile": tuple(min(n, max(_SMALLEST_TILE, n // 2)) for n in inference.tile)}
    else:
        return None
    settings = model.settings.model_copy(update={"inference": inference.model_copy(update=change)})
    return replace(model, settings=settings)


def _model(job: Job, memory: Memory) -> LoadedModel:
    """The model, from the last job if its file is still the same."""
    changed = 0.0
    with suppress(OSError):
        changed = os.path.getmtime(job.model)  # noqa: PTH204 - shipped models are names, not paths
    options = job.options
    key = (job.model, changed, options.device, options.precision, options.engine)
    if memory.model is None or memory.model_key != key:
        memory.model = load_as_asked(job.model, options)
        memory.model_key = key
    return memory.model


def _devices() -> tuple[str, ...]:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return tuple(name for name, there in present.items() if there)


if __name__ == "__main__":
    main()
