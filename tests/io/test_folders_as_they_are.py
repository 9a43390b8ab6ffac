"""Folders with links, other spellings of accents, and what Windows and macOS leave in them."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume

links = pytest.mark.skipif(sys.platform == "win32", reason="making a link needs rights on Windows")


@links
def test_linked_folders_are_followed(slices, write_series, tmp_path):
    write_series(slices, "store/p1")
    for one in slices[:3]:
        one.SeriesInstanceUID = "1.2.3.4"
    write_series(slices[:3], "selection/p2")
    (tmp_path / "selection" / "p1").symlink_to("../store/p1")
    assert [info.files for info in describe(tmp_path / "selection")] == [6, 3]


@links
def test_circles_of_links_end_and_each_folder_is_read_once(slices, write_series, tmp_path):
    folder = write_series(slices, "a/b/c")
    (folder / "up").symlink_to("../../..")
    (tmp_path / "a" / "again").symlink_to("b/c")
    (tmp_path / "a" / "gone").symlink_to("nowhere")
    (info,) = describe(tmp_path / "a")
    assert info.files == 6
    assert info.path == str(folder)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_may_be_spelt_either_way(slices, write_series, tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    write_series(slices, unicodedata.normalize(form, "Müller"))
    assert read_volume(tmp_path / unicodedata.normalize(other, "Müller")).array.shape == (1, 6, 5, 4)


def test_leftovers_of_other_systems_are_passed_over(slices, write_series):
    folder = write_series(slices)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.dcm", "__MACOSX/._000.dcm", "@eaDir/000.dcm"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7 leftover")
    (info,) = describe(folder)
    assert (info.files, info.segmentable) == (6, True)


def test_a_folder_of_leftovers_alone_is_empty(tmp_path):
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf")
    with pytest.raises(ReadError, match="empty"):
        describe(tmp_path)
