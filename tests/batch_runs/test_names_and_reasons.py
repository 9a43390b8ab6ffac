"""Pseudonyms tell nothing, plain names are safe, and reasons lose their paths."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.batch_runs.names import case_folder, plain_folder, pseudonym, read_key
from medmaskrcnn.batch_runs.reasons import is_no_room, without_paths
from medmaskrcnn.batch_runs.summary import hidden_paths
from medmaskrcnn.errors import OutputError, ReadError

SERIES = FoundSeries(
    identity="1.2.3", verdict="queued", reason=None, files=(), fingerprint="", patient="|ID7", study="1.2",
    name="ct", patient_id="ID7/../..", study_date="20240102", description="Abd: 5 mm",
)  # fmt: skip


def test_a_pseudonym_depends_on_key_kind_and_value():
    names = [pseudonym(k, kind, value) for k in (b"k", b"l") for kind in ("patient", "study") for value in ("a", "b")]
    assert len({name.rpartition("-")[2] for name in names}) == len(names)
    assert pseudonym(b"k", "patient", "a") == names[0]


def test_series_of_a_patient_lie_together():
    one, two = (case_folder(s, b"k" * 32) for s in (SERIES, replace(SERIES, identity="1.2.4")))
    assert one.split("/")[:2] == two.split("/")[:2]
    assert one != two
    assert "ID7" not in one


def test_plain_names_are_safe_and_distinct():
    first = plain_folder(SERIES, set())
    assert first == "ID7/20240102/Abd_5_mm"
    assert plain_folder(SERIES, {first.lower()}) == f"{first}-2"


def test_keys_must_be_secrets(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("short\n")
    with pytest.raises(ReadError, match="openssl rand"):
        read_key(file)
    file.write_text("long enough to be one\n")
    assert read_key(file) == b"long enough to be one"
    with pytest.raises(ReadError, match="cannot read"):
        read_key(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/Miller: no slices", "<source>: no slices"),
        ("/data/Miller/IM 1 is cut", "<source> 1 is cut"),
        ("'/data/Miller/a.dcm', which lies in /data/Miller", "'<source>', which lies in <source>"),
        ("/data/Miller-Smith stays", "/data/Miller-Smith stays"),
        ("3 of 4 slices of Anna.dcm", "3 of 4 slices of <source>"),
        ("JoAnna.dcm, Anna.dcm.gz", "JoAnna.dcm, <source>.gz"),
    ],
)
def test_paths_are_taken_out(text: str, expected: str):
    assert without_paths(text, ["/data/Miller", "/", "", "Anna.dcm"]) == expected


def test_files_with_names_like_words_do_not_hollow_out_reasons():
    found = replace(SERIES, files=("/data/Miller/1", "/data/Miller/0002", "/data/Miller/IM0003"))
    reason = "1 slice is missing between /data/Miller/1 and 0002 (IM0003)"
    assert without_paths(reason, hidden_paths(found)) == "1 slice is missing between <source> and 0002 (<source>)"


def test_a_full_disk_is_known_through_the_errors_it_causes():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise OutputError("cannot write") from error
    except OutputError as error:
        assert is_no_room(error)
    assert not is_no_room(OutputError("cannot write"))
