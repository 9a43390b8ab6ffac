"""Checks whether a model may be run on a scan: refused, allowed and stamped, or suitable."""

from __future__ import annotations

import logging
from pathlib import Path

from medmaskrcnn.errors import Remedy, UnsuitableScanError
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, SegmentOptions
from medmaskrcnn.structures.volume import Volume

log = logging.getLogger(__name__)

_LOOKS_LIKE_CT = -100  # magnitudes of MR are not negative but by ringing of an interpolation; fat in CT is
_SAME_KIND = {"SM": ("SM", "GM")}
"""Modalities that a model of one of them takes: slide and general microscopy."""


def check_suitable(
    volume: Volume, settings: ModelFileSettings, options: SegmentOptions = AS_THE_MODEL_SAYS
) -> tuple[str, ...]:
    """Check whether a model may be run on a scan.

    Args:
        volume: The scan.
        settings: The model's settings.
        options: Only ``allow_out_of_domain`` is used.

    Returns:
        Warnings for the user, one sentence each, without paths, since they are written to the result. With any, the
        result is stamped.

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
    refused, stamped = reasons_by_header(volume, settings), reasons_by_values(volume, settings)
    if refused and not options.allow_out_of_domain:
        raise UnsuitableScanError(f"{name}: model {card.name} {refused[0]}", Remedy.ALLOW_OUT_OF_DOMAIN)
    warnings = tuple(f"OUT OF DOMAIN: model {card.name} {reason}" for reason in (*refused, *stamped))
    for warning in warnings:
        log.warning(warning)
    return warnings


def reasons_by_header(volume: Volume, settings: ModelFileSettings) -> list[str]:
    """Why a scan is of another kind than a model's, as far as its header tells.

    Args:
        volume: The scan.
        settings: The model's settings.

    Returns:
        Ends of sentences that begin with the model's name; none if nothing speaks against the scan.
    """
    card, reasons = settings.card, []
    if card.domain is not None and volume.provenance.generator != card.domain:
        reasons.append(f"knows only scans made by '{card.domain}', and this scan is none of them")
    if card.modality and volume.modality and volume.modality not in _SAME_KIND.get(card.modality, (card.modality,)):
        reasons.append(f"was made for {card.modality}, and this scan is {volume.modality}")
    return reasons


def reasons_by_values(volume: Volume, settings: ModelFileSettings) -> list[str]:
    """As :func:`reasons_by_header`, as far as the range of values tells where the header does not name a modality."""
    modality = settings.card.modality
    if volume.modality or modality not in ("MR", "CT"):
        return []
    lowest = volume.array.min()
    if modality == "MR" and lowest <= _LOOKS_LIKE_CT:
        return [f"was made for MR, and values down to {lowest:g} look like those of a CT"]
    if modality == "CT" and lowest >= 0:
        return [f"was made for CT, and values from {lowest:g} on are no Hounsfield units: air has negative ones"]
    return []


def _name(volume: Volume) -> str:
    files = volume.provenance.files
    if not files:
        return "this scan"
    return str(Path(files[0]).parent if len(files) > 1 else Path(files[0]))
