"""Damage by field for ``fuzz.py``: one value of a sound file becomes another one, and the file stays well formed.

Random bytes seldom get past a parser; a wrong value in the right place does. Values are numbers at the ends of their
types, empty and very long texts, control characters, paths that lead elsewhere, and other types.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import numpy as np
from pydicom import config, dcmread
from pydicom.dataset import Dataset

VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2, 255, 65535, 2**31 - 1, 2**31, 2**63, -(2**63), 1e308, -1e-308, float("nan"), "", " ", "\0",
    "x", "=1", "\x1b[2J", "../../etc/passwd", "/etc/passwd", "9" * 400, "-" * 5000, [], {}, [[]], [1, "a"], {"a": {}},
    "DOE^JANE", "1\\2\\3", "1e999", "NaN", "0,5",
)  # fmt: skip
_TEXTS = [str(value) for value in VALUES if not isinstance(value, list | dict)]


def changed(name: str, data: bytes, rng: np.random.Generator) -> bytes | None:
    """A file with one or two other values; ``None`` if its kind has no fields, or they cannot be changed so.

    Args:
        name: The file's name.
        data: Its content.
        rng: Decides what becomes of it.
    """
    for endings, change in _CHANGES:
        if name.endswith(endings):
            try:
                for _ in range(int(rng.integers(1, 3))):
                    data = change(data, rng)
            except Exception:  # the writing library refuses the value
                return None
            return data
    return None


def _json(data: bytes, rng: np.random.Generator) -> bytes:
    return json.dumps(_other(json.loads(data), rng)).encode()


def _other(document: Any, rng: np.random.Generator) -> Any:
    """The document with one value, key or list changed, wherever in it."""
    if isinstance(document, dict) and document and rng.random() < 0.9:
        key = list(document)[int(rng.integers(0, len(document)))]
        if rng.random() < 0.1:
            return {k: v for k, v in document.items() if k != key}
        return {**document, key: _other(document[key], rng)}
    if isinstance(document, list) and document and rng.random() < 0.9:
        at = int(rng.integers(0, len(document)))
        if rng.random() < 0.1:
            return [*document, *document]
        return [*document[:at], _other(document[at], rng), *document[at + 1 :]]
    return VALUES[int(rng.integers(0, len(VALUES)))]


def _text(data: bytes, rng: np.random.Generator) -> bytes:
    """NRRD and MetaImage: a line of the header with another value, twice, or gone."""
    end = data.find(b"\n\n") if data.startswith(b"NRRD") else data.find(b"LOCAL")
    lines = data[:end].split(b"\n")
    at = int(rng.integers(1, len(lines)))
    separator = b": " if data.startswith(b"NRRD") else b" = "
    name, _, value = lines[at].partition(separator)
    words = value.split()
    choice = int(rng.integers(0, 4))
    if choice == 0:
        lines.insert(at, lines[at])
    elif choice == 1:
        del lines[at]
    elif choice == 2 and words:
        words[int(rng.integers(0, len(words)))] = rng.choice(_TEXTS).encode("utf-8", "replace")
        lines[at] = name + separator + b" ".join(words)
    else:
        lines[at] = name + separator + rng.choice(_TEXTS).encode("utf-8", "replace")
    return b"\n".join(lines) + data[end:]


def _dicom(data: bytes, rng: np.random.Generator) -> bytes:
    """An attribute, of a nested item perhaps, with another value, or gone."""
    dataset = dcmread(io.BytesIO(data), force=True)
    _change_attribute(dataset, rng)
    stream = io.BytesIO()
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        dataset.save_as(stream)
    finally:
        config.settings.writing_validation_mode = before
    return stream.getvalue()


def _change_attribute(dataset: Dataset, rng: np.random.Generator) -> None:
    tags = list(dataset.keys())
    element = dataset[tags[int(rng.integers(0, len(tags)))]]
    if element.VR == "SQ" and element.value and rng.random() < 0.9:
        items = element.value
        _change_attribute(items[int(rng.integers(0, len(items)))], rng)
    elif rng.random() < 0.15:
        del dataset[element.tag]
    elif element.VR in ("US", "SS", "UL", "SL"):
        bits = 16 if element.VR in ("US", "SS") else 32
        element.value = int(rng.choice([0, 1, 2, 7, 255, (1 << (bits - 1)) - 1]))
    elif element.VR in ("FL", "FD"):
        element.value = float(rng.choice([0.0, -1.0, 1e30, float("nan"), float("inf")]))
    elif isinstance(element.value, bytes):
        element.value = element.value[: int(rng.integers(0, len(element.value) + 1))]
    else:
        element._value = rng.choice(_TEXTS)


def _safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    """A model: a value of its settings, or of the table of tensors."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    texts = [key for key, value in header["__metadata__"].items() if value.startswith("{")]
    if texts and rng.random() < 0.8:
        key = texts[int(rng.integers(0, len(texts)))]
        header["__metadata__"][key] = json.dumps(_other(json.loads(header["__metadata__"][key]), rng))
    else:
        header = _other(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _npz(data: bytes, rng: np.random.Generator) -> bytes:
    """A result: a value of its header, or another array."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {name: np.load(io.BytesIO(archive.read(name))) for name in archive.namelist()}
    name = list(entries)[int(rng.integers(0, len(entries)))]
    if name == "header.npy" or rng.random() < 0.6:
        text = json.dumps(_other(json.loads(entries["header.npy"].tobytes()), rng)).encode("ascii")
        entries["header.npy"] = np.frombuffer(text, np.uint8)
    elif entries[name].size and rng.random() < 0.8:
        values = entries[name].copy()
        values.reshape(-1)[int(rng.integers(0, values.size))] = rng.choice([0, 1, 255]) if values.itemsize < 8 else -1
        entries[name] = values
    else:
        entries[name] = entries[name][:0]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, values in entries.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(values), (1, 0), allow_pickle=False)
            archive.writestr(key, buffer.getvalue())
    return stream.getvalue()


_CHANGES = (
    ((".json",), _json),
    ((".nrrd", ".mha"), _text),
    ((".dcm",), _dicom),
    ((".safetensors",), _safetensors),
    ((".npz",), _npz),
)
