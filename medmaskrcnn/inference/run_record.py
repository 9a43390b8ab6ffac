"""Record of a run: which model was used with which settings on which scan, and how long each stage took."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import torch

from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.models.runtime.precision import processor_features
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.case_result import RunRecord
from medmaskrcnn.structures.volume import ChannelSource, Volume
from medmaskrcnn.system.stage_timer import StageTimer
from medmaskrcnn.system.version import __version__


def build_run_record(
    loaded: LoadedModel,
    volume: Volume,
    *,
    options: SegmentOptions,
    score: float,
    warnings: tuple[str, ...],
) -> RunRecord:
    """Record everything that determines a result; it is identical if the run is repeated.

    Args:
        loaded: The model.
        volume: The scan.
        options: The options of the run.
        score: Score threshold 0..1 that was applied.
        warnings: Why the scan is out of the model's domain, sentences for the user; with any the result is stamped.
    """
    card, origin = loaded.settings.card, volume.provenance
    return RunRecord(
        software=f"medmaskrcnn {__version__}",
        model_name=card.name,
        model_sha256=loaded.sha256,
        model_licence=card.licence,
        device=loaded.device.type,
        precision=loaded.precision,
        settings={
            "score": score,
            "classes": list(loaded.settings.model.class_names if options.classes is None else options.classes),
            "inference": loaded.settings.inference.model_dump(mode="json"),
            **({} if loaded.network.compiled is None else {"engine": loaded.engine}),
            **({} if loaded.views == (1, 1) else {"networks": loaded.views[0], "views": loaded.views[1]}),
            **({"codes": {n: c.model_dump(mode="json") for n, c in card.codes.items()}} if card.codes else {}),
            **({} if options.region is None else {"region": [list(corner) for corner in options.region]}),
        },
        source={
            "format": origin.format,
            "modality": volume.modality,
            "study_uid": origin.study_uid,
            "series_uid": origin.series_uid,
            "frame_of_reference_uid": origin.frame_of_reference_uid,
            "sop_instance_uids": list(origin.sop_instance_uids),
            "generator": origin.generator,
            "notes": list(origin.notes),
            "reading": asdict(origin.policy),
            **({"channels": [_channel(one) for one in origin.channels]} if origin.channels else {}),
        },
        warnings=warnings,
        out_of_domain=bool(warnings),
    )


def _channel(source: ChannelSource) -> dict[str, Any]:
    """Where a channel comes from, without paths."""
    return {"name": source.name, "series_uid": source.series_uid, "resampled": source.resampled}


def runtime_info(timer: StageTimer, volume: Volume, loaded: LoadedModel) -> dict[str, Any]:
    """Where and how fast a run was: JSON-serialisable, different each time, with paths and the host name."""
    channels = volume.provenance.channels
    return {
        "seconds": {stage: round(seconds, 3) for stage, seconds in timer.seconds.items()},
        "precision": loaded.precision,
        "engine": loaded.engine,
        "processor": processor_features().get("cpu_name", platform.machine()),
        "host": platform.node(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "files": list(volume.provenance.files),
        **({"channel_files": {one.name: list(one.files) for one in channels}} if channels else {}),
    }
