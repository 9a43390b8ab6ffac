"""The frame of every HTML page: self-contained, without scripts, loading nothing from the network."""

from __future__ import annotations

NOT_CLINICAL = "Not for clinical use. Research software, not a medical device."


def html_page(title: str, body: str, *, style: str, stamp: str = NOT_CLINICAL) -> str:
    """A complete HTML page.

    Args:
        title: Title, as HTML.
        body: HTML below the stamp.
        style: The style sheet.
        stamp: The disclaimer at the top.
    """
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<p class="stamp">{stamp}</p>
{body}
</body>
</html>
"""
