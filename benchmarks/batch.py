"""What a batch promises, measured: nothing lost or done twice, faster than a loop, steady memory, a page that opens.

    python benchmarks/batch.py night --series 200 --kills 10 --real "$MEDMASKRCNN_DATA/dicom"
    python benchmarks/batch.py throughput --series 50
    python benchmarks/batch.py memory --series 300
    python benchmarks/batch.py page --cases 1000 --chromium chromium --screenshot page.png

The series are phantoms; a tenth of those of ``night`` are broken or foreign, and with ``--real`` some are real ones,
which any model takes then. The model is one that ships, or with ``--model tiny`` one of random weights that takes
milliseconds a slice, so that what is measured is all the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

import medmaskrcnn
from medmaskrcnn.batch_runs.find import FoundSeries
from medmaskrcnn.batch_runs.ledger import Ledger
from medmaskrcnn.batch_runs.summary import write_summary
from medmaskrcnn.system.memory import resident_mb
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

PROGRAM = [sys.executable, "-c", "from medmaskrcnn.cli.main import main; main()"]
VARIES = {"run.json", "ledger.sqlite", ".lock.sqlite"}


def write_series(root: Path, count: int) -> list[Path]:
    """Small phantoms, a folder each."""
    folders = []
    for seed in range(count):
        settings = PhantomSettings(seed=seed, shape=(8, 48, 48), spacing_mm=(40.0, 7.7, 7.7), tumours=1)
        folders.append(root / f"Patient^{seed:03}" / "ct")
        write_dicom_series(make_phantom(settings), folders[-1])
    return folders


def spoil(folders: list[Path], root: Path) -> None:
    """Make something broken or foreign of each series, in turn."""
    for number, folder in enumerate(folders):
        files = sorted(folder.iterdir())
        match number % 5:
            case 0:
                files[3].unlink()  # a slice is missing
            case 1:
                files[2].write_bytes(files[2].read_bytes()[:-500])  # cut short
            case 2:
                for file in files:
                    file.write_bytes(random.Random(number).randbytes(4000))  # noise
                for file in files[1:]:
                    file.unlink()
            case 3:
                shutil.rmtree(folder)
                four = np.zeros((8, 8, 4, 3), np.int16)
                import nibabel as nib

                nib.save(nib.Nifti1Image(four, np.eye(4)), root / f"four{number}.nii")
            case _:
                files[0].write_bytes(files[0].read_bytes()[:600])  # a header cut short
                for file in files[1:]:
                    file.unlink()


def tree(out: Path) -> dict[str, bytes]:
    """Every file but those that vary from run to run."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name not in VARIES}


