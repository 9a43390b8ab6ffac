"""Damage sound files in thousands of ways and read them: only our own errors may come out.

    python -m benchmarks fuzz --count 20000 --seed 0 --json fuzz.json
    python -m benchmarks fuzz --count 100000 --parts fuzz-parts     # in parts of 1000; the same command goes on

Scans, labels, models, results and manifests are damaged by bits and bytes, and by field (``fuzz_fields.py``). Each case
is made from the seed and its number alone (``--only NUMBER`` repeats one). Cases run in processes of their own, which
are watched: a case fails if anything but a ``MedMaskRCNNError`` is raised, if the process dies, if it takes more than
10 s or more than 2 GB of memory, or if a file is there afterwards that was not there before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fuzz_corpus import write_corpus  # beside this file, wherever that is
from fuzz_fields import changed

MAX_SECONDS = 10.0
MAX_MEGABYTES = 2048.0
STARVED = 12
NUMBER_ELEMENTS = re.compile(rb"[\x02\x08\x10\x11\x00\x01\x03]\x00US\x02\x00", re.DOTALL)
"""DICOM elements of one 16-bit number, in explicit VR: rows, columns, bits, samples, representation."""
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
SHARES = {"scan": 0.30, "labels": 0.24, "model": 0.10, "result": 0.18, "manifest": 0.18}
BY_FIELD = 0.4
PART = 1000


@dataclass(frozen=True)
class Finding:
    """A case that did what no reader may do."""

    number: int
    file: str
    problem: str
    details: str = ""


def damaged(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """One to eight random damages.

    Bits, bytes, lengths; pieces cut out, doubled, inserted, zeroed, taken from another file; the end cut off; digits of
    numbers written as text; binary values of DICOM elements, which leaves the file's structure sound.
    """
    content = bytearray(data)
    # Headers decide what happens; half of the damage goes there.
    reach = len(content) if rng.random() < 0.5 else min(len(content), 1500)
    for _ in range(int(rng.integers(1, 9)) if rng.random() < 0.7 else 1):
        if len(content) < 16:
            break
        at = int(rng.integers(0, max(1, min(reach, len(content)) - 8)))
        size = int(2 ** rng.uniform(0, 9))
        match int(rng.integers(0, 12)):
            case 0:
                content[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                content[at] = int(rng.integers(0, 256))
            case 2:
                width = int(rng.choice([2, 4]))
                value = INTERESTING[int(rng.integers(0, len(INTERESTING)))] & ((1 << 8 * width) - 1)
                content[at : at + width] = value.to_bytes(width, "little" if rng.random() < 0.8 else "big")
            case 3:
                del content[at : at + size]
            case 4:
                content[at:at] = content[at : at + size]
            case 5:
                content[at:at] = rng.bytes(size)
            case 6:
                content[at : at + size] = bytes(len(content[at : at + size]))
            case 7:
                start = int(rng.integers(0, max(1, len(other) - size)))
                content[at : at + size] = other[start : start + size]
            case 8:
                del content[int(rng.integers(1, len(content))) :]
            case 9 | 10:
                digits = [i for i in range(min(reach, 4000, len(content))) if chr(content[i]) in "0123456789."]
                for i in rng.choice(digits, int(rng.integers(1, 4))) if digits else ():
                    content[i] = ord(str(rng.choice(list("0123456789.-e\\ "))))
            case 11:
                elements = [m.end() for m in NUMBER_ELEMENTS.finditer(content[:4000])]
                if elements:
                    value = INTERESTING[int(rng.integers(0, len(INTERESTING)))] & 0xFFFF
                    start = int(rng.choice(elements))
                    content[start : start + 2] = value.to_bytes(2, "little")
    return bytes(content)


class Case:
    """One damaged file and the reader that it is for."""

    def __init__(self, corpus: dict[str, list[Path]], seed: int, number: int) -> None:
        rng = np.random.default_rng([seed, number])
        self.kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        files = corpus[self.kind]
        self.source = files[int(rng.integers(0, len(files)))]
        other = files[int(rng.integers(0, len(files)))]
        data = self.source.read_bytes()
        content = changed(self.source.name, data, rng) if rng.random() < BY_FIELD else None
        self.content = damaged(data, rng, other.read_bytes()[:100_000]) if content in (None, data) else content
        self.among_slices = self.kind == "scan" and self.source.suffix == ".dcm" and rng.random() < 0.2

    def write(self, folder: Path, corpus: dict[str, list[Path]]) -> Path:
        """Write it into an empty folder, now and then as one slice of a series; what is to be read."""
        path = folder / self.source.name
        if path.name == "DICOMDIR":
            shutil.copytree(self.source.parent, folder, dirs_exist_ok=True)
        if self.kind == "manifest":
            for beside in self.source.parent.glob("*.nii"):
                shutil.copy(beside, folder)
        path.write_bytes(self.content)
        if not self.among_slices:
            return path
        for slice_path in corpus["series"][1:]:
            shutil.copy(slice_path, folder)
        return folder

    def read(self, path: Path, scan: Any) -> None:
        """Hand it to its reader."""
        from medmaskrcnn.data.check import check_manifest
        from medmaskrcnn.data.manifest import read_manifest
        from medmaskrcnn.hub.model_file import read_model, read_model_settings
        from medmaskrcnn.io.discover import find_scans
        from medmaskrcnn.io.labels.read import load_labels
        from medmaskrcnn.structures.store import load_case

        if self.kind == "labels":
            load_labels(path, scan, kind="semantic" if len(self.content) % 2 else "instance")
        elif self.kind == "model":
            read_model_settings(path)
            read_model(path)
        elif self.kind == "result":
            load_case(path)
        elif self.kind == "manifest":
            check_manifest(read_manifest(path))
        else:
            for found in find_scans(path):
                found.read()


def serve(pipe: Connection, corpus: dict[str, list[Path]], seed: int, home: Path) -> None:
    """A worker: case numbers in, outcomes out."""
    import torch

    from medmaskrcnn.errors import MedMaskRCNNError
    from medmaskrcnn.hub.model_file import read_model
    from medmaskrcnn.io.read import read_volume

    torch.set_num_threads(1)
    tempfile.tempdir = str(home / "tmp")
    (home / "tmp").mkdir(parents=True)
    os.chdir(home)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders complain about
    scan = read_volume(corpus["series"][0].parent)
    read_model(corpus["model"][0])
    (home / "case").mkdir()
    known = listing(home)  # torch makes a folder for its cache
    shutil.rmtree(home / "case")
    pipe.send("ready")
    for number in iter(pipe.recv, None):
        case = Case(corpus, seed, number)
        folder = home / "case"
        folder.mkdir()
        path = case.write(folder, corpus)
        known_here = known | listing(folder, home)
        outcome, details = "read", ""
        try:
            case.read(path, scan)
        except MedMaskRCNNError as error:
            outcome = "refused" if str(error) else "refused without a word"
        except BaseException as error:
            outcome, details = f"{type(error).__name__}: {error}"[:200], traceback.format_exc()[-1500:]
        if left := sorted(listing(home) - known_here):
            outcome, details = "files left behind", ", ".join(left)
        shutil.rmtree(folder)
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pipe.send((outcome, details, megabytes))


def listing(folder: Path, home: Path | None = None) -> set[str]:
    """Everything below a folder."""
    return {str(p.relative_to(home or folder)) for p in folder.rglob("*")}


class Worker:
    """A process that can be given up."""

    def __init__(self, corpus: dict[str, list[Path]], seed: int, home: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, corpus, seed, home), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()  # ready: importing does not count as time of a case

    def run(self, number: int) -> tuple[str, str, float]:
        """Outcome, details and peak memory in MB so far."""
        before = self._cpu_seconds()
        self.pipe.send(number)
        # A process of low priority on a busy machine waits for its turn: then its own time is what counts.
        for _ in range(STARVED):
            if self.pipe.poll(MAX_SECONDS):
                break
            if self._cpu_seconds() - before > MAX_SECONDS or not Path("/proc").is_dir():
                return f"no answer within {MAX_SECONDS:g} s", "", 0.0
        else:
            return f"no answer within {STARVED * MAX_SECONDS:g} s", "", 0.0
        try:
            outcome, details, megabytes = self.pipe.recv()
        except EOFError:
            self.process.join()
            return f"the process died with {self.process.exitcode}", "", 0.0
        return outcome, details, megabytes

    def _cpu_seconds(self) -> float:
        """Time that the process has computed (Linux; elsewhere 0)."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Stop it, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def fuzz(numbers: range, seed: int, folder: Path, *, progress: bool = False) -> dict[str, Any]:
    """Run cases and gather what they did.

    Args:
        numbers: Of the cases.
        seed: Of all of them.
        folder: Empty; everything is written below it.
        progress: Tell every thousand cases on standard error.

    Returns:
        Counts of outcomes by kind, the findings, peak memory in MB and the slowest case in seconds.
    """
    started = time.perf_counter()
    corpus = write_corpus(folder / "corpus")
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    peak, slowest, homes = 0.0, 0.0, 0
    worker = Worker(corpus, seed, folder / "home0")
    for number in numbers:
        case = Case(corpus, seed, number)
        began = time.perf_counter()
        outcome, details, megabytes = worker.run(number)
        slowest, peak = max(slowest, time.perf_counter() - began), max(peak, megabytes)
        counts[f"{case.source.name}: {outcome if outcome in ('read', 'refused') else 'FAILED'}"] += 1
        if outcome not in ("read", "refused"):
            findings.append(Finding(number, case.source.name, outcome, details))
        if megabytes > MAX_MEGABYTES:
            findings.append(Finding(number, case.source.name, f"{megabytes:.0f} MB of memory"))
        if megabytes == 0.0 or megabytes > MAX_MEGABYTES or outcome == "files left behind":
            worker.end()
            homes += 1
            worker = Worker(corpus, seed, folder / f"home{homes}")
        if progress and (number + 1 - numbers.start) % 1000 == 0:
            print(f"{number + 1 - numbers.start} of {len(numbers)}, {len(findings)} findings", file=sys.stderr)
    worker.end()
    return {
        "cases": len(numbers),
        "seed": seed,
        "outcomes": dict(sorted(counts.items())),
        "peak_megabytes": round(peak, 1),
        "slowest_seconds": round(slowest, 3),
        "seconds": round(time.perf_counter() - started, 1),
        "findings": [asdict(f) for f in findings],
    }


