"""Settings of a batch: those that determine its results, and limits on how it runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, OutputOptions, SegmentOptions

_FIRST_OPTIONS = ("track", "score", "classes", "resample_irregular", "allow_out_of_domain")
_LATER_OPTIONS = ("precision", "engine", "suv", "flips", "channels", "merge_series", "drop_duplicates")


@dataclass(frozen=True)
class Work:
    """Settings that determine the results: the same work on the same series gives the same bytes.

    Attributes:
        model: Path of the model file.
        model_sha256: Hash of that file.
        options: How to read and segment.
        output: What to write.
    """

    model: str
    model_sha256: str
    options: SegmentOptions
    output: OutputOptions

    def as_dict(self) -> dict[str, Any]:
        """Settings as JSON values, without the model's path and device; the ledger keeps them to detect changes.

        Ledgers store their digest, so names and defaults must not change, and an option added later is included only
        if it is not the default: a batch begun with an older version can then continue.
        """
        options, output = self.options.model_dump(mode="json"), self.output.model_dump(mode="json")
        defaults = AS_THE_MODEL_SAYS.model_dump(mode="json")
        later = {name: options[name] for name in _LATER_OPTIONS if options[name] != defaults[name]}
        first = {name: options[name] for name in _FIRST_OPTIONS}
        formats = sorted(set(self.output.formats))
        return {"model_sha256": self.model_sha256, **first, **later, **output, "formats": formats}

    def digest(self) -> str:
        """Hash of :meth:`as_dict`."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ClusterTls:
    """Certificates with which the parts of a Dask cluster know one another; without them it runs whatever anyone sends.

    Attributes:
        authorities: Certificates of authorities, PEM: only who has one signed by them takes part.
        certificate: Our certificate, PEM.
        key: Its key, PEM.
    """

    authorities: str
    certificate: str
    key: str

    def for_dask(self) -> dict[str, Any]:
        """Arguments of ``distributed.Security``; connections without TLS are refused."""
        return {
            "tls_ca_file": self.authorities,
            "tls_client_cert": self.certificate,
            "tls_client_key": self.key,
            "require_encryption": True,
        }


@dataclass(frozen=True)
class Limits:
    """Limits for one case; ``None`` means no limit.

    Attributes:
        seconds: Time for reading, segmenting and writing together.
        memory_mb: Resident memory of a worker, in MiB.
    """

    seconds: float | None = None
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_mb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"the limit {name} must be positive, got {value}")
