"""``watch --discard`` removes only what was segmented, written and read back; names from outside lead nowhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from result_case import put

from medmaskrcnn.batch_runs.plan import BatchPlan
from medmaskrcnn.batch_runs.run import BatchRun
from medmaskrcnn.batch_runs.settings import Work
from medmaskrcnn.batch_runs.task import Task
from medmaskrcnn.batch_runs.worker_pool import End
from medmaskrcnn.errors import ArchiveError, OutputError
from medmaskrcnn.hub.model_file import model_sha256, resolve_model
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.services.pacs.pull import DuplicateError, pull, pull_series, write_object
from medmaskrcnn.services.pacs.receive import Inbox
from medmaskrcnn.services.pacs.server import Query, RemoteSeries, Server
from medmaskrcnn.services.pacs.watch import Asked, Received, watch
from medmaskrcnn.settings import OutputOptions, SegmentOptions
from medmaskrcnn.structures.store import save_case
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

pytest.importorskip("pynetdicom", reason="needs pynetdicom (pip install 'medmaskrcnn[pacs]')")

Kind = str


class Pool:
    """In place of worker processes: each case ends as ``ends_as`` says, and ``meanwhile`` happens while it runs."""

    def __init__(self, ends_as: Callable[[Task], Kind], meanwhile: Callable[[Task], None]) -> None:
        self.ends_as, self.meanwhile, self.tasks = ends_as, meanwhile, []

    def has_capacity(self, *, alone: bool) -> bool:
        return not self.tasks

    def submit(self, task: Task, *, alone: bool) -> None:
        self.tasks.append(task)

    def ends(self, timeout_s: float) -> list[End]:
        task = self.tasks.pop()
        self.meanwhile(task)
        kind: Any = self.ends_as(task)
        if kind in ("done", "broken"):
            volume = read_volume(Path(task.files[0]).parent)
            file = Path(task.out) / task.folder / "instances.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            save_case(put(volume, {"liver": [np.ones(volume.grid.shape, bool)]}), file)
            if kind == "broken":
                file.write_bytes(file.read_bytes()[:100])
        return [End(task.id, "done" if kind == "broken" else kind, None if kind == "done" else "a reason")]

    def close(self, *, at_once: bool) -> None:
        pass


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = []
    for seed in range(3):
        folders.append(tmp_path_factory.mktemp("scan") / "ct")
        settings = PhantomSettings(seed=seed, shape=(5, 24, 24), spacing_mm=(40.0, 15.0, 15.0), tumours=0)
        write_dicom_series(make_phantom(settings), folders[-1])
    return folders


class Lying:
    """Arrivals without a network: folders below ``incoming``, each told once until it has changed."""

    def __init__(self, incoming: Path) -> None:
        self.incoming, self.seen = incoming, {}

    def next(self, known: set[str]) -> list[Path]:
        now = {folder: sorted(folder.iterdir()) for folder in sorted(self.incoming.glob("*/*"))}
        changed = [folder for folder, files in now.items() if self.seen.get(folder) != files]
        self.seen = now
        return changed

    def close(self) -> None:
        pass


def take_in(incoming: Path, scan: Path, *, but: int = 0) -> Path:
    """Write a scan's objects as the listener does, without the last ``but`` slices; gives its folder."""
    objects = sorted(map(dcmread, scan.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    folder = incoming / objects[0].StudyInstanceUID / objects[0].SeriesInstanceUID
    for one in objects[: len(objects) - but]:
        write_object(one, folder)
    return folder


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """``watched(ends_as, meanwhile, stop_after)``: a watch with ``--discard``; gives the status of each case."""
    file = resolve_model("phantom-ct")
    output = OutputOptions(formats=("json",), paths_in_run=False)
    plan = BatchPlan(Work(str(file), model_sha256(file), SegmentOptions(), output))

    def run(
        ends_as: Callable[[Task], Kind] = lambda task: "done",
        meanwhile: Callable[[Task], None] = lambda task: None,
        stop_after: int = 99,
    ) -> list[str]:
        monkeypatch.setattr(BatchRun, "_start_worker", lambda self: Pool(ends_as, meanwhile))
        seen: list[str] = []
        left = iter(range(12))
        with BatchRun(tmp_path / "results", plan) as batch:
            batch.scan_sources([], quiet=True)

            def over() -> bool:
                return len(seen) >= stop_after or next(left, None) is None

            for one in watch(Lying(tmp_path / "incoming"), batch, discard=True, is_over=over, pause_s=0):
                if one.case:
                    seen.append(one.case.status)
                    if len(seen) >= stop_after:
                        batch.stop()
        return seen

    return run


def test_what_is_done_goes_and_what_is_refused_or_failed_stays(watched, tmp_path: Path, scans: list[Path]):
    folders = [take_in(tmp_path / "incoming", scan) for scan in scans]
    ends = {folder: kind for folder, kind in zip(folders, ("done", "refused", "failed"), strict=True)}
    assert sorted(watched(lambda task: ends[Path(task.files[0]).parent])) == ["done", "failed", "refused"]
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert all(len(list(folder.iterdir())) == 5 for folder in folders[1:])


def test_a_stop_leaves_the_queue_its_files(watched, tmp_path: Path, scans: list[Path]):
    folders = [take_in(tmp_path / "incoming", scan) for scan in scans]
    assert watched(stop_after=1) == ["done"]
    assert all(len(list(folder.iterdir())) == 5 for folder in folders)
    assert watched() == ["done", "done"]  # the rest at the next start; now all may go
    assert not any(folder.exists() for folder in folders)


def test_a_result_that_cannot_be_read_keeps_its_scan(watched, tmp_path: Path, scans: list[Path]):
    folder = take_in(tmp_path / "incoming", scans[0])
    assert watched(lambda task: "broken") == ["done"]
    assert len(list(folder.iterdir())) == 5


def test_a_series_that_grows_while_it_runs_is_segmented_again(watched, tmp_path: Path, scans: list[Path]):
    folder = take_in(tmp_path / "incoming", scans[0], but=1)
    grown = []

    def grow(task: Task) -> None:
        grown.append(len(task.files))
        take_in(tmp_path / "incoming", scans[0])

    assert watched(meanwhile=grow) == ["done", "done"]
    assert grown == [4, 5]
    assert not folder.exists()


def test_a_slice_that_comes_after_its_scan_is_gone_replaces_no_result(
    watched, tmp_path: Path, scans: list[Path], caplog
):
    folder = take_in(tmp_path / "incoming", scans[0])
    assert watched() == ["done"]
    (result,) = (tmp_path / "results").rglob("instances.npz")
    before = result.read_bytes()
    late = dcmread(sorted(scans[0].iterdir())[0])
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = f"{late.SOPInstanceUID}.1"
    write_object(late, folder)
    assert watched() == []
    assert result.read_bytes() == before
    assert len(list(folder.iterdir())) == 1
    assert "after its scan was discarded" in caplog.text
    shutil.rmtree(folder)
    take_in(tmp_path / "incoming", scans[0])  # the whole series again
    assert watched() == ["done"]


def test_what_lies_beside_a_scan_is_not_removed(watched, tmp_path: Path, scans: list[Path]):
    folder = take_in(tmp_path / "incoming", scans[0])
    (folder / "notes").mkdir()
    watched()
    assert len(list(folder.iterdir())) == 6


def test_the_same_again_is_well_and_another_of_its_uid_is_refused(tmp_path: Path, scans: list[Path]):
    one = dcmread(sorted(scans[0].iterdir())[0])
    assert write_object(one, tmp_path) == 1
    assert write_object(one, tmp_path) == 0
    (kept,) = tmp_path.iterdir()
    before = kept.read_bytes()
    one.PixelData = bytes(len(one.PixelData))
    with pytest.raises(DuplicateError, match="other content"):
        write_object(one, tmp_path)
    assert kept.read_bytes() == before


def test_a_sender_is_told_that_another_object_of_a_known_uid_is_not_stored(tmp_path: Path, scans: list[Path]):
    from medmaskrcnn.services.pacs.connect import open_archive

    inbox = Inbox(tmp_path / "incoming", port=0, title="NIGHT")
    try:
        archive = open_archive(Server(f"dicom://127.0.0.1:{inbox.port}", called="NIGHT", patience_s=0))
        one = dcmread(sorted(scans[0].iterdir())[0])
        archive.store(one)
        archive.store(one)
        one.PixelData = bytes(len(one.PixelData))
        with pytest.raises(ArchiveError, match="0x0111"):
            archive.store(one)
        archive.close()
    finally:
        inbox.close()


class Evil:
    """An archive that names its series so that they lead elsewhere."""

    server = Server("http://127.0.0.1:9", patience_s=0)
    asked: list[str]

    def __init__(self, study: str, series: str, scan: Path) -> None:
        self.series, self.scan, self.asked = RemoteSeries(study, series), scan, []

    def find(self, query: Query) -> list[RemoteSeries]:
        return [self.series]

    def instances(self, series: RemoteSeries) -> list[str]:
        self.asked.append(series.series)
        return [str(dcmread(file).SOPInstanceUID) for file in sorted(self.scan.iterdir())]

    def fetch(self, *_: object) -> Iterator[Dataset]:
        return map(dcmread, sorted(self.scan.iterdir()))


NAMES = [("..", "../victim"), ("../../victim", "1.2"), ("1.2", "../../victim"), ("/", "1"), ("1.2", ""), ("1", "..")]


@pytest.mark.parametrize(("study", "series"), NAMES)
def test_an_archive_cannot_choose_where_files_go(tmp_path: Path, scans: list[Path], study: str, series: str):
    out, victim = tmp_path / "a" / "out", tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis").touch()
    evil: Any = Evil(study, series, scans[0])
    (one,) = pull(evil, evil.find(Query()), out)
    assert "is no UID" in (one.error or "")
    assert Asked(evil, Query(), out, every_s=0).next(set()) == []
    assert evil.asked == []  # nor does the name get into an address
    assert [p.name for p in victim.iterdir()] == ["thesis"]
    assert list(out.rglob("*.dcm")) == []


def test_a_link_in_the_folder_of_pulls_is_not_followed(tmp_path: Path, scans: list[Path]):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "1.2").symlink_to(tmp_path / "elsewhere")
    evil: Any = Evil("1.2", "1.3", scans[0])
    assert "a link" in (pull_series(evil, RemoteSeries("1.2", "1.3"), tmp_path / "out").error or "")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("folder", ["../victim", "/victim", "a/../../victim", "."])
def test_a_ledger_cannot_name_a_folder_elsewhere(watched, tmp_path: Path, scans: list[Path], folder: str):
    import sqlite3

    folders = [take_in(tmp_path / "incoming", scan) for scan in scans[:1]]
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis").touch()
    watched(lambda task: "refused")
    with sqlite3.connect(tmp_path / "results" / "ledger.sqlite") as ledger:
        ledger.execute("UPDATE series SET folder = ?", (folder,))
    ledger.close()
    for file in folders[0].iterdir():
        os.utime(file, (1, 1))  # so that it is taken for another
    with pytest.raises(OutputError, match="refused"):
        watched()
    assert [p.name for p in victim.iterdir()] == ["thesis"]
    assert (tmp_path / "results" / "ledger.sqlite").exists()


def test_received_tells_a_folder_again_when_more_has_come(tmp_path: Path, scans: list[Path]):
    from medmaskrcnn.services.pacs.connect import open_archive

    inbox = Inbox(tmp_path / "incoming", port=0, title="NIGHT")
    try:
        archive = open_archive(Server(f"dicom://127.0.0.1:{inbox.port}", called="NIGHT", patience_s=0))
        files = sorted(scans[0].iterdir())
        arrivals = Received(inbox, 0.0)
        archive.store(dcmread(files[0]))
        assert len(arrivals.next(set())) == 1
        assert arrivals.next(set()) == []
        archive.store(dcmread(files[1]))
        assert len(arrivals.next(set())) == 1
        archive.close()
    finally:
        inbox.close()