def night(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """One run at once, one that is killed again and again: the same tree."""
    real = 0
    if options.real:
        shutil.copytree(options.real, root / "in" / "real", ignore=shutil.ignore_patterns("truth"))
        real = len(medmaskrcnn.describe(root / "in" / "real"))
    folders = write_series(root / "in", options.series - real)
    spoil(folders[: options.series // 10], root / "in")
    (root / "key").write_text("0123456789abcdef" * 4)
    command = [*PROGRAM, "batch", str(root / "in"), "--model", options.model, "--key-file", str(root / "key"), "-q"]
    command += ["--allow-out-of-domain"] * bool(real)
    subprocess.run(
        [*command, "-o", str(root / "whole")], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    rng = random.Random(1)
    kills = 0
    while kills < options.kills:
        done_before = done(root / "out")
        program = subprocess.Popen(
            [*command, "-o", str(root / "out")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        target = done_before + rng.randint(0, max(1, options.series // (options.kills + 1)))
        while program.poll() is None and done(root / "out") < target:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        if program.poll() is not None:
            break
        program.kill()
        program.wait()
        kills += 1
    last = subprocess.run([*command, "-o", str(root / "out")], check=False, capture_output=True, text=True)
    one, other = tree(root / "whole"), tree(root / "out")
    with closing(sqlite3.connect(root / "out" / "ledger.sqlite")) as ledger:
        begun = ledger.execute("SELECT sum(attempts), sum(status = 'done') FROM series").fetchone()
        reasons = ledger.execute("SELECT status, reason FROM series WHERE status != 'done'").fetchall()
    return {
        "series": options.series,
        "real ones among them": real,
        "kills": kills,
        "said": last.stdout.strip(),
        "exit code": last.returncode,
        "files": len(one),
        "files that differ": sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name)),
        "cases begun": begun[0],
        "cases done": begun[1],
        "reasons": [f"{status}: {reason}" for status, reason in reasons],
    }


def done(out: Path) -> int:
    """Series done so far."""
    try:
        with closing(sqlite3.connect(f"file:{out / 'ledger.sqlite'}?mode=ro", uri=True, timeout=10)) as ledger:
            return int(ledger.execute("SELECT count(*) FROM series WHERE status = 'done'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def throughput(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """A batch with one worker against a loop that calls ``segment`` for each series."""
    folders = write_series(root / "in", options.series)
    began = time.monotonic()
    subprocess.run(
        [*PROGRAM, "batch", str(root / "in"), "-o", str(root / "out"), "--model", options.model, "-q"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    batch_s = time.monotonic() - began
    looped = folders[: options.loop]
    began = time.monotonic()
    for number, folder in enumerate(looped):
        subprocess.run(
            [*PROGRAM, "segment", str(folder), "-o", str(root / f"loop{number}"), "--model", options.model, "-q"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    loop_s = (time.monotonic() - began) * options.series / len(looped)
    return {
        "series": options.series,
        "batch s": round(batch_s, 1),
        "loop s": round(loop_s, 1),
        "loop measured on": len(looped),
        "times as fast": round(loop_s / batch_s, 2),
    }


def memory(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Resident memory of the one worker after each case."""
    write_series(root / "in", min(options.series, 50))
    for copy in range(1, -(-options.series // 50)):  # the same again under other names: other files
        write_copies(root / "in", root / f"copy{copy}", copy)
    sources = [path for path in root.iterdir() if path.is_dir()]
    sizes = []
    for _ in medmaskrcnn.batch(sources, root / "out", model=options.model):
        (worker,) = children(os.getpid())
        sizes.append(resident_mb(worker) or 0.0)
    warm, last = mean(sizes[50:100]) if len(sizes) >= 150 else mean(sizes[10:20]), mean(sizes[-50:])
    return {
        "cases": len(sizes),
        "after warm-up MB": round(warm, 1),
        "last MB": round(last, 1),
        "growth percent": round(100 * (last / warm - 1), 2),
    }


def write_copies(source: Path, target: Path, number: int) -> None:
    """The same scans as other series of other patients."""
    from pydicom import dcmread

    for file in (path for path in source.rglob("*") if path.is_file()):
        header = dcmread(file)
        header.PatientID = f"{header.PatientID}-{number}"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            setattr(header, keyword, f"{header[keyword].value[:55]}.{number}")
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        header.save_as(place)


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def page(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """A summary of many cases, and how long a browser takes to show it."""
    rng = np.random.default_rng(0)
    ledger = Ledger(root)
    ledger.set_meta("model", "phantom-ct")
    ledger.set_meta("said", "score=None, classes=None, formats=['csv', 'json', 'nifti', 'png']")
    names = ("liver", "spleen", "left kidney", "right kidney", "vertebra", "tumour", "left lung", "right lung")
    with ledger.at_once():
        for n in range(options.cases):
            enter_case(ledger, root, n, rng, names)
    write_summary(root, ledger)
    ledger.close()
    answer = {"cases": options.cases, "bytes": (root / "summary.html").stat().st_size}
    if options.chromium:
        answer |= shown(options, root)
    return answer


def enter_case(ledger: Ledger, root: Path, n: int, rng: np.random.Generator, names: tuple[str, ...]) -> None:
    """One made-up case with a thumbnail."""
    folder = f"patient-{n // 3:012x}/study-{n // 2:012x}/series-{n:012x}"
    found = FoundSeries(f"1.2.{n}", "queued", None, (f"/data/{n}.dcm",), "f", "p", "s", "ct", modality="CT", slices=90)
    ledger.add(found, folder)
    (number,) = (entry.id for entry in ledger.entries() if entry.folder == folder)
    if n % 25 == 0:
        ledger.finishes(number, "refused", f"1 slice is missing: 10 mm between slices 3 and 4 of /data/{n}.dcm", 1, {})
    elif n % 60 == 7:
        ledger.finishes(number, "failed", "took longer than the 600 s allowed, at the step: segment", 600, {})
    else:
        counts = {name: int(rng.integers(1, 5)) for name in names if rng.random() < 0.7}
        ledger.finishes(number, "done", None, 5, {"counts": counts, "instances": sum(counts.values())})
        (root / folder).mkdir(parents=True)
        y, x = np.mgrid[:80, :106]
        body = ((y - 40) / 34) ** 2 + ((x - 53) / 46) ** 2 < 1
        grey = np.where(body, 90 + 40 * np.sin(x / (3 + n % 7)) + rng.normal(0, 9, body.shape), 0).clip(0, 255)
        Image.fromarray(grey.astype(np.uint8)).convert("RGB").save(root / folder / "thumbnail.jpg", quality=80)


def shown(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Load time by the browser's own clock, and a picture."""
    probe = root / "probe.html"
    text = (root / "summary.html").read_text()
    clock = (
        "<script>addEventListener('load', () => setTimeout(() => {"
        "const took = performance.getEntriesByType('navigation')[0].loadEventEnd;"
        "const rows = document.querySelectorAll('tbody tr').length;"
        "document.title = `loaded ${Math.round(took)} rows ${rows}` }, 0))</script></body>"
    )
    probe.write_text(text.replace("</body>", clock))
    browser = [options.chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={root / 'profile'}"]
    dom = subprocess.run(
        [*browser, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    title = dom[dom.index("<title>") + 7 : dom.index("</title>")]
    if options.screenshot:
        target = Path(options.screenshot).absolute()
        subprocess.run(
            [*browser, f"--screenshot={target}", "--window-size=1500,1100", (root / "summary.html").as_uri()],
            capture_output=True, timeout=120, check=True,
        )  # fmt: skip
    return {"browser says (ms until load)": title}


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["night", "throughput", "memory", "page"])
    parser.add_argument("--series", type=int, default=50)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--real", help="a folder of real series, taken into night")
    parser.add_argument("--loop", type=int, default=10, help="series of the loop that are really run")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--model", default="phantom-ct", help="a name, a file, or tiny")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--screenshot")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.model == "tiny":
            options.model = str(save_tiny(root / "tiny.safetensors"))
        work = root / "work"
        work.mkdir()
        print(json.dumps(globals()[options.what](options, work), indent=2))


def save_tiny(path: Path) -> Path:
    """A model of slices with random weights."""
    import torch

    from medmaskrcnn import settings as config
    from medmaskrcnn.hub.model_file import save_model
    from medmaskrcnn.models.build import build_model

    settings = config.ModelFileSettings(
        card=config.ModelCard(name="tiny", licence="CC0-1.0"),
        model=config.ModelSettings(
            class_names=("liver", "tumour"),
            backbone=config.BackboneSettings(name="light", light_channels=(8, 8, 8, 8), fpn_channels=8),
            anchors=config.AnchorSettings(sizes=((8, 8), (16, 16), (32, 32), (64, 64), (128, 128))),
            rpn=config.RPNSettings(pre_nms_top_n=50, post_nms_top_n=20),
            roi=config.RoISettings(box_hidden=16, mask_channels=8, mask_convs=1),
            detection=config.DetectionSettings(score_thresh=0.0, detections_per_img=3, mask_threshold=0.0),
        ),
        preprocess=config.PreprocessSettings(percentiles=(1, 99)),
        inference=config.InferenceSettings(score=0.0),
    )
    torch.manual_seed(0)
    save_model(build_model(settings.model), settings, path)
    return path


if __name__ == "__main__":
    main()
