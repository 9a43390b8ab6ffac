"""The check before training: every case is read once, and all problems are reported together.

An *error* makes training impossible or its result worthless, a *warning* should be looked at, a *note* is given for
completeness.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medmaskrcnn.data.case_fingerprint import CaseFingerprint, read_case_fingerprint
from medmaskrcnn.data.check_labels import FEW_VOXELS, label_findings
from medmaskrcnn.data.findings import Finding, Level, count, some
from medmaskrcnn.data.manifest import FOR_TRAINING, Manifest, ManifestCase
from medmaskrcnn.errors import MedMaskRCNNError, ReadError
from medmaskrcnn.system.threads import use_one_thread

_PROCESSES_FROM = 16  # cases; fewer are read faster without worker processes


@dataclass(frozen=True)
class ClassRow:
    """Statistics of one class.

    Attributes:
        class_name: The class.
        objects: Number of its objects in all cases.
        cases: Number of cases with at least one.
        sizes: Smallest, median and largest of the objects' longest box sides; ``None`` without objects.
        unit: Unit of ``sizes``: ``"mm"``, or ``"voxels"`` if the spacing of any object's scan is unknown.
        annotated: Number of cases in which it was annotated; ``None`` if all cases are annotated with all classes.
    """

    class_name: str
    objects: int
    cases: int
    sizes: tuple[float, float, float] | None
    unit: Literal["mm", "voxels"]
    annotated: int | None = None


@dataclass(frozen=True)
class SplitRow:
    """Statistics of one split: numbers of cases, patients and objects, and of cases without objects."""

    split: str
    cases: int
    patients: int
    objects: int
    empty: int


@dataclass(frozen=True)
class SetRow:
    """Statistics of one of several joined data sets: cases for training, and their share of the samples, 0..1."""

    data_set: str
    cases: int
    share: float


@dataclass(frozen=True)
class ManifestReport:
    """Result of the check.

    Attributes:
        manifest: The manifest that was checked.
        case_fingerprints: Fingerprints of every case that could be read, in the manifest's order.
        findings: Errors first, then warnings, then notes; within a level in the manifest's order.
    """

    manifest: Manifest
    case_fingerprints: tuple[CaseFingerprint, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that prevent training."""
        return tuple(f for f in self.findings if f.level == "error")

    def raise_if_bad(self) -> None:
        """Raise one error that lists all errors among the findings.

        Raises:
            ReadError: if there is an error among the findings.
        """
        if self.errors:
            cases = len({f.case for f in self.errors if f.case})
            lines = [f"  - {f.text}" for f in self.errors]
            about = f" in {cases} of {count(len(self.manifest.cases), 'case')}" if cases else ""
            raise ReadError(
                f"{self.manifest.name} cannot be trained on: {count(len(lines), 'error')}{about}. "
                "Mend the files or take the cases out of the manifest\n" + "\n".join(lines)
            )

    def class_rows(self) -> tuple[ClassRow, ...]:
        """One row per class, in the manifest's order."""
        return tuple(self._class_row(name) for name in self.manifest.class_names)

    def _class_row(self, name: str) -> ClassRow:
        holding = [fact for fact in self.case_fingerprints if any(o.class_name == name for o in fact.objects)]
        objects = [o for fact in holding for o in fact.objects if o.class_name == name]
        known = all(o.extent_mm is not None for o in objects)
        sides = [max(o.extent_mm if known and o.extent_mm else o.extent) for o in objects]
        sizes = (float(min(sides)), float(np.median(sides)), float(max(sides))) if sides else None
        partly = any(case.annotated is not None for case in self.manifest.cases)
        annotated = sum(name in self.manifest.annotated_in(case) for case in self.manifest.cases) if partly else None
        return ClassRow(name, len(objects), len(holding), sizes, "mm" if known else "voxels", annotated)

    def set_rows(self) -> tuple[SetRow, ...]:
        """One row per data set, where several were joined."""
        own: dict[str, list[float]] = defaultdict(list)
        for case in self.manifest.cases:
            if case.split in FOR_TRAINING:
                own[case.data_set or self.manifest.name].append(case.weight)
        every = sum(map(sum, own.values()))
        return tuple(SetRow(n, len(weights), sum(weights) / every) for n, weights in own.items() if len(own) > 1)

    def split_rows(self) -> tuple[SplitRow, ...]:
        """One row per split that has cases: train, val, test, and ``"open"`` for cases without one."""
        rows = []
        for split in ("train", "val", "test", None):
            case_fingerprints = [fact for fact in self.case_fingerprints if fact.split == split]
            if case_fingerprints:
                objects = sum(len(fact.objects) for fact in case_fingerprints)
                empty = sum(not fact.objects for fact in case_fingerprints)
                rows.append(
                    SplitRow(
                        split or "open",
                        len(case_fingerprints),
                        len({f.patient for f in case_fingerprints}),
                        objects,
                        empty,
                    )
                )
        return tuple(rows)


