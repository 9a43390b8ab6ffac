"""Messages between the viewer and the engine process, as JSON fields and arrays."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask, corners
from medmaskrcnn.structures.store import MEASUREMENT
from medmaskrcnn.structures.volume import Provenance, Volume
from medmaskrcnn.system.child_process import Arrays, Channel
from napari_medmaskrcnn.engine.messages import Done, Failed, Job, JobProgress, OutlineJob, Ready, SegmentJob

Message = Job | Ready | JobProgress | Failed | Done

_PROVENANCE = TypeAdapter(Provenance)
_MEASUREMENTS = TypeAdapter(tuple[Measurement, ...])
_RECORD = TypeAdapter(RunRecord)
_SIMPLE = {kind.__name__: TypeAdapter(kind) for kind in (Ready, JobProgress, Failed)}


def send(channel: Channel, message: Message) -> None:
    """Send a message; raises the errors of :meth:`Channel.send`."""
    arrays: Arrays = []
    fields = _packed(message, arrays)
    channel.send({"kind": type(message).__name__, "fields": fields}, arrays)


def receive(channel: Channel) -> Message:
    """Wait for a message; raises the errors of :meth:`Channel.receive`."""
    header, arrays = channel.receive()
    return _unpacked(header["kind"], header["fields"], arrays)


def _packed(message: Message, arrays: Arrays) -> dict[str, Any]:
    if isinstance(message, (SegmentJob, OutlineJob)):
        own = {"options": message.options.model_dump(mode="json"), "volume": _pack_volume(message.volume, arrays)}
        return {**vars(message), **own}
    if isinstance(message, Done):
        answer = message.answer
        if isinstance(answer, CaseResult):
            return {"case": _pack_case(answer, arrays)}
        return {"instances": _pack_instances(answer, arrays)}
    return asdict(message)


def _unpacked(kind: str, fields: dict[str, Any], arrays: Arrays) -> Message:
    if kind in _SIMPLE:
        return _SIMPLE[kind].validate_python(fields)  # type: ignore[return-value]
    if kind == Done.__name__:
        if "case" in fields:
            return Done(_unpack_case(fields["case"], arrays))
        return Done(_unpack_instances(fields["instances"], arrays))
    volume = _unpack_volume(fields["volume"], arrays)
    options = SegmentOptions.model_validate(fields["options"])
    if kind == SegmentJob.__name__:
        return SegmentJob(volume, fields["model"], options)
    return OutlineJob(volume, fields["model"], tuple(fields["box_vox"]), fields["class_name"], options)


def _pack_volume(volume: Volume | None, arrays: Arrays) -> dict[str, Any] | None:
    if volume is None:
        return None
    arrays.append(volume.array)
    own = {"modality": volume.modality, "channel_kind": volume.channel_kind, "window": volume.window}
    return {"grid": _pack_grid(volume.grid), "provenance": asdict(volume.provenance), **own}


def _unpack_volume(fields: dict[str, Any] | None, arrays: Arrays) -> Volume | None:
    if fields is None:
        return None
    window = fields["window"]
    return Volume(
        arrays.pop(0),
        _unpack_grid(fields["grid"]),
        modality=fields["modality"],
        channel_kind=fields["channel_kind"],
        window=None if window is None else (window[0], window[1]),
        provenance=_PROVENANCE.validate_python(fields["provenance"]),
    )


def _pack_case(case: CaseResult, arrays: Arrays) -> dict[str, Any]:
    return {
        "candidates": _pack_instances(case.candidates, arrays),
        "score_threshold": case.score_threshold,
        "measurements": [MEASUREMENT.dump_python(m, by_alias=True) for m in case.measurements],
        "record": asdict(case.record),
        "run": case.run,
    }


def _unpack_case(fields: dict[str, Any], arrays: Arrays) -> CaseResult:
    return CaseResult(
        _unpack_instances(fields["candidates"], arrays),
        fields["score_threshold"],
        _MEASUREMENTS.validate_python(fields["measurements"]),
        _RECORD.validate_python(fields["record"]),
        fields["run"],
    )


def _pack_instances(found: Any, arrays: Arrays) -> dict[str, Any]:
    starts, _ = corners(found.masks)
    arrays += [found.labels, found.scores, found.boxes, found.removed, starts, *(mask.array for mask in found.masks)]
    return {"grid": _pack_grid(found.grid), "class_names": found.class_names, "n": len(found)}


def _unpack_instances(fields: dict[str, Any], arrays: Arrays) -> Instances:
    labels, scores, boxes, removed, starts, *crops = arrays[: 5 + fields["n"]]
    del arrays[: 5 + fields["n"]]
    names = tuple(fields["class_names"])
    masks = tuple(map(Mask, starts, crops))
    return Instances(_unpack_grid(fields["grid"]), names, labels, scores, boxes, masks, removed)


def _pack_grid(grid: Grid) -> dict[str, Any]:
    return {"shape": grid.shape, "affine": grid.affine_vox_to_ras.tolist(), "spacing_known": grid.spacing_known}


def _unpack_grid(fields: dict[str, Any]) -> Grid:
    d, h, w = fields["shape"]
    return Grid((d, h, w), np.array(fields["affine"]), spacing_known=fields["spacing_known"])
