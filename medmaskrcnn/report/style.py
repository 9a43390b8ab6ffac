"""Colours and fonts of the preview."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageFont

from medmaskrcnn.report.colours import Colour

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND: Colour = (17, 19, 22)
TEXT: Colour = (235, 237, 240)
FAINT: Colour = (150, 156, 165)
AMBER: Colour = (255, 190, 70)
RED: Colour = (200, 25, 30)


@lru_cache(maxsize=16)
def font(size: int) -> Font:
    """Pillow's own scalable font at ``size`` pixels: no system font is needed."""
    return ImageFont.load_default(size)


def drawable(text: str) -> str:
    """``text`` in the font's letters: accents are dropped, letters of other scripts become ``?``."""
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in plain)


def text_width(text: str, size: int) -> int:
    """Width of a line of text in pixels."""
    return round(font(size).getlength(text))


def shortened(text: str, size: int, width: int) -> str:
    """``text`` in :func:`drawable` letters, cut and ended by three dots if wider than ``width`` pixels."""
    text = drawable(text)
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "...", size) > width:
        text = text[:-1]
    return text.rstrip() + "..."


def wrapped(text: str, size: int, width: int) -> list[str]:
    """``text`` broken at spaces into lines of at most ``width`` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [shortened(line, size, width) for line in lines]
