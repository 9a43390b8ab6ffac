"""Plan of a batch run, its progress, and the cases that it yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from medmaskrcnn.batch_runs.ledger import Status
from medmaskrcnn.batch_runs.rules import Rules
from medmaskrcnn.batch_runs.settings import ClusterTls, Limits, Work
from medmaskrcnn.errors import Remedy
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import load_case


@dataclass(frozen=True)
class BatchPlan:
    """All settings of a run except its sources; see :func:`medmaskrcnn.batch_runs.api.batch`."""

    work: Work
    rules: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    scheduler: str | None = None
    cluster_tls: ClusterTls | None = None
    key: bytes | None = None
    plain_names: bool = False
    fail_fast: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")


@dataclass(frozen=True)
class BatchProgress:
    """Progress of a batch.

    Attributes:
        done, failed, refused, skipped: Number of series so far, over all runs.
        left: Number of series still to do.
        per_hour: Series per hour in this run.
        seconds_left: Estimated time left at that rate; ``None`` before the first series has ended.
    """

    done: int
    failed: int
    refused: int
    skipped: int
    left: int
    per_hour: float
    seconds_left: float | None


@dataclass(frozen=True)
class BatchCase:
    """One series whose processing has ended.

    Attributes:
        status: ``"done"``, ``"refused"`` (the scan cannot be read or does not fit the model) or ``"failed"``.
        reason: Why it is not done, without paths.
        remedy: What the user may do about it; :data:`medmaskrcnn.errors.IN_PYTHON` says how.
        folder: Folder of its result; exists only if it is done.
        counts: Number of instances by class.
        warnings: Warnings for the user, as sentences.
        seconds: Time that it took.
        progress: Progress of the batch after this series.
        unwritten: Formats whose files could not be written; :attr:`warnings` says why.
    """

    status: Status
    reason: str | None
    remedy: Remedy | None
    folder: Path
    counts: dict[str, int]
    warnings: tuple[str, ...]
    seconds: float | None
    progress: BatchProgress
    unwritten: tuple[str, ...] = ()

    def result(self) -> CaseResult:
        """Read the result from its folder.

        Raises:
            ReadError: if there is none.
        """
        return load_case(self.folder)
