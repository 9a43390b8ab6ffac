"""The public function ``medmaskrcnn.batch``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medmaskrcnn.batch_runs.names import read_key
from medmaskrcnn.batch_runs.plan import BatchCase, BatchPlan
from medmaskrcnn.batch_runs.rules import Rules, read_rules
from medmaskrcnn.batch_runs.run import BatchRun
from medmaskrcnn.batch_runs.settings import ClusterTls, Limits, Work
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
    cluster_tls: ClusterTls | None = None,
    rules: Rules | str | os.PathLike[str] | None = None,
    formats: Sequence[str] = FORMATS,
    score: float | None = None,
    classes: Sequence[str] | None = None,
    resample_irregular: bool = False,
    allow_out_of_domain: bool = False,
    suv: bool = False,
    channels: Mapping[str, str] | None = None,
    track: bool = False,
    merge_series: bool = False,
    drop_duplicates: bool = False,
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
    """Segment every series in some folders, yield each when it ends, and skip what an earlier call has done.

    Args:
        sources: Files, folders, DICOMDIRs or zip archives.
        out: Folder for results, ledger and summary; it must not lie inside a source.
        model: Name of a shipped model, or a model file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; workers are distributed over the GPUs.
        precision: As for :func:`medmaskrcnn.load_model`.
        engine: As for :func:`medmaskrcnn.load_model`.
        workers: Number of worker processes on this machine.
        scheduler: Address of a Dask scheduler whose workers are used instead; ``docs/security.md`` says whom it trusts.
        cluster_tls: Certificates for a scheduler at ``tls://...``.
        rules: Which series to segment; see :mod:`medmaskrcnn.batch_runs.rules`.
        formats: As for :func:`medmaskrcnn.write_result`.
        score: Score threshold; the model's default if ``None``.
        classes: Classes to report.
        resample_irregular: Resample series with irregular slice spacing to even spacing.
        allow_out_of_domain: Also segment scans outside the model's domain.
        suv: Read PET as standardised uptake values by body weight (g/ml).
        channels: For a model of several sequences: the name of each and a pattern of its series' description or file
            name, ``{"T1": "*t1*", "FLAIR": "*flair*"}``; a case is a study, or a folder of files. Files by nnU-Net's
            names (``CASE_0000``, ``CASE_0001``) need no patterns.
        track: Link instances along time in cine series.
        merge_series: As for :func:`medmaskrcnn.read_volume`.
        drop_duplicates: As for :func:`medmaskrcnn.read_volume`.
        label_map_seg: Write the DICOM SEG as LABELMAP if no two instances overlap.
        deidentify: Write no name, ID or date into DICOM files, and hash the UIDs.
        plain_names: Name folders by patient ID, study date and description instead of pseudonyms.
        key_file: File with the key of the pseudonyms; by default a random key, kept in the ledger.
        redo: Segment everything again, including what is done or was made with other settings.
        retry_failed: Try series again that failed in an earlier call; refused series stay refused.
        fail_fast: Stop after the first series that fails or is refused.
        max_seconds: Time limit for one series.
        max_memory_mb: Limit on the resident memory of a worker, in MiB.

    Raises:
        ReadError: if the sources hold nothing that can be segmented, or the rules or key cannot be read.
        ModelFileError: if the model cannot be used.
        OutputError: if ``out`` cannot be used, is in use by another run, holds results of other settings, or is full.
        InvalidOptionError: if an option is invalid; it is a ``ValueError`` and names the option.

    Example:
        >>> for case in medmaskrcnn.batch("archive/", "results", model="abdomen-mr"):  # doctest: +SKIP
        ...     print(case.status, case.folder.name, case.counts, case.progress.left)
    """
    many = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    file = resolve_model(model)
    options = options_from(
        None, SegmentOptions, device=device, precision=precision, engine=engine, score=score, classes=classes,
        resample_irregular=resample_irregular, allow_out_of_domain=allow_out_of_domain, suv=suv, track=track,
        channels=channels or (), merge_series=merge_series, drop_duplicates=drop_duplicates,
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
        cluster_tls=cluster_tls,
        key=None if key_file is None else read_key(Path(key_file)),
        plain_names=plain_names,
        fail_fast=fail_fast,
    )
    with BatchRun(Path(out), plan) as run:
        run.scan_sources([Path(source) for source in many], redo=redo, retry_failed=retry_failed)
        yield from run.work()
