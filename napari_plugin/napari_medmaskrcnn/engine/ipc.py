"""Messages between the viewer's process and the engine's: JSON, and arrays as their bytes. Nothing is unpickled.

A message is the length of its JSON (8 bytes), the JSON, then the bytes of each array that the JSON lists.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask, corners
from medmaskrcnn.structures.volume import Provenance, Volume
from napari_medmaskrcnn.engine.messages import Done, Failed, Job, JobProgress, OutlineJob, Ready, SegmentJob

Arrays = list[NDArray[Any]]
Message = Job | Ready | JobProgress | Failed | Done

_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 1 << 28
_PROVENANCE = TypeAdapter(Provenance)
_MEASUREMENTS = TypeAdapter(tuple[Measurement, ...])
_RECORD = TypeAdapter(RunRecord)
_SIMPLE = {kind.__name__: TypeAdapter(kind) for kind in (Ready, JobProgress, Failed)}


def send(stream: IO[bytes], message: Message) -> None:
    """Write a message and flush."""
    arrays: Arrays = []
    fields = _packed(message, arrays)
    listed = [{"dtype": a.dtype.str, "shape": a.shape} for a in arrays]
    header = json.dumps({"kind": type(message).__name__, "fields": fields, "arrays": listed}).encode()
    stream.write(_LENGTH.pack(len(header)))
    stream.write(header)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b"")
    stream.flush()


def receive(stream: IO[bytes]) -> Message:
    """Wait for a message.

    Raises:
        EOFError: if the other side is gone.
        ValueError: if what came is no message.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes is no message of ours")
    header = json.loads(bytes(_exactly(stream, length)))
    arrays = [
        np.frombuffer(_exactly(stream, math.prod(a["shape"]) * np.dtype(a["dtype"]).itemsize), a["dtype"]).reshape(
            a["shape"]
        )
        for a in header["arrays"]
    ]
    return _unpacked(header["kind"], header["fields"], arrays)


def _exactly(stream: IO[bytes], n: int) -> bytearray:
    """So many bytes; writable, so that the arrays made of them are."""
    found = bytearray(n)
    view, at = memoryview(found), 0
    while at < n:
        got = stream.readinto(view[at:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError("the other process is gone")
        at += got
    return found


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
        "measurements": [asdict(m) for m in case.measurements],
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
    arrays += [found.labels, found.scores, found.boxes, starts, *(mask.array for mask in found.masks)]
    return {"grid": _pack_grid(found.grid), "class_names": found.class_names, "n": len(found)}


def _unpack_instances(fields: dict[str, Any], arrays: Arrays) -> Instances:
    labels, scores, boxes, starts, *crops = arrays[: 4 + fields["n"]]
    del arrays[: 4 + fields["n"]]
    names = tuple(fields["class_names"])
    return Instances(_unpack_grid(fields["grid"]), names, labels, scores, boxes, tuple(map(Mask, starts, crops)))


def _pack_grid(grid: Grid) -> dict[str, Any]:
    return {"shape": grid.shape, "affine": grid.affine_vox_to_ras.tolist(), "spacing_known": grid.spacing_known}


def _unpack_grid(fields: dict[str, Any]) -> Grid:
    d, h, w = fields["shape"]
    return Grid((d, h, w), np.array(fields["affine"]), spacing_known=fields["spacing_known"])
