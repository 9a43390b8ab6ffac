"""``medmaskrcnn.batch``: the public function."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from medmaskrcnn.batch_runs.names import read_key
from medmaskrcnn.batch_runs.plan import BatchCase, BatchPlan
from medmaskrcnn.batch_runs.rules import Rules, read_rules
from medmaskrcnn.batch_runs.run import BatchRun
from medmaskrcnn.batch_runs.settings import Limits, Work
from medmaskrcnn.hub.model_file import model_sha256, read_model_settings, resolve_model
from medmaskrcnn.settings import FORMATS, OutputOptions, SegmentOptions
from medmaskrcnn.settings.segment_options import options_from


def batch(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    workers: int = 1,
    scheduler: str | None = None,
    rules: Rules | str | os.PathLike[str] | None = None,
    formats: Sequence[str] = FORMATS,
    score: float | None = None,
    classes: Sequence[str] | None = None,
    resample_irregular: bool = False,
    allow_out_of_domain: bool = False,
    suv: bool = False,
    track: bool = False,
    label_map_seg: bool = False,
    deidentify: bool = False,
    plain_names: bool = False,
    key_file: str | os.PathLike[str] | None = None,
    redo: bool = False,
    retry_failed: bool = False,
    fail_fast: bool = False,
    max_seconds: float | None = None,
    max_memory_mb: float | None = None,
) -> Iterator[BatchCase]:
    """Segment every series below some folders; yields each as it ends, and does only what an earlier call left.

    Args:
        sources: Files, folders, DICOMDIRs or zip archives.
        out: Folder for results, ledger and summary; not inside a source.
        model: Name of a shipped model, or a model file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; with several GPUs, one worker each.
        precision: As for :func:`medmaskrcnn.load_model`.
        engine: Likewise.
        workers: Processes of this machine.
        scheduler: Address of a Dask scheduler; then its workers do the work.
        rules: Which series; see :mod:`medmaskrcnn.batch_runs.rules`.
        formats: As :func:`medmaskrcnn.write_result`.
        score: Score threshold; the model's own by default.
        classes: Classes to report.
        resample_irregular: Interpolate even slices where a series has irregular ones.
        allow_out_of_domain: Run a model on scans that it was not made for.
        suv: Read PET as standardised uptake values by body weight (g/ml).
        track: Link instances along time in cine series.
        label_map_seg: DICOM SEG as LABELMAP where no two instances overlap.
        deidentify: No name, ID or date in DICOM files, hashed UIDs.
        plain_names: Folders named by patient's ID, date and description, not by pseudonyms.
        key_file: Key of the pseudonyms; a random one, kept in the ledger, by default.
        redo: Do all over, also what is done or was made with other settings.
        retry_failed: Try again what failed in an earlier call; what was refused stays so.
        fail_fast: End with the first series that fails or is refused.
        max_seconds: Time for one series.
        max_memory_mb: Resident memory of a worker.

    Raises:
        ReadError: if nothing among the sources can be segmented, or rules or key cannot be read.
        ModelFileError: if the model cannot be used.
        OutputError: if ``out`` is unfit, is in use by another run, holds results of other settings, or is full.
        InvalidOptionError: if an option is impossible; it is a ``ValueError`` and names the option.

    Example:
        >>> for case in medmaskrcnn.batch("archive/", "results", model="abdomen-mr"):  # doctest: +SKIP
        ...     print(case.status, case.folder.name, case.counts, case.progress.left)
    """
    many = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    file = resolve_model(model)
    options = options_from(
        None, SegmentOptions, device=device, precision=precision, engine=engine, score=score, classes=classes,
        resample_irregular=resample_irregular, allow_out_of_domain=allow_out_of_domain, suv=suv, track=track,
    )  # fmt: skip
    options.labels_among(read_model_settings(file).model.class_names)
    output = options_from(
        None, OutputOptions, formats=formats, label_map_seg=label_map_seg, deidentify=deidentify, paths_in_run=False
    )
    plan = BatchPlan(
        work=Work(str(file.resolve()), model_sha256(file), options, output),
        rules=rules if isinstance(rules, Rules) else read_rules(Path(rules)) if rules is not None else Rules(),
        limits=Limits(max_seconds, max_memory_mb),
        workers=workers,
        scheduler=scheduler,
        key=None if key_file is None else read_key(Path(key_file)),
        plain_names=plain_names,
        fail_fast=fail_fast,
    )
    with BatchRun(Path(out), plan) as run:
        run.scan_sources([Path(source) for source in many], redo=redo, retry_failed=retry_failed)
        yield from run.work()