def fuzz_in_parts(count: int, start: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run cases in parts, whose reports lie in a folder; parts that are there are not run again.

    Returns:
        The sum of all parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reports = []
    for first in range(start, start + count, PART):
        file = folder / f"seed{seed}-{first:07d}.json"
        if not file.exists():
            with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
                report = fuzz(range(first, min(first + PART, start + count)), seed, Path(home))
            file.with_suffix(".partial").write_text(json.dumps(report, indent=1) + "\n")
            file.with_suffix(".partial").replace(file)
            print(f"{first + PART - start} of {count}, {len(report['findings'])} findings here", file=sys.stderr)
        reports.append(json.loads(file.read_text()))
    outcomes: Counter[str] = Counter()
    for report in reports:
        outcomes.update(report["outcomes"])
    return {
        "cases": sum(report["cases"] for report in reports),
        "seed": seed,
        "outcomes": dict(sorted(outcomes.items())),
        "peak_megabytes": max(report["peak_megabytes"] for report in reports),
        "slowest_seconds": max(report["slowest_seconds"] for report in reports),
        "seconds": round(sum(report["seconds"] for report in reports), 1),
        "findings": [finding for report in reports for finding in report["findings"]],
    }


def main() -> int:
    """Command line; exit code 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat one case here, with its traceback")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--parts", type=Path, metavar="FOLDER", help=f"{PART} cases at a time, each with its report here"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        if args.only is not None:
            return repeat(args.only, args.seed, Path(folder))
        if args.parts is not None:
            report = fuzz_in_parts(args.count, args.start, args.seed, args.parts)
        else:
            report = fuzz(range(args.start, args.start + args.count), args.seed, Path(folder), progress=True)
    text = json.dumps(report, indent=1)
    if args.json:
        args.json.write_text(text + "\n")
    print(text)
    return 1 if report["findings"] else 0


def repeat(number: int, seed: int, folder: Path) -> int:
    """One case in this process."""
    from medmaskrcnn.io.read import read_volume

    corpus = write_corpus(folder / "corpus")
    case = Case(corpus, seed, number)
    (folder / "case").mkdir()
    case.read(case.write(folder / "case", corpus), read_volume(folder / "corpus" / "series"))
    print("read without complaint")
    return 0


if __name__ == "__main__":
    sys.exit(main())
