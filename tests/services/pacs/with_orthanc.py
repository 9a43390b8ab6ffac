"""Against a real archive. test_pacs_orthanc.py runs it as a pytest of its own, with no network but this machine's."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from pydicom import dcmread

from medmaskrcnn.errors import ArchiveError
from medmaskrcnn.services.pacs.archive import Archive, patiently
from medmaskrcnn.services.pacs.connect import open_archive
from medmaskrcnn.services.pacs.pull import pull
from medmaskrcnn.services.pacs.push import push, results_below
from medmaskrcnn.services.pacs.server import Credentials, Query, Server
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")
N_STUDIES = int(os.environ.get("ORTHANC_STUDIES", "4"))
N_SLICES = 6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """A server that can be stopped and started with what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.web, self.dimse = folder, free_port(), free_port()
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None
        settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [next(path for path in PLUGINS if Path(path).exists())],
            "HttpPort": self.web,
            "DicomPort": self.dimse,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowStore": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {"tester": self.password},
            "DicomWeb": {"Enable": True},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))

    def start(self) -> None:
        self.process = subprocess.Popen(["Orthanc", str(self.folder / "orthanc.json")], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.count()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def count(self) -> int:
        """Objects in the archive."""
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, f"http://127.0.0.1:{self.web}", "tester", self.password)
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
        with opener.open(f"http://127.0.0.1:{self.web}/statistics", timeout=20) as answer:
            return int(json.loads(answer.read())["CountInstances"])

    def server(self, protocol: str) -> Server:
        if protocol == "dimse":
            return Server(f"dicom://127.0.0.1:{self.dimse}", called="ORTHANC", timeout_s=20, patience_s=60)
        who = Credentials("tester", self.password)
        return Server(f"http://127.0.0.1:{self.web}/dicom-web", credentials=who, timeout_s=20, patience_s=60)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies, a folder each."""
    root = tmp_path_factory.mktemp("scans")
    for seed in range(N_STUDIES):
        settings = PhantomSettings(seed=seed, shape=(N_SLICES, 24, 24), spacing_mm=(40.0, 15.0, 15.0), tumours=0)
        write_dicom_series(make_phantom(settings), root / f"{seed}")
    return root


@pytest.fixture(scope="module")
def results(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SEG and SR of every study, as a batch lays them down; the instances are the phantom's truth."""
    from medmaskrcnn.export.write import write_result
    from medmaskrcnn.inference.measure import measure_instances
    from medmaskrcnn.io.read import read_volume
    from medmaskrcnn.structures.case_result import CaseResult, RunRecord
    from medmaskrcnn.structures.label_maps import instances_of_label_map

    root = tmp_path_factory.mktemp("results")
    for seed in range(N_STUDIES):
        settings = PhantomSettings(seed=seed, shape=(N_SLICES, 24, 24), spacing_mm=(40.0, 15.0, 15.0), tumours=0)
        phantom = make_phantom(settings)
        volume = read_volume(scans / f"{seed}")
        found = instances_of_label_map(phantom.labels, volume.grid, {i.value: i.class_name for i in phantom.instances})
        record = RunRecord("medmaskrcnn 0", "truth", "0" * 64, "CC0-1.0", "cpu", "fp32", {"classes": ["liver"]})
        result = CaseResult(found, 0.5, measure_instances(volume, found), record)
        write_result(result, volume, root / f"{seed}", formats=["seg", "sr"])
    return root


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    made = Orthanc(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def filled(orthanc: Orthanc, scans: Path) -> Orthanc:
    return fill(orthanc, scans)


@pytest.fixture(scope="module")
def standing(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A filled archive for tests that only ask."""
    made = Orthanc(tmp_path_factory.mktemp("orthanc"))
    made.start()
    yield fill(made, scans)
    made.kill()


def fill(orthanc: Orthanc, scans: Path) -> Orthanc:
    archive = open_archive(orthanc.server("web"))
    for file in sorted(scans.rglob("IM*")):
        archive.store(dcmread(file))
    assert orthanc.count() == N_STUDIES * N_SLICES
    return orthanc


def by_uid(folder: Path) -> dict[str, object]:
    return {
        str((d := dcmread(file)).SOPInstanceUID): d
        for file in folder.rglob("*")
        if file.suffix in ("", ".dcm") and file.is_file()
    }


def in_between(archive: Archive, after: int, do: Callable[[], object]) -> Archive:
    """The archive, and something that happens while its ``after``-th object is on its way."""
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            do()

    fetch, store = archive.fetch, archive.store

    def fetching(*arguments):
        for dataset in fetch(*arguments):
            count()
            yield dataset

    def storing(dataset):
        store(dataset)
        count()

    archive.fetch, archive.store = fetching, storing  # type: ignore[method-assign]
    return archive


@pytest.mark.parametrize("protocol", ["web", "dimse"])
def test_there_and_back(protocol: str, filled: Orthanc, scans: Path, results: Path, tmp_path: Path):
    """Found, pulled, results pushed and pulled again: what comes is what went, with the server killed in between."""

    def lost() -> None:
        filled.kill()
        Thread(target=lambda: (time.sleep(0.5), filled.start())).start()

    archive = open_archive(filled.server(protocol))
    wanted = archive.find(Query(modality="CT"))
    assert len(wanted) == len({series.study for series in wanted}) == N_STUDIES
    pulled = pull(in_between(archive, 2 * N_SLICES + 3, lost), wanted, tmp_path / "pulled")
    assert [one.error for one in pulled] == [None] * N_STUDIES
    assert sum(one.fetched for one in pulled) == N_STUDIES * N_SLICES
    assert by_uid(tmp_path / "pulled") == by_uid(scans)
    assert not list((tmp_path / "pulled").rglob("*.partial"))
    again = pull(archive, wanted, tmp_path / "pulled")
    assert sum(one.fetched for one in again) == 0

    files = results_below([results])
    assert len(files) == 2 * N_STUDIES
    pushed = push(in_between(open_archive(filled.server(protocol)), 7, lost), files)
    assert [one.error for one in pushed] == [None] * len(files)
    assert filled.count() == N_STUDIES * (N_SLICES + 2)
    again = push(open_archive(filled.server(protocol)), files)
    assert all(one.was_there for one in again)
    assert filled.count() == N_STUDIES * (N_SLICES + 2)

    back = open_archive(filled.server("web"))
    kinds = [series for kind in ("SEG", "SR") for series in back.find(Query(modality=kind))]
    pull(back, kinds, tmp_path / "results")
    assert by_uid(tmp_path / "results") == {uid: d for uid, d in by_uid(results).items() if d.Modality in ("SEG", "SR")}


def test_queries_find_what_they_ask_for(standing: Orthanc, scans: Path):
    header = dcmread(next((scans / "3").iterdir()))
    for protocol in ("web", "dimse"):
        archive = open_archive(standing.server(protocol))
        one = archive.find(Query(patient=str(header.PatientID)))
        assert str(header.SeriesInstanceUID) in {series.series for series in one}
        assert [s.study for s in archive.find(Query(study=header.StudyInstanceUID))] == [header.StudyInstanceUID]
        assert archive.find(Query(series=header.SeriesInstanceUID, study=header.StudyInstanceUID))
        assert archive.find(Query(modality="US")) == []
        dated = archive.find(Query(date=f"{header.StudyDate}-")) if header.StudyDate else archive.find(Query())
        assert str(header.SeriesInstanceUID) in {series.series for series in dated}


def test_wrong_credentials_and_titles_are_told(standing: Orthanc):
    wrong = replace(standing.server("web"), credentials=Credentials("tester", "guess-secret"))
    with pytest.raises(ArchiveError, match="credentials are wrong") as caught:
        open_archive(wrong).find(Query())
    assert "guess-secret" not in str(caught.value) + repr(wrong)
    with pytest.raises(ArchiveError, match="refuses 'MEDMASKRCNN' as a caller of 'NOBODY'"):
        stranger = open_archive(replace(standing.server("dimse"), called="NOBODY"))
        patiently(lambda: stranger.find(Query()), stranger.server)
    with pytest.raises(ArchiveError, match="404"):
        elsewhere = replace(standing.server("web"), address=f"http://127.0.0.1:{standing.web}/nowhere")
        open_archive(elsewhere).find(Query())


def test_a_server_that_stays_away_is_told(orthanc: Orthanc, tmp_path: Path, scans: Path):
    archive = open_archive(replace(orthanc.server("web"), patience_s=1.0))
    archive.store(dcmread(next(scans.rglob("IM*"))))
    wanted = archive.find(Query())
    orthanc.kill()
    (pulled,) = pull(archive, wanted, tmp_path / "pulled")
    assert "cannot be reached" in pulled.error and "Run the same command again" in pulled.error
    orthanc.start()
    (pulled,) = pull(archive, wanted, tmp_path / "pulled")
    assert (pulled.error, pulled.fetched) == (None, 1)


def test_the_file_system_is_full(orthanc: Orthanc, tmp_path: Path, scans: Path):
    import resource

    from medmaskrcnn.errors import OutputError

    archive = open_archive(orthanc.server("web"))
    for file in (scans / "1").iterdir():
        archive.store(dcmread(file))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OutputError, match="Make room and run again"):
            pull(archive, archive.find(Query()), tmp_path / "pulled")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [p for p in (tmp_path / "pulled").rglob("*") if p.is_file()]
    shutil.rmtree(tmp_path / "pulled")
    pull(archive, archive.find(Query()), tmp_path / "pulled")
    assert by_uid(tmp_path / "pulled") == by_uid(scans / "1")
