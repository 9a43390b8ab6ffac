"""What a batch is asked for: what decides its results, and what only decides how it runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from medmaskrcnn.batch_runs.one_case import CaseOptions
from medmaskrcnn.export.write import ALL_FORMATS


@dataclass(frozen=True)
class Work:
    """What decides the results: the same work on the same series gives the same bytes.

    Attributes:
        model: The model's file.
        model_sha256: Its hash.
        options: How to segment and what to write.
        track: Link instances along time in cine series.
    """

    model: str
    model_sha256: str
    options: CaseOptions
    track: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.options.formats if name not in ALL_FORMATS]
        if unknown:
            raise ValueError(f"formats must be out of {', '.join(ALL_FORMATS)}, got {', '.join(unknown)}")
        if self.options.score is not None and not 0 <= self.options.score <= 1:
            raise ValueError(f"score must lie in 0..1, got {self.options.score}")

    def as_dict(self) -> dict[str, Any]:
        """All of it but where the model lies, JSON-able; kept in the ledger to notice other work."""
        said = {"model_sha256": self.model_sha256, "track": self.track, **asdict(self.options)}
        said["formats"] = sorted(set(self.options.formats))
        return dict(json.loads(json.dumps(said)))

    def digest(self) -> str:
        """Hash of :meth:`as_dict`."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Limits:
    """What one case may take; ``None`` is no limit.

    Attributes:
        seconds: Time that reading, segmenting and writing take together.
        memory_mb: Resident memory of the worker, in MiB.
    """

    seconds: float | None = None
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_mb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"the limit {name} must be positive, got {value}")
