"""Names of result folders: ``patient-.../study-.../series-...``, keyed pseudonyms.

A pseudonym is a truncated HMAC-SHA256 of the identifier. Without the key nobody can compute it from a patient's ID, not
even by trying all IDs; with the same key the same patient has the same folder in every run.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Collection
from pathlib import Path

from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.errors import ReadError
from medmaskrcnn.system.paths import safe_name

KEY_BYTES = 32
_LETTERS = 12  # of base32, 5 bits each: among a million series, the chance of any collision is 1 in 2 million


def new_key() -> bytes:
    """A new random key."""
    return secrets.token_bytes(KEY_BYTES)


def read_key(path: Path) -> bytes:
    """Read the key from a file: at least 16 bytes of any content.

    Raises:
        ReadError: if the file cannot be read or the key is too short.
    """
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ReadError(f"cannot read the key file {path}: {error.strerror}") from error
    if len(key) < KEY_BYTES // 2:
        raise ReadError(f"the key in {path} has {len(key)} bytes; make one with: openssl rand -hex 32 > {path}")
    return key


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """``kind-xxxxxxxxxxxx``: the same for the same value and key, and reveals nothing about the value."""
    digest = hmac.new(key, f"{kind}\0{value}".encode(), hashlib.sha256).digest()
    return f"{kind}-{base64.b32encode(digest).decode()[:_LETTERS].lower()}"


def case_folder(series: FoundSeries, key: bytes) -> str:
    """The pseudonymous result folder of a series, relative to the output folder."""
    values = {"patient": series.patient, "study": series.study, "series": series.identity}
    return "/".join(pseudonym(key, kind, value) for kind, value in values.items())


def plain_folder(series: FoundSeries, taken: Collection[str]) -> str:
    """The result folder named by patient ID, study date and series description; numbered if already taken.

    Args:
        series: The series.
        taken: Folders in lower case; a set, since it is asked for every series.
    """
    words = (series.patient_id or "unknown", series.study_date or "undated", series.description or series.name)
    folder = "/".join(safe_name(word) for word in words)
    number, candidate = 1, folder
    while candidate.lower() in taken:
        number += 1
        candidate = f"{folder}-{number}"
    return candidate
