"""Files and folders are there in whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from medmaskrcnn.errors import OutputError
from medmaskrcnn.system.files import replacing, replacing_folder, staging_folder


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("synced", [False, True])
def test_a_file_is_replaced_at_the_end(tmp_path: Path, synced: bool) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with replacing(target, synced=synced) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert content(tmp_path) == {"a.txt": "new"}


@pytest.mark.parametrize("synced", [False, True])
def test_a_folder_is_replaced_at_the_end(tmp_path: Path, synced: bool) -> None:
    target = tmp_path / "out" / "case"
    for text in ("old", "new"):
        with replacing_folder(target, staging_in=tmp_path / ".partial", synced=synced) as temporary:
            (temporary / "below").mkdir()
            (temporary / "below" / text).write_text(text)
            assert content(tmp_path / "out") == ({} if text == "old" else {"case/below/old": "old"})
    assert content(tmp_path) == {"out/case/below/new": "new"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("no figure")])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "file").write_text("old")
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match=r"space|figure"), replacing(tmp_path / "case" / "file") as temporary:
        temporary.write_text("new")
        raise error
    with pytest.raises(expected, match=r"space|figure"), replacing_folder(tmp_path / "case") as temporary:
        (temporary / "file").write_text("new")
        raise error
    assert content(tmp_path) == {"case/file": "old"}


def test_a_folder_that_cannot_take_its_place_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = tmp_path / "case", Path.rename
    target.mkdir()
    (target / "file").write_text("old")

    def failing(self: Path, goal: Path) -> Path:
        if goal == target and self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, goal)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="Input/output error"), replacing_folder(target) as temporary:
        (temporary / "file").write_text("new")
    assert content(tmp_path) == {"case/file": "old"}


def test_a_staging_folder_is_gone_at_the_end(tmp_path: Path) -> None:
    with staging_folder(tmp_path / "out") as staging:
        (staging / "a").write_text("a")
        (staging / "a").rename(tmp_path / "out" / "a")
        (staging / "b").write_text("b")
    assert content(tmp_path) == {"out/a": "a"}
