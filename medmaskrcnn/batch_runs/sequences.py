"""Cases of several series, for a model of several sequences: by nnU-Net's names, or by patterns that the user gave.

By patterns (``T1=*t1*``, of the series' description, the file's name, or a series UID) a case is a study, or a folder
of files; by names it is the files ``CASE_0000``, ``CASE_0001``, ... of one folder.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medmaskrcnn.batch_runs.find import SEQUENCES, FoundSeries, fingerprint_of
from medmaskrcnn.io.nnunet_names import case_and_channel
from medmaskrcnn.io.sequences import fits


@dataclass(frozen=True)
class WantedSequences:
    """What a model takes, and how its sequences are told apart.

    Attributes:
        names: Names of the sequences in the model's order; numbers where they have none.
        patterns: Pattern of each, by name, if the user gave them.
    """

    names: tuple[str, ...]
    patterns: tuple[tuple[str, str], ...] = ()


def join_sequences(found: Sequence[FoundSeries], wanted: WantedSequences) -> list[FoundSeries]:
    """Replace the series of each case by the case; a case that lacks a sequence, or has one twice, is refused."""
    if wanted.patterns:
        return _by_patterns(found, wanted)
    return _by_names(found, wanted) if len(wanted.names) > 1 else list(found)


def _by_patterns(found: Sequence[FoundSeries], wanted: WantedSequences) -> list[FoundSeries]:
    joined = []
    for members in _groups(found, lambda one: one.study_uid or str(Path(one.files[0]).parent)):
        own = {name: [one for one in members if _is_meant(one, pattern)] for name, pattern in wanted.patterns}
        taken = Counter(one.identity for fitting in own.values() for one in fitting)
        joined += [replace(o, verdict="skipped", reason=_OTHER) for o in members if o.identity not in taken]
        wrong = [f"{len(fitting)} series fit {name}" for name, fitting in own.items() if len(fitting) != 1]
        if not wrong and max(taken.values()) > 1:
            wrong = ["one series fits several sequences"]
        if taken:
            joined.append(_case({name: fitting[:1] for name, fitting in own.items()}, wrong))
    zipped = [one for one in found if one.verdict == "queued" and one.archive is not None]
    joined += [replace(one, verdict="refused", reason=_ZIPPED) for one in zipped]
    return [*joined, *(one for one in found if one.verdict != "queued")]


def _by_names(found: Sequence[FoundSeries], wanted: WantedSequences) -> list[FoundSeries]:
    named = {one.identity: own for one in found if one.archive is None and (own := _nnunet(one)) is not None}
    joined = [one for one in found if one.identity not in named]
    for members in _groups(found, lambda one: str(Path(one.files[0]).parent / named[one.identity][0]), named):
        parts = {name: [o for o in members if named[o.identity][1] == i] for i, name in enumerate(wanted.names)}
        over = sum(named[one.identity][1] >= len(wanted.names) for one in members)
        wrong = [f"{len(fitting)} files are sequence {name}" for name, fitting in parts.items() if len(fitting) != 1]
        wrong += [f"it has {over} sequences more than the model takes"] if over else []
        if any(parts.values()):
            joined.append(replace(_case(parts, wrong), name=named[members[0].identity][0]))
        else:
            joined += members
    return joined


_OTHER = "none of the sequences of the model"
_ZIPPED = "sequences of a case are not put together from a zip archive; unpack it first"


def _nnunet(one: FoundSeries) -> tuple[str, int] | None:
    single = one.verdict == "queued" and not one.series_uid and len(one.files) == 1
    return case_and_channel(Path(one.files[0])) if single else None


def _is_meant(one: FoundSeries, pattern: str) -> bool:
    return one.series_uid == pattern or fits(one.description, one.name, pattern)


def _groups(
    found: Sequence[FoundSeries], key: Callable[[FoundSeries], str], among: object = None
) -> list[list[FoundSeries]]:
    groups: dict[str, list[FoundSeries]] = defaultdict(list)
    for one in found:
        if one.verdict == "queued" and one.archive is None and (among is None or one.identity in among):  # type: ignore[operator]
            groups[key(one)].append(one)
    return list(groups.values())


def _case(own: dict[str, list[FoundSeries]], wrong: list[str]) -> FoundSeries:
    """One entry of the ledger for a case."""
    members = [fitting[0] for fitting in own.values() if fitting]
    files = tuple(file for one in members for file in one.files)
    return replace(
        members[0],
        identity=f"{members[0].identity} {SEQUENCES}",
        verdict="refused" if wrong else "queued",
        reason=f"{members[0].name}: {'; '.join(wrong)}" if wrong else None,
        files=files,
        fingerprint=fingerprint_of([Path(file) for file in files]),
        part=SEQUENCES,
        sequences=tuple((name, len(fitting[0].files)) for name, fitting in own.items() if fitting),
    )
