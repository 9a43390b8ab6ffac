"""The frame of every HTML page: it stands alone, runs no script and loads nothing from the net."""

from __future__ import annotations

NOT_CLINICAL = "Not for clinical use. Research software, not a medical device."


def html_page(title: str, body: str, *, style: str, stamp: str = NOT_CLINICAL) -> str:
    """A whole page.

    Args:
        title: HTML.
        body: HTML that stands below the stamp.
        style: The style sheet.
        stamp: What the page is not for.
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
