"""Checks whether a model may be run on a scan: refused, allowed with a warning, or suitable."""

from __future__ import annotations

import logging
from pathlib import Path

from medmaskrcnn.errors import Remedy, UnsuitableScanError
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, SegmentOptions
from medmaskrcnn.structures.volume import Volume

log = logging.getLogger(__name__)

_LOOKS_LIKE_CT = -900  # a scan with values this low contains air in Hounsfield units


def check_suitable(
    volume: Volume, settings: ModelFileSettings, options: SegmentOptions = AS_THE_MODEL_SAYS
) -> tuple[str, ...]:
    """Check whether a model may be run on a scan.

    Args:
        volume: The scan.
        settings: The model's settings.
        options: Only ``allow_out_of_domain`` is used.

    Returns:
        Warnings for the user, one sentence each, without paths, since they are written to the result.

    Raises:
        UnsuitableScanError: if the model cannot run on the scan, or the scan is out of its domain and not allowed.
    """
    card, preprocess = settings.card, settings.preprocess
    name = _name(volume)
    channels, names = settings.scan_channels, preprocess.channel_names
    if volume.array.shape[0] != channels:
        held = "colours" if volume.channel_kind == "colour" else "volumes (time points, echoes or channels)"
        wanted = f"{channels} ({', '.join(names)})" if names else str(channels)
        raise UnsuitableScanError(
            f"{name} holds {volume.array.shape[0]} {held}, model {card.name} wants {wanted}",
            Remedy.GIVE_ONE_VOLUME if channels == 1 else Remedy.GIVE_SEQUENCES,
        )
    if volume.spacing_mm is None and any(preprocess.spacing_mm):
        raise UnsuitableScanError(f"{name} does not tell the size of its pixels, which model {card.name} needs")
    if volume.is_planar and settings.model.spatial_dims == 3:
        raise UnsuitableScanError(f"{name} is a single slice, model {card.name} works on volumes")
    if volume.film is not None and settings.model.spatial_dims == 3:
        raise UnsuitableScanError(
            f"{name} is a film, model {card.name} works on volumes: instances can be linked along time by models of "
            "slices alone"
        )
    warnings = []
    if is_out_of_domain(volume, settings):
        if not options.allow_out_of_domain:
            raise UnsuitableScanError(
                f"model {card.name} knows only scans made by '{card.domain}' and {name} is none of them",
                Remedy.ALLOW_OUT_OF_DOMAIN,
            )
        warnings.append(f"OUT OF DOMAIN: model {card.name} knows only scans made by '{card.domain}'")
    if card.modality and volume.modality and card.modality != volume.modality:
        warnings.append(f"model {card.name} was made for {card.modality}, but this scan is {volume.modality}")
    elif card.modality == "MR" and not volume.modality and volume.array.min() <= _LOOKS_LIKE_CT:
        warnings.append(f"model {card.name} was made for MR, but this scan's values look like those of a CT")
    for warning in warnings:
        log.warning(warning)
    return tuple(warnings)


def is_out_of_domain(volume: Volume, settings: ModelFileSettings) -> bool:
    """Whether a model trained only on scans of one generator is given another scan."""
    domain = settings.card.domain
    return domain is not None and volume.provenance.generator != domain


def _name(volume: Volume) -> str:
    files = volume.provenance.files
    if not files:
        return "this scan"
    return str(Path(files[0]).parent if len(files) > 1 else Path(files[0]))
