"""What the folders of results are called: ``patient-.../study-.../series-...``, keyed pseudonyms.

A pseudonym is the head of an HMAC-SHA256 of what it stands for. Without the key nobody can compute it from a patient's
ID, not even by trying all IDs; with the same key the same patient has the same folder in every run.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path

from medmaskrcnn.batch_runs.case_names import safe_name
from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.errors import ReadError

KEY_BYTES = 32
_LETTERS = 12  # of base32, 5 bits each: two of a million series meet with a chance of 1 in 2 million


def new_key() -> bytes:
    """A key of this run's own."""
    return secrets.token_bytes(KEY_BYTES)


def read_key(path: Path) -> bytes:
    """The key in a file: at least 16 bytes, whatever they are.

    Raises:
        ReadError: if it cannot be read or is too short to be a secret.
    """
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ReadError(f"cannot read the key file {path}: {error.strerror}") from error
    if len(key) < KEY_BYTES // 2:
        raise ReadError(f"the key in {path} has {len(key)} bytes; make one with: openssl rand -hex 32 > {path}")
    return key


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """``kind-xxxxxxxxxxxx``: the same for the same value and key, and telling nothing of the value."""
    digest = hmac.new(key, f"{kind}\0{value}".encode(), hashlib.sha256).digest()
    return f"{kind}-{base64.b32encode(digest).decode()[:_LETTERS].lower()}"


def case_folder(series: FoundSeries, key: bytes) -> str:
    """The folder of a series' result, relative to the output folder."""
    values = {"patient": series.patient, "study": series.study, "series": series.identity}
    return "/".join(pseudonym(key, kind, value) for kind, value in values.items())


def plain_folder(series: FoundSeries, taken: Iterable[str]) -> str:
    """The same in plain words: patient's ID, study's date, series' description; numbered where taken."""
    words = (series.patient_id or "unknown", series.study_date or "undated", series.description or series.name)
    folder = "/".join(safe_name(word) for word in words)
    used = {name.lower() for name in taken}
    number, candidate = 1, folder
    while candidate.lower() in used:
        number += 1
        candidate = f"{folder}-{number}"
    return candidate
