"""Names that others chose lead below a folder or nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmaskrcnn.errors import OutputError
from medmaskrcnn.system.paths import is_uid, path_below, remove_below, safe_name

ELSEWHERE = [
    "..", ".", "", "/etc", "../victim", "a/../../victim", "a/..", "a//b", "a/", "..\\victim", "C:\\victim", "C:victim",
    "a\0b", "a\nb", "a\x1b[2J", "\u202eexe", "a" * 256,
]  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str):
    root = tmp_path / "root"
    victim = tmp_path / "victim"
    victim.mkdir()
    for use in (path_below, remove_below):
        with pytest.raises(OutputError, match="refused to use"):
            use(root, name)
    assert victim.exists()


def test_a_link_does_not_lead_elsewhere_either(tmp_path: Path):
    root, victim = tmp_path / "root", tmp_path / "victim"
    (victim / "kept").mkdir(parents=True)
    root.mkdir()
    (root / "link").symlink_to(victim)
    (root / "self").symlink_to(root)
    for name in ("link", "link/kept", "self"):
        with pytest.raises(OutputError, match="refused"):
            path_below(root, name)
        with pytest.raises(OutputError, match="refused"):
            remove_below(root, name)
    assert (victim / "kept").exists()


def test_plain_names_lead_below(tmp_path: Path):
    assert path_below(tmp_path, "patient-a/study b/Größe 3") == tmp_path / "patient-a" / "study b" / "Größe 3"
    (tmp_path / "a" / "b").mkdir(parents=True)
    remove_below(tmp_path, "a/b")
    remove_below(tmp_path, "a/b")  # it is gone already
    assert (tmp_path / "a").exists() and not (tmp_path / "a" / "b").exists()


def test_a_root_that_is_a_link_itself_is_followed(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert path_below(tmp_path / "out", "a") == tmp_path / "out" / "a"


@pytest.mark.parametrize("uid", ["1.2.840.10008", "2.25.0", "1", "1.02.3", "9" * 64])
def test_uids(uid: str):
    assert is_uid(uid)


@pytest.mark.parametrize(
    "uid",
    ["", ".", "..", "1..2", ".1", "1.", "1.2/3", "1.2\\3", "../1", "/1", "1.2 ", "1.2\n", "٣.٤", "1.2a", "9" * 65],
)
def test_what_is_no_uid(uid: str):
    assert not is_uid(uid)


@pytest.mark.parametrize(
    "text", ["../../x", "a/b", "..", "", "C:\\x", "\0", "日" * 300, "nul", "x" * 500, "site/case 7"]
)
def test_any_text_becomes_one_name(tmp_path: Path, text: str):
    (tmp_path / f"{safe_name(text)}.nii.gz").touch()
    assert len(list(tmp_path.iterdir())) == 1
