"""What one `segment study -o out` crosses: files, functions and record types of ours, by room.

    python benchmarks walk
    python benchmarks walk study/ --files --json benchmarks/results/walk.json

Without a study it makes a phantom one. The command line's `segment` runs once in this process, with every call of a
Python function recorded. Counted are functions that were called, methods and properties too, but not comprehensions and
lambdas; the files that they stand in; and dataclasses, pydantic models and named tuples of which an instance was made.
What runs only because a module is imported (decorators, default values, tables that are computed) is counted on its
own: `loaded` are all modules that were imported.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGES = ("medmaskrcnn", "medmaskrcnn_kernels", "medmaskrcnn_datasets")
_OPTIMIZED = 0x1
"""Flag of a function's code; the bodies of modules and classes lack it."""


@dataclass
class Walk:
    """What was crossed.

    Attributes:
        called: Code of every function that was called after its module had been imported.
        importing: Code of functions that were called while a module of ours was being imported.
        records: Names of record types of which an instance was made.
    """

    called: set[CodeType] = field(default_factory=set)
    importing: set[CodeType] = field(default_factory=set)
    records: set[str] = field(default_factory=set)

    def note(self, frame: FrameType, event: str, result: Any) -> None:
        """A profile function (:func:`sys.setprofile`)."""
        code = frame.f_code
        if event == "call" and module_of(code):
            if code.co_flags & _OPTIMIZED and not code.co_name.startswith("<"):
                (self.importing if _is_importing(frame) else self.called).add(code)
        elif event == "call" and code.co_name in ("__init__", "__new__") and not _is_importing(frame):
            # Constructors of records are made by the standard library or by pydantic, not written in our files.
            self._note_record(frame.f_locals.get(code.co_varnames[0]) if code.co_varnames else None)
        elif event == "return" and code.co_name in ("model_validate", "model_validate_json"):
            self._note_record(result)

    def _note_record(self, record: Any) -> None:
        """Note an instance or a class of ours, and the records that pydantic puts into a model."""
        kind = record if isinstance(record, type) else type(record)
        is_model = hasattr(kind, "model_fields")
        if (is_dataclass(kind) or is_model or hasattr(kind, "_fields")) and kind.__module__.split(".")[0] in PACKAGES:
            self.records.add(f"{kind.__module__}.{kind.__qualname__}")
            if is_model and record is not kind:
                for value in vars(record).values():
                    self._note_record(value)


def module_of(code: CodeType) -> str:
    """Name of the module of ours that code stands in, with slashes; "" for other code."""
    parts = Path(code.co_filename).parts
    package = next((i for i, part in enumerate(parts) if part in PACKAGES), None)
    return "" if package is None else "/".join(parts[package:])


def _is_importing(frame: FrameType) -> bool:
    caller: FrameType | None = frame.f_back
    while caller is not None:
        if caller.f_code.co_name == "<module>" and module_of(caller.f_code):
            return True
        caller = caller.f_back
    return False


def room_of(file: str) -> str:
    """The folder below the package, or the package for loose modules."""
    parts = file.split("/")
    return parts[1] if parts[0] == "medmaskrcnn" and len(parts) > 2 else parts[0]


def walk(study: Path, out: Path, model: str) -> Walk:
    """Segment a study in this process."""
    crossed = Walk()
    threading.setprofile(crossed.note)
    sys.setprofile(crossed.note)
    try:
        from medmaskrcnn.cli.main import main

        sys.argv = ["medmaskrcnn", "segment", str(study), "-o", str(out), "--model", model]
        with contextlib.redirect_stdout(io.StringIO()):
            main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return crossed


def summary(crossed: Walk) -> dict[str, Any]:
    """Counts, and the files of each room with the functions that were called in each."""
    functions: dict[str, list[str]] = defaultdict(list)
    for code in crossed.called:
        functions[module_of(code)].append(code.co_qualname)
    rooms: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for file in sorted(functions):
        rooms[room_of(file)][file] = sorted(functions[file])
    loaded = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    return {
        "files": len(functions),
        "functions": sum(map(len, functions.values())),
        "records": len(crossed.records),
        "while importing": len(crossed.importing - crossed.called),
        "loaded": len(loaded),
        "rooms": rooms,
        "record types": sorted(crossed.records),
    }


def report(found: dict[str, Any], *, each_file: bool) -> str:
    """The summary as text."""
    lines = [
        f"{found['files']} files, {found['functions']} functions, {found['records']} record types; "
        f"{found['while importing']} more functions ran while {found['loaded']} modules were imported"
    ]
    for room, files in found["rooms"].items():
        lines.append(f"{room:20}{len(files):4} files{sum(map(len, files.values())):5} functions")
        if each_file:
            lines += [f"    {file:52}{len(names):4}  {', '.join(names)}" for file, names in files.items()]
    if each_file:
        lines += ["records:", *(f"    {name}" for name in found["record types"])]
    return "\n".join(lines)


def main() -> None:
    """Make a study if none is given, segment it, print what that crossed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", type=Path, help="a folder of DICOM; a phantom if not given")
    parser.add_argument("--model", default="phantom-ct")
    parser.add_argument("--files", action="store_true", help="list the files with the functions called in each")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = options.study or Path(folder) / "study"
        if options.study is None:
            size = ["--slices", "54", "--matrix", "128"]
            subprocess.run([sys.executable, "-m", "medmaskrcnn_datasets", "study", *size, "-o", study], check=True)
        found = summary(walk(study, Path(folder) / "out", options.model))
    print(report(found, each_file=options.files))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