def check_manifest(
    manifest: Manifest, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> ManifestReport:
    """Read every case and look for problems that would affect training.

    Args:
        manifest: The manifest to check.
        workers: Processes that read; default: one per core, at most 8, and none for few cases. With several, a script
            that calls this needs the usual ``if __name__ == "__main__":``.
        progress: Called with the number of cases done and their total.

    Raises:
        ReadError: if the system killed a process, probably for lack of memory. Problems of a case are findings; see
            :meth:`ManifestReport.raise_if_bad`.
    """
    case_fingerprints: dict[str, CaseFingerprint] = {}
    findings: list[Finding] = []
    for done, (case, result) in enumerate(_results(manifest, workers), start=1):
        if isinstance(result, Finding):
            findings.append(result)
        else:
            case_fingerprints[case.id] = result
        if progress:
            progress(done, len(manifest.cases))
    ordered = tuple(case_fingerprints[case.id] for case in manifest.cases if case.id in case_fingerprints)
    findings += [finding for fact in ordered for finding in _about_case(fact, manifest)]
    findings += [Finding("warning", None, text) for text in manifest.left_out]
    findings += _about_patients(manifest) + _about_cases(ordered) + _about_classes(manifest, ordered)
    findings += label_findings(manifest, ordered)
    place = {case.id: number for number, case in enumerate(manifest.cases)}
    levels = ("error", "warning", "note")
    findings.sort(key=lambda f: (levels.index(f.level), place.get(f.case or "", len(place))))
    return ManifestReport(manifest, ordered, tuple(findings))


def _results(manifest: Manifest, workers: int | None) -> Iterator[tuple[ManifestCase, CaseFingerprint | Finding]]:
    """Cases with their fingerprint or error as they are finished, in any order."""
    if workers is None:
        workers = min(8, os.cpu_count() or 1) if len(manifest.cases) >= _PROCESSES_FROM else 1
    if workers <= 1:
        for case in manifest.cases:
            yield case, _facts_or_finding(manifest, case)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe once torch has threads
    bare = manifest.model_copy(update={"cases": ()})  # each process needs only its own case
    processes = min(workers, max(1, len(manifest.cases)))
    with ProcessPoolExecutor(processes, mp_context=context, initializer=use_one_thread) as pool:
        waiting: dict[Future[CaseFingerprint | Finding], ManifestCase] = {
            pool.submit(_facts_or_finding, bare, case): case for case in manifest.cases
        }
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            raise ReadError(
                f"a process that read {manifest.name} was ended by the system, probably for want of memory. "
                f"Check with fewer workers than {workers}"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _facts_or_finding(manifest: Manifest, case: ManifestCase) -> CaseFingerprint | Finding:
    try:
        return read_case_fingerprint(manifest, case)
    except MedMaskRCNNError as error:
        text = error.reason
        return Finding("error", case.id, text if text.startswith("case ") else f"case {case.id}: {text}")


def _about_case(fact: CaseFingerprint, manifest: Manifest) -> Iterator[Finding]:
    """Findings from the fingerprint of a single case."""

    def finding(level: Level, text: str) -> Finding:
        return Finding(level, fact.id, f"case {fact.id}: {text}")

    if not fact.intensities:
        yield finding("error", "no voxel of the image is a finite number")
    elif fact.not_finite:
        yield finding(
            "warning", f"{count(fact.not_finite, 'voxel')} NaN or infinite in the image; filled by preprocessing"
        )
    if fact.absent and fact.unnamed and not fact.objects:
        yield finding(
            "error",
            f"none of its {len(fact.absent)} instances has a voxel, but the label map holds {_values(fact.unnamed)}. "
            "Does the label map belong to this case?",
        )
    else:
        if fact.absent:
            yield finding("warning", f"instances without a voxel: {_values(fact.absent)}; they are left out")
        if fact.unnamed:
            yield finding(
                "warning", f"the label map holds {_values(fact.unnamed)}, which no instance names; background"
            )
    few = Counter(o.class_name for o in fact.objects if o.voxels < FEW_VOXELS)
    if few:
        kinds = ", ".join(f"{name} ({n})" for name, n in few.items())
        yield finding("warning", f"objects of fewer than {FEW_VOXELS} voxels: {kinds}. Slips of the pen?")
    if fact.modality and manifest.modality and fact.modality != manifest.modality:
        yield finding("warning", f"the scan says that it is {fact.modality}, the manifest {manifest.modality}")


def _about_patients(manifest: Manifest) -> list[Finding]:
    """Patients in more than one split or fold, which leaks training data into the test."""
    findings = []
    for what in ("split", "fold"):
        seen: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for case in manifest.cases:
            if getattr(case, what) is not None:
                seen[case.patient][str(getattr(case, what))].append(case.id)
        for patient, parts in seen.items():
            if len(parts) > 1:
                where = "; ".join(f"{part}: {some(cases)}" for part, cases in parts.items())
                findings.append(Finding("error", None, f"patient {patient} lies in {len(parts)} {what}s ({where})"))
    return findings


def _about_cases(case_fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    """Findings from comparing cases: differing channels, spacing or dimensions, duplicate images."""
    findings: list[Finding] = []
    channels = _grouped(case_fingerprints, lambda fact: count(fact.channels, "channel"))
    if len(channels) > 1:
        findings.append(Finding("error", None, f"the cases differ in channels: {_listed(channels)}"))
    spacing = _grouped(
        case_fingerprints, lambda fact: "spacing unknown" if fact.spacing_mm is None else "spacing known"
    )
    if len(spacing) > 1:
        findings.append(
            Finding(
                "error", None, f"some cases do not tell their spacing: {_listed(spacing)}. Give all a spacing or none"
            )
        )
    planes = _grouped(case_fingerprints, lambda fact: "single slices" if fact.is_planar else "volumes")
    if len(planes) > 1:
        findings.append(
            Finding("warning", None, f"2D and 3D are mixed: {_listed(planes)}. Only a 2D model learns from both")
        )
    for same in _grouped(case_fingerprints, lambda fact: fact.content_hash).values():
        parts = {fact.split for fact in case_fingerprints if fact.id in same}
        if len(same) > 1 and len(parts) > 1:
            named = ", ".join(sorted(part or "open" for part in parts))
            findings.append(Finding("warning", None, f"the same image lies in several splits ({named}): {some(same)}"))
    return findings


def _about_classes(manifest: Manifest, case_fingerprints: Sequence[CaseFingerprint]) -> list[Finding]:
    findings = []
    learnt = [fact for fact in case_fingerprints if fact.split in FOR_TRAINING]
    if case_fingerprints and not learnt:
        findings.append(Finding("error", None, "no case is for training: none has the split train or an open one"))
    if learnt and not any(fact.split == "val" or fact.fold is not None for fact in case_fingerprints):
        findings.append(Finding("note", None, "no case is for validation: none has the split val, none a fold"))
    for name in manifest.class_names:
        if not any(o.class_name == name for fact in learnt for o in fact.objects):
            findings.append(Finding("warning", None, f"no case for training holds an object of the class {name}"))
    return findings


def _grouped(
    case_fingerprints: Sequence[CaseFingerprint], key: Callable[[CaseFingerprint], str]
) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for fact in case_fingerprints:
        groups[key(fact)].append(fact.id)
    return groups


def _listed(groups: dict[str, list[str]]) -> str:
    return "; ".join(f"{name} in {len(cases)} ({some(cases)})" for name, cases in sorted(groups.items()))


def _values(pairs: Sequence[tuple[int, int]]) -> str:
    several = any(number for number, _ in pairs)
    named = [f"{value} in map {number}" if several else str(value) for number, value in pairs]
    return f"value{'s' if len(pairs) > 1 else ''} {some(named)}"
