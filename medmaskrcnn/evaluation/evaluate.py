"""Evaluate a model on labelled cases: segment each, compare it with the reference and compute all metrics.

A case that cannot be evaluated is logged and listed; the others still count.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from PIL import Image

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import Manifest, ManifestCase, read_manifest
from medmaskrcnn.errors import MedMaskRCNNError, Remedy
from medmaskrcnn.evaluation.metrics.summary import CaseFigures, ClassFigures, MetricSettings, figures_of_case, summarise
from medmaskrcnn.evaluation.pictures import draw_errors
from medmaskrcnn.evaluation.reference import reference_of
from medmaskrcnn.evaluation.subgroups import CaseLabel, Subgroup, check_labels, subgroups
from medmaskrcnn.hub.loaded_model import LoadedModel, load_as_asked
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.settings.segment_options import options_from
from medmaskrcnn.structures.class_names import ClassMatch, match_class_names, nothing_shared
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import BoolArray
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.exceptions import words_of
from medmaskrcnn.system.memory import retain_freed_memory

CountProgress = Callable[[int, int], None]
"""Called with the number of cases done and their total."""

ALL_SPLITS = "all"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CasePair:
    """The prediction and the reference of one case.

    Attributes:
        id: Case id.
        patient: Patient id; confidence intervals are over patients.
        predicted: All candidates that were not removed, whatever their score.
        reference: Reference (ground truth) on the same grid.
        crowd: ``(M,)`` references that stand for many objects (COCO's ``iscrowd``) or are regions to ignore; none by
            default.
        ignored: ``(M,)`` references that need not be found; none by default.
        annotated: Classes that were annotated; what is found of others counts neither way. All by default.
        volume: The scan, needed only for pictures.
        seconds: Duration of the segmentation.
        case_labels: Labels of the case as a whole, by which subgroups are made.
    """

    id: str
    patient: str
    predicted: Instances
    reference: Instances
    crowd: BoolArray | None = None
    ignored: BoolArray | None = None
    annotated: tuple[str, ...] | None = None
    volume: Volume | None = None
    seconds: float | None = None
    case_labels: Mapping[str, CaseLabel] = field(default_factory=dict)


@dataclass(frozen=True)
class FailedCase:
    """A case that could not be evaluated, the reason, and a remedy."""

    id: str
    error: str
    remedy: Remedy | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All metrics of a set of cases.

    Attributes:
        class_names: Classes that were evaluated.
        only_predicted, only_reference: Classes that only the model (or the results) or only the reference has; they are
            not evaluated.
        spelt_otherwise: Names of the model or the manifest under which an evaluated class is known there, and its name
            here.
        score: Score threshold of the result (inclusive); curves (AP, FROC) use all candidates.
        settings: Settings of the metrics.
        classes: Table of each class.
        overall: Table over all classes.
        cases: Per-case figures, in the order of evaluation.
        subgroups: Tables of the subgroups asked for.
        failed: Cases that could not be evaluated.
        missing: Cases without a prediction, in which nothing counts as found.
        notes: What the data set holds and no case has, and what was assumed or resampled on reading predictions, one
            sentence each.
        pictures: Pictures of the worst cases, by case id.
        model: Name of the model and SHA-256 of its file, or name of the predictions; ``None`` for
            :func:`evaluate_results`.
        runtime: Precision and engine of the model; ``None`` for :func:`evaluate_results`.
        dataset: Name of the manifest and the split; ``None`` for :func:`evaluate_results`.
    """

    class_names: tuple[str, ...]
    score: float
    settings: MetricSettings
    classes: dict[str, ClassFigures]
    overall: ClassFigures
    cases: tuple[CaseFigures, ...]
    subgroups: tuple[Subgroup, ...] = ()
    failed: tuple[FailedCase, ...] = ()
    only_predicted: tuple[str, ...] = ()
    only_reference: tuple[str, ...] = ()
    spelt_otherwise: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    model: tuple[str, str] | None = None
    runtime: tuple[str, str] | None = None
    dataset: tuple[str, str] | None = None

    @property
    def not_judged(self) -> tuple[str, ...]:
        """Classes that only one side has; not evaluated."""
        return tuple(sorted({*self.only_predicted, *self.only_reference}))

    @property
    def worst_first(self) -> list[CaseFigures]:
        """The cases in order of falling error."""
        return sorted(self.cases, key=lambda case: -case.error)


@retain_freed_memory()
def evaluate(
    model: str | os.PathLike[str] | LoadedModel,
    manifest: str | os.PathLike[str] | Manifest,
    *,
    split: str = "test",
    cases: Sequence[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    score: float | None = None,
    settings: MetricSettings | None = None,
    pictures: int = 0,
    by: Sequence[str] = (),
    allow_out_of_domain: bool = False,
    rename: Mapping[str, str] | None = None,
    options: SegmentOptions | None = None,
    progress: CountProgress | None = None,
) -> Evaluation:
    """Run a model on the labelled cases of a manifest and compute the metrics.

    Args:
        model: Name of a shipped model, a model file, or a loaded model.
        manifest: A manifest or its path.
        split: ``"train"``, ``"val"``, ``"test"``, or ``"all"``.
        cases: Ids of the cases to evaluate, whatever their split; by default those of ``split``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``; a loaded model stays where it is.
        precision: As for :func:`medmaskrcnn.load_model`; a loaded model stays as it was loaded.
        engine: Likewise.
        score: Score threshold of the result (inclusive); the model's own by default.
        settings: Settings of the metrics; see :class:`~medmaskrcnn.evaluation.metrics.summary.MetricSettings`.
        pictures: Number of worst cases to draw.
        by: Labels of the cases (``case_labels`` of the manifest) by whose values every table is also made.
        allow_out_of_domain: Run the model on scans that it was not made for.
        rename: Classes that model and manifest call differently, ``{"Anterior": "anterior hippocampus"}``; other
            spellings of one name and the aliases of the model's card are recognised without.
        options: Device, precision, engine, score and other options in one object, instead of single arguments.
        progress: Called with the number of cases done and their total.

    Returns:
        The metrics; classes that only the model or only the manifest has are not evaluated.

    Raises:
        ReadError: if the manifest cannot be read.
        ModelFileError: if the model cannot be read.
        MedMaskRCNNError: if not a single case could be evaluated.
        ValueError: if there is no such case, split, precision or engine, or model and manifest share no class
            (:class:`~medmaskrcnn.errors.InvalidOptionError`, which names the classes of both).

    Example:
        >>> evaluation = medmaskrcnn.evaluate("abdomen-mr", "data/manifest.json")  # doctest: +SKIP
        >>> evaluation.overall.mask["ap50"].value  # doctest: +SKIP
        0.93
    """
    manifest = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
    chosen = choose_cases(manifest, split, cases)
    check_labels(by, [case.case_labels for case in chosen])
    asked = options_from(
        options, SegmentOptions, device=device, precision=precision, engine=engine, score=score,
        allow_out_of_domain=allow_out_of_domain,
    )  # fmt: skip
    loaded = load_as_asked(model, asked)
    known = loaded.settings.model.class_names
    match = match_class_names(known, manifest.class_names, rename=rename, aliases=loaded.settings.card.aliases)
    if not match.names:
        raise nothing_shared(match, "the model", "the manifest")
    threshold = loaded.settings.inference.score if asked.score is None else asked.score
    metrics_of = partial(
        evaluate_results, class_names=match.names, score=threshold, settings=settings, pictures=pictures, by=by
    )
    evaluation = evaluate_each(
        chosen, lambda case: segmented_pair(loaded, manifest, case, match, asked), metrics_of, progress=progress
    )
    return replace(
        evaluation,
        only_predicted=match.only_first,
        only_reference=match.only_second,
        spelt_otherwise=match.spelt_otherwise,
        notes=manifest.left_out,
        model=(loaded.settings.card.name, loaded.sha256),
        runtime=(loaded.precision, loaded.engine),
        dataset=(manifest.name, "chosen cases" if cases is not None else split),
    )


def evaluate_each(
    cases: Sequence[ManifestCase],
    pair_of: Callable[[ManifestCase], CasePair],
    metrics_of: Callable[[Iterable[CasePair]], Evaluation],
    *,
    progress: CountProgress | None,
) -> Evaluation:
    """Evaluate cases that are made ready one after the other.

    Args:
        cases: The cases.
        pair_of: Prediction and reference of a case; one that raises has failed, and the others are still evaluated.
        metrics_of: The metrics of all pairs: :func:`evaluate_results` with its options.
        progress: Called with the number of cases done and their total.

    Raises:
        MedMaskRCNNError: if all cases failed.
    """
    failed: list[FailedCase] = []
    on_progress = progress or (lambda done, total: None)

    def pairs() -> Iterable[CasePair]:
        for number, case in enumerate(cases):
            on_progress(number, len(cases))
            try:
                yield pair_of(case)
            except Exception as error:  # any error
                log.exception("case %s could not be evaluated", case.id)
                failed.append(failed_case(case.id, error))
        on_progress(len(cases), len(cases))

    try:
        return replace(metrics_of(pairs()), failed=tuple(failed))
    except ValueError as error:
        if len(failed) < len(cases):
            raise
        what = f"none of {len(cases)} cases could be evaluated; {failed[0].error}"
        raise MedMaskRCNNError(what, failed[0].remedy) from error


def evaluate_results(
    pairs: Iterable[CasePair],
    *,
    class_names: Sequence[str],
    score: float,
    settings: MetricSettings | None = None,
    pictures: int = 0,
    by: Sequence[str] = (),
) -> Evaluation:
    """Compute the metrics of existing results; consumes one pair at a time and keeps no masks.

    Args:
        pairs: The cases.
        class_names: Classes to evaluate.
        score: Score threshold of the result (inclusive).
        settings: Settings of the metrics.
        pictures: Number of worst cases to draw, among those with a volume.
        by: Labels of the cases by whose values every table is also made.

    Raises:
        ValueError: if there is no case, or a prediction and its reference are on different grids.
    """
    settings = settings or MetricSettings()
    figures: list[CaseFigures] = []
    labels: list[Mapping[str, CaseLabel]] = []
    drawn: dict[str, tuple[float, Image.Image]] = {}
    for pair in pairs:
        case = figures_of_case(
            pair.id,
            pair.patient,
            pair.predicted,
            pair.reference,
            class_names,
            settings,
            score=score,
            crowd=pair.crowd,
            ignored=pair.ignored,
            annotated=pair.annotated,
            seconds=pair.seconds,
        )
        figures.append(case)
        labels.append(pair.case_labels)
        _draw_if_among_the_worst(pair, case, drawn, pictures)
    if not figures:
        raise ValueError("there is no case to evaluate")
    classes, overall = summarise(figures, class_names, settings, score=score)
    return Evaluation(
        class_names=tuple(class_names),
        score=score,
        settings=settings,
        classes=classes,
        overall=overall,
        cases=tuple(figures),
        subgroups=subgroups(figures, labels, by, class_names, settings, score=score),
        pictures={name: picture for name, (_, picture) in drawn.items()},
    )


def choose_cases(manifest: Manifest, split: str, ids: Sequence[str] | None) -> list[ManifestCase]:
    """The cases of a split, or those with the given ids.

    Raises:
        ValueError: if an id is unknown or the split is empty.
    """
    if ids is not None:
        by_id = {case.id: case for case in manifest.cases}
        unknown = [name for name in ids if name not in by_id]
        if unknown or not ids:
            raise ValueError(f"{manifest.name} has no case {', '.join(unknown) or '(none was named)'}")
        return [by_id[name] for name in dict.fromkeys(ids)]
    chosen = [case for case in manifest.cases if split in (ALL_SPLITS, case.split)]
    if not chosen:
        there = sorted({str(case.split) for case in manifest.cases})
        raise ValueError(f"{manifest.name} has no case in split {split!r}; its cases are in: {', '.join(there)}")
    return chosen


def segmented_pair(
    loaded: LoadedModel, manifest: Manifest, case: ManifestCase, match: ClassMatch, options: SegmentOptions
) -> CasePair:
    """Segment a labelled case; prediction and reference under the shared names of ``match``."""
    scan = read_case(manifest, case)
    started = time.monotonic()
    result = segment(scan.volume, loaded, options=options)
    seconds = time.monotonic() - started
    predicted = result.candidates.without_removed().renamed(match.first, match.names)
    reference = reference_of(scan, match)
    return CasePair(
        case.id,
        case.patient,
        predicted,
        reference.instances,
        crowd=reference.crowd,
        annotated=reference.annotated,
        volume=scan.volume,
        seconds=round(seconds, 2),
        case_labels=case.case_labels,
    )


def failed_case(case_id: str, error: Exception) -> FailedCase:
    """A case that ended with an error, as one sentence; the type is added for errors that are not ours."""
    reason = error.reason if isinstance(error, MedMaskRCNNError) else words_of(error)
    return FailedCase(case_id, reason, getattr(error, "remedy", None))


def _draw_if_among_the_worst(
    pair: CasePair, case: CaseFigures, drawn: dict[str, tuple[float, Image.Image]], most: int
) -> None:
    """Add the case's picture if it is among the ``most`` worst, and drop the best of these if there are more."""
    if pair.volume is None or most < 1:
        return
    if len(drawn) >= most and case.error <= min(error for error, _ in drawn.values()):
        return
    drawn[case.id] = (case.error, draw_errors(pair.volume, pair.predicted, pair.reference, case.objects))
    if len(drawn) > most:
        del drawn[min(drawn, key=lambda name: drawn[name][0])]
