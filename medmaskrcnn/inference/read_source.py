"""The scan that ``segment`` was given: a path, an object in memory, or the sequences of a case in the model's order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from medmaskrcnn.errors import ReadError, Remedy
from medmaskrcnn.inference.track_time import read_scan, reading_options
from medmaskrcnn.io.discover import find_scans
from medmaskrcnn.io.memory import as_volume
from medmaskrcnn.io.nnunet_names import files_of_case
from medmaskrcnn.io.options import ReadingOptions
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.io.sequences import choose_sequence, stack_sequences
from medmaskrcnn.settings import ModelFileSettings, SegmentOptions
from medmaskrcnn.settings.channels import names_of, ordered
from medmaskrcnn.structures.volume import Volume


def read_source(
    source: Any,
    settings: ModelFileSettings,
    options: SegmentOptions,
    *,
    spacing_mm: Sequence[float] | None = None,
    affine: ArrayLike | None = None,
) -> Volume:
    """Read a scan, or the sequences of a case as channels.

    Args:
        source: A path (a file, a folder, a case by nnU-Net's names); a scan in memory; a dict from names of sequences
            to any of these; or a list of them in the model's order.
        settings: The model's settings, which name its channels.
        options: How to read.
        spacing_mm: Of an array alone, as for :func:`medmaskrcnn.as_volume`.
        affine: As ``spacing_mm``.

    Raises:
        ReadError: if something cannot be read, or sequences do not fit each other.
        UnsuitableScanError: if the sequences are not those that the model takes.
    """
    reading = reading_options(options)
    if spacing_mm is not None or affine is not None:
        return as_volume(source, spacing_mm=spacing_mm, affine=affine)
    if isinstance(source, str | os.PathLike):
        return _read_path(Path(source), settings, options)
    if not isinstance(source, Mapping) and _is_list_of_sequences(source):
        source = dict(zip(names_of(settings, len(source)), source, strict=True))
    if isinstance(source, Mapping):
        wanted = ordered(tuple(source), settings)
        return stack_sequences({name: _read_part(source[own], options, reading) for name, own in wanted.items()})
    return as_volume(source, series=options.series, options=reading)


def _read_path(path: Path, settings: ModelFileSettings, options: SegmentOptions) -> Volume:
    if options.channels:
        found = find_scans(path, merge_series=options.merge_series)
        reading = reading_options(options)
        values = dict(options.channels)
        chosen = {
            name: choose_sequence(path, found, values[own]) for name, own in ordered(tuple(values), settings).items()
        }
        if len({id(scan) for scan in chosen.values()}) < len(chosen):
            raise ReadError(f"{path}: one scan was chosen for several sequences", Remedy.GIVE_SEQUENCES)
        return stack_sequences({name: scan.read(reading) for name, scan in chosen.items()})
    files = files_of_case(path, settings.scan_channels)
    if files is None:
        return read_scan(path, options)
    return stack_sequences(dict(zip(names_of(settings, len(files)), map(read_volume, files), strict=True)))


def _read_part(source: Any, options: SegmentOptions, reading: ReadingOptions) -> Volume:
    if isinstance(source, str | os.PathLike):
        return read_volume(
            source,
            resample_irregular=options.resample_irregular,
            suv=options.suv,
            merge_series=options.merge_series,
            drop_duplicates=options.drop_duplicates,
        )
    return as_volume(source, options=reading)


def _is_list_of_sequences(source: Any) -> bool:
    """Whether this is a list of scans; a list of pydicom datasets is one scan."""
    if not isinstance(source, list | tuple) or not source:
        return False
    return not all(any(c.__module__.startswith("pydicom.") for c in type(one).__mro__) for one in source)


def arrange_channels(volume: Volume, settings: ModelFileSettings) -> Volume:
    """Bring named channels into the model's order; a volume without names is left as it is.

    Raises:
        UnsuitableScanError: if the names are not those of the model.
    """
    if not volume.channel_names or not settings.preprocess.channel_names:
        return volume
    wanted = [volume.channel_names.index(own) for own in ordered(volume.channel_names, settings).values()]
    if wanted == sorted(wanted):
        return volume
    return replace(volume, array=volume.array[wanted], channel_names=settings.preprocess.channel_names)
