"""What a batch is asked for: what decides its results, and what only decides how it runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, OutputOptions, SegmentOptions

_FIRST_OPTIONS = ("track", "score", "classes", "resample_irregular", "allow_out_of_domain")
_LATER_OPTIONS = ("precision", "engine", "suv")


@dataclass(frozen=True)
class Work:
    """What decides the results: the same work on the same series gives the same bytes.

    Attributes:
        model: The model's file.
        model_sha256: Its hash.
        options: How to read and segment.
        output: What to write.
    """

    model: str
    model_sha256: str
    options: SegmentOptions
    output: OutputOptions

    def as_dict(self) -> dict[str, Any]:
        """All of it but where the model and the network lie, JSON-able; kept in the ledger to notice other work.

        Its digest stands in ledgers: names and defaults here stay as they are, and an option that is added is said only
        where it is asked for, so that a half-done batch of an older version goes on.
        """
        options, output = self.options.model_dump(mode="json"), self.output.model_dump(mode="json")
        later = {name: options[name] for name in _LATER_OPTIONS if options[name] != getattr(AS_THE_MODEL_SAYS, name)}
        first = {name: options[name] for name in _FIRST_OPTIONS}
        formats = sorted(set(self.output.formats))
        return {"model_sha256": self.model_sha256, **first, **later, **output, "formats": formats}

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
