"""What a run is to do, how far it is, and what it yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from medmaskrcnn.batch_runs.ledger import Status
from medmaskrcnn.batch_runs.rules import Rules
from medmaskrcnn.batch_runs.settings import Limits, Work
from medmaskrcnn.errors import Remedy
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import load_case


@dataclass(frozen=True)
class BatchPlan:
    """All that a run needs to know beside its sources; see :func:`medmaskrcnn.batch_runs.api.batch`."""

    work: Work
    rules: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    scheduler: str | None = None
    key: bytes | None = None
    plain_names: bool = False
    fail_fast: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        done, failed, refused, skipped: Series so far, of all runs.
        left: Still to do.
        per_hour: Rate of this run.
        seconds_left: What is left at that rate; ``None`` before the first.
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
    """One series that has come to its end.

    Attributes:
        status: ``"done"``, ``"refused"`` (the scan cannot be read or does not fit the model) or ``"failed"``.
        reason: Why it is not done, without paths.
        remedy: What to ask for to have it done; :data:`medmaskrcnn.errors.IN_PYTHON` says how.
        folder: Folder of its result; there for what is done.
        counts: Instances by class.
        warnings: Sentences for the user.
        seconds: What it took.
        progress: Of the batch, after this one.
    """

    status: Status
    reason: str | None
    remedy: Remedy | None
    folder: Path
    counts: dict[str, int]
    warnings: tuple[str, ...]
    seconds: float | None
    progress: BatchProgress

    def result(self) -> CaseResult:
        """The result, read from its folder.

        Raises:
            ReadError: if there is none.
        """
        return load_case(self.folder / "instances.npz")
