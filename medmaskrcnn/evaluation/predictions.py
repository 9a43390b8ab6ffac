"""Evaluate predictions that exist already, of whatever tool: label maps, SEG, RTSTRUCT, COCO, results of ours.

find the file of each case -> read it onto the case's grid -> objects by rule -> the metrics of ``evaluate``
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.evaluation.evaluate import (
    CountProgress,
    Evaluation,
    choose_cases,
    evaluate_each,
    evaluate_results,
)
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.evaluation.prediction_reader import PredictionOptions, PredictionReader
from medmaskrcnn.evaluation.subgroups import check_labels
from medmaskrcnn.system.memory import retain_freed_memory


@retain_freed_memory()
def evaluate_predictions(
    predictions: str | os.PathLike[str],
    manifest: str | os.PathLike[str] | Manifest,
    *,
    split: str = "test",
    cases: Sequence[str] | None = None,
    reading: PredictionOptions | None = None,
    score: float = 0.0,
    settings: MetricSettings | None = None,
    pictures: int = 0,
    by: Sequence[str] = (),
    progress: CountProgress | None = None,
) -> Evaluation:
    """Compare predictions of any tool with the labelled cases of a manifest.

    Args:
        predictions: A folder with a file or folder for each case, named after it or its image; or one COCO file.
        manifest: A manifest or its path.
        split: ``"train"``, ``"val"``, ``"test"``, or ``"all"``.
        cases: Ids of the cases to evaluate, whatever their split; by default those of ``split``.
        reading: How predictions are read.
        score: Score threshold of the result (inclusive); files without scores have 1 throughout.
        settings: Settings of the metrics.
        pictures: Number of worst cases to draw.
        by: Labels of the cases (``case_labels`` of the manifest) by whose values every table is also made.
        progress: Called with the number of cases done and their total.

    Returns:
        The metrics, with the cases that have no prediction, and what was assumed or resampled on reading.

    Raises:
        ReadError: if the manifest cannot be read, or no prediction belongs to one of its cases.
        MedMaskRCNNError: if not a single case could be evaluated.
        ValueError: if there is no such case or split, or an option does not fit
            (:class:`~medmaskrcnn.errors.InvalidOptionError`).

    Example:
        >>> evaluation = medmaskrcnn.evaluate_predictions("nnunet/", "data/manifest.json")  # doctest: +SKIP
        >>> evaluation.classes["liver"].outline["dice"].value  # doctest: +SKIP
        0.95
    """
    manifest = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
    source, chosen = Path(predictions), choose_cases(manifest, split, cases)
    check_labels(by, [case.case_labels for case in chosen])
    reader = PredictionReader(source, manifest, chosen, reading or PredictionOptions())
    metrics_of = partial(
        evaluate_results, class_names=reader.match.names, score=score, settings=settings, pictures=pictures, by=by
    )
    evaluation = evaluate_each(chosen, reader.pair, metrics_of, progress=progress)
    return replace(
        evaluation,
        only_predicted=reader.match.only_first,
        only_reference=reader.match.only_second,
        spelt_otherwise=reader.match.spelt_otherwise,
        missing=reader.missing,
        notes=(*manifest.left_out, *reader.notes()),
        model=(source.name or str(source), ""),
        dataset=(manifest.name, "chosen cases" if cases is not None else split),
    )
