"""The report: one file that needs nothing else, says what it is not for, and names nobody."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.report.html_report import NOT_CLINICAL, report_html, write_report
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume

Case = tuple[CaseResult, Volume]


class Page(HTMLParser):
    """Tags that are open and shut in order, texts and pictures."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data.strip())

    @property
    def pictures(self) -> list[Image.Image]:
        sources = [value or "" for name, value in self.attributes if name == "src"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def test_table_pictures_and_origin(ct_case: Case) -> None:
    page = Page(report_html(*ct_case))
    words = " | ".join(page.texts)
    assert page.seen.count("tr") >= 1 + 3
    for name, measured in zip(["liver", "liver tumour", "left kidney"], ct_case[0].measurements, strict=True):
        assert name in page.texts
        assert f"{measured.longest_axial_diameter:.1f}" in page.texts
    assert "ab" * 32 in words
    assert ct_case[0].record.software in page.texts
    assert page.pictures
    assert any(np.ptp(np.asarray(picture), axis=(0, 1)).min() > 50 for picture in page.pictures)


def test_it_says_on_top_that_it_is_not_for_clinical_use(ct_case: Case) -> None:
    texts = [text for text in Page(report_html(*ct_case)).texts if text]
    assert texts[1] == NOT_CLINICAL  # after the title
    assert texts[-1] == NOT_CLINICAL


def test_it_needs_nothing_else_and_runs_nothing(ct_case: Case) -> None:
    text = report_html(*ct_case)
    assert not re.search(r"https?://|<script|<link|<iframe|@import|url\(", text)
    assert "default-src 'none'" in text


def test_names_are_escaped(ct: Volume, put_masks: Callable[..., CaseResult]) -> None:
    mask = np.zeros(ct.grid.shape, bool)
    mask[2, 3:9, 3:9] = True
    result = put_masks(ct, {'<script>alert("x")</script>': [mask]}, model_name="<b>m</b>", warnings=("<i>w</i>",))
    page = Page(report_html(result, ct))
    assert not {"script", "b", "i"} & set(page.seen)
    assert '<script>alert("x")</script>' in page.texts


def test_out_of_domain_and_warnings_are_shown(ct_case: Case) -> None:
    result, volume = ct_case
    record = replace(result.record, out_of_domain=True, warnings=("the scan is noisy",))
    page = Page(report_html(replace(result, record=record), volume))
    assert any(text.startswith("OUT OF DOMAIN") for text in page.texts)
    assert "the scan is noisy" in page.texts


def test_nothing_found(ct: Volume, put_masks: Callable[..., CaseResult]) -> None:
    page = Page(report_html(put_masks(ct, {"liver": []}), ct))
    assert "Nothing was found at this score." in page.texts
    assert "liver: none" in page.texts
    assert page.pictures


def test_no_path_and_no_patient(case: Case) -> None:
    text = report_html(*case)
    assert not any(word in text for word in ("DOE", "/patients", "ward-7"))


@pytest.mark.parametrize("fixture", ["case", "picture", "ct_case"])
def test_same_work_is_the_same_bytes(fixture: str, request: pytest.FixtureRequest) -> None:
    result, volume = request.getfixturevalue(fixture)
    texts = []
    for host in ("a", "b"):
        stream = io.BytesIO()
        write_report(replace(result, run={"host": host}), volume, stream)
        texts.append(stream.getvalue())
    assert texts[0] == texts[1]
