"""Reads ``cases.csv``: what is known of each case beside its image and labels.

One row for each case: its patient, its split, the class of its objects, the classes that were annotated in it; all
other columns are labels of the case, by which an evaluation can be divided (scanner, sex, site).
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from medmaskrcnn.data.manifest import Split
from medmaskrcnn.errors import ReadError
from medmaskrcnn.structures.class_names import normalised, same_name
from medmaskrcnn_datasets.source_files import some

CASE_TABLE = "cases.csv"

_ID = ("case", "case_id", "id", "file", "file_name", "filename", "image", "image_id", "scan", "name")
_PATIENT = ("patient", "patient_id", "patientid", "subject", "subject_id", "participant_id", "block", "group")
_CLASS = ("class", "class_name", "category")
_SPLIT = ("split", "subset", "partition")
_ANNOTATED = ("annotated", "annotated_classes", "annotated classes", "organs", "structures", "classes", "labels")
_SPLITS: Mapping[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_ALL_CLASSES = ("all", "complete", "*")

_ENDING = re.compile(r"\.(nii(\.gz)?|png|tiff?|jpe?g|bmp|nrrd|nhdr|mha|mhd|dcm)$", re.IGNORECASE)

CaseLabel = str | int | float | bool | None


@dataclass(frozen=True)
class CaseRow:
    """One row of the table; ``None`` where the table does not say.

    Attributes:
        patient: Its patient, or block of patients.
        class_name: The class of the case's objects.
        split: Its split.
        annotated: Names of the classes that were annotated, as written.
        labels: All other columns.
    """

    patient: str | None = None
    class_name: str | None = None
    split: Split | None = None
    annotated: tuple[str, ...] | None = None
    labels: Mapping[str, CaseLabel] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseTable:
    """A ``cases.csv``.

    Attributes:
        path: The file.
        rows: By case id, without extension and in Unicode's form NFC.
        columns: What each column is taken for: ``{"block": "patient"}``; others are labels of the case.
    """

    path: Path
    rows: Mapping[str, CaseRow]
    columns: Mapping[str, str]

    def row(self, case: str) -> CaseRow:
        """What the table says of a case; an empty row if it does not name it."""
        return self.rows.get(unicodedata.normalize("NFC", case), CaseRow())

    def about(self, cases: Iterable[str]) -> list[str]:
        """What is to be told about the table: how its columns were taken, which cases or rows have no counterpart.

        Raises:
            ReadError: if it names none of the cases.
        """
        there = {unicodedata.normalize("NFC", case) for case in cases}
        if not there & set(self.rows):
            raise ReadError(
                f"{self.path} names none of the cases: it has {some(list(self.rows))}, "
                f"the data set {some(sorted(there))}"
            )
        told = [f"{self.path.name}: {', '.join(f'{name!r} is the {what}' for name, what in self.columns.items())}"]
        without, strange = sorted(there - set(self.rows)), sorted(set(self.rows) - there)
        if without:
            told.append(f"{self.path.name} has no row for {len(without)} of {len(there)} cases: {some(without)}")
        if strange:
            told.append(f"{self.path.name} has {len(strange)} rows of cases that are not there: {some(strange)}")
        return told


def read_case_table(folder: Path, *, class_names: Sequence[str] = ()) -> CaseTable | None:
    """The ``cases.csv`` of a data set's folder; ``None`` if there is none.

    Args:
        folder: The data set's folder.
        class_names: Its classes; they decide whether a column ``labels`` names classes.

    Raises:
        ReadError: if it cannot be read, no column names the cases, a case has two rows, or a split is unknown.
    """
    path = next((one for one in sorted(folder.glob("*.csv")) if one.name.lower() == CASE_TABLE), None)
    if path is None:
        return None
    header, lines = _lines(path)
    columns = _columns(path, header, lines, class_names)
    rows: dict[str, CaseRow] = {}
    for number, cells in enumerate(lines, start=2):
        named = {what: cells.get(name, "") for name, what in columns.items()}
        case = _case_of(named.pop("case"))
        if not case:
            raise ReadError(f"{path}, line {number}: the case has no name")
        if case in rows:
            raise ReadError(f"{path}, line {number}: the case {case} has two rows")
        rows[case] = CaseRow(
            patient=named.get("patient") or None,
            class_name=named.get("class") or None,
            split=_split(path, number, named.get("split", "")),
            annotated=_annotated(named["annotated classes"], class_names) if "annotated classes" in named else None,
            labels={name: _value(text) for name, text in cells.items() if name not in columns},
        )
    return CaseTable(path, rows, columns)


def _lines(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows; separated by comma, semicolon or tab, whichever the header has most."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror}") from error
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ReadError(f"{path} is no text in UTF-8. Save it as CSV UTF-8") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=separator)]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise ReadError(f"{path} is empty")
    header, *others = rows
    wrong = next(
        (n for n, row in enumerate(others, start=2) if len(row) > len(header) and any(row[len(header) :])), None
    )
    if wrong is not None:
        raise ReadError(f"{path}, line {wrong}: more cells than columns ({', '.join(header)})")
    return header, [dict(zip(header, row, strict=False)) for row in others]


def _columns(
    path: Path, header: Sequence[str], lines: Sequence[Mapping[str, str]], class_names: Sequence[str]
) -> dict[str, str]:
    """The columns that mean something here, and what they mean."""
    plain = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in reversed(header)}
    found: dict[str, str] = {}
    for what, names in (("case", _ID), ("patient", _PATIENT), ("class", _CLASS), ("split", _SPLIT)):
        column = next((plain[name] for name in names if name in plain and plain[name] not in found), None)
        if column is None:
            continue
        if what == "split" and not {line.get(column, "").lower() for line in lines} & set(_SPLITS):
            continue  # words of another kind: "shared" and "held back"
        found[column] = what
    if "case" not in found.values():
        raise ReadError(
            f"{path} must have a column that names the case ({', '.join(_ID[:4])}), got {', '.join(header)}"
        )
    known = {normalised(name) for name in class_names}
    for name in _ANNOTATED:
        column = plain.get(name)
        if column is None or column in found:
            continue
        words = {normalised(w) for line in lines for w in _annotated(line.get(column, ""), class_names) or ()}
        if name in _ANNOTATED[:3] or words & known:  # "labels" may be words of any kind: "partial"
            found[column] = "annotated classes"
            break
    return found


def _case_of(text: str) -> str:
    """Case id of a cell, which may be a path from any system; only endings of image files are taken off."""
    name = unicodedata.normalize("NFC", PureWindowsPath(text).name)
    return _ENDING.sub("", name)


def _split(path: Path, number: int, text: str) -> Split | None:
    if not text:
        return None
    if text.lower() not in _SPLITS:
        raise ReadError(f"{path}, line {number}: the split must be train, val or test, got {text!r}")
    return _SPLITS[text.lower()]


def _annotated(text: str, class_names: Sequence[str]) -> tuple[str, ...] | None:
    """Names of classes, separated by ``;``, ``|`` or ``,``, else by spaces; ``None`` for all classes."""
    if text.lower() in _ALL_CLASSES:
        return None
    if same_name(text, class_names) is not None:
        return (text,)
    parts = re.split(r"[;|,]", text) if re.search(r"[;|,]", text) else text.split()
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _value(text: str) -> CaseLabel:
    """A cell as a number if it is one."""
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def class_named(text: str, names: Mapping[str, str]) -> str | None:
    """The class that a word of the table means, by ``names`` (as it may be written, to its name), or ``None``."""
    written = same_name(text, list(names))
    return None if written is None else names[written]
