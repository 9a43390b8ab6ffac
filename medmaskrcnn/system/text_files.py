"""Decodes text that programs on Windows write with a byte order mark or in UTF-16."""

from __future__ import annotations

import json


def decode_json_text(content: bytes) -> str:
    """Text of a JSON file: UTF-8, UTF-16 or UTF-32, with or without a byte order mark (RFC 8259, 8.1).

    Raises:
        UnicodeDecodeError: if it is none of these. Almost any bytes are UTF-16, so it must also begin as JSON does.
    """
    encoding = json.detect_encoding(content)
    text = content.decode(encoding)
    if not encoding.startswith("utf-8") and not text.lstrip().startswith(("{", "[")):
        raise UnicodeDecodeError(encoding, content, 0, len(content), "does not begin as JSON does")
    return text
