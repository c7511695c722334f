"""The report of an inspection: one HTML file of all images, the worst first."""

import base64
import heapq
import html
import io
import math
from collections import Counter
from dataclasses import dataclass, field

from PIL import Image

from stlib.inspection import Inspected

PICTURES = 100
"""Of a report, the worst images first; the others have a line without a picture."""
THUMBNAIL = 360
"""Longest side of a report's pictures in pixels."""
REPORT_MARK = b"<th>Image and map</th>"
"""By which a report is known among other pages."""


@dataclass
class Report:
    """One HTML file: the decision, score and picture of every image, the worst first."""

    title: str
    about: str
    """Which threshold the decisions rest on."""
    images: int
    """How many it is to hold; with fewer it says that it was broken off."""
    rows: list[tuple[float, str, str]] = field(default_factory=list)
    """Score, decision and name of each image, in the order of `add`."""
    pictures: list[tuple[float, int, bytes]] = field(default_factory=list)
    """A heap of the worst PICTURES of them: rank of the score, place in `rows` as a negative number, JPEG."""
    failed: list[str] = field(default_factory=list)
    """Why images could not be read."""
    left_out: list[str] = field(default_factory=list)
    """Which files were not looked at, and why."""

    def add(self, found: Inspected) -> None:
        """Take note of one image, and of its picture if it is among the worst so far."""
        self.rows.append((found.score, found.decision, str(found.path)))
        rank, place = _rank(found.score), len(self.rows) - 1
        if len(self.pictures) < PICTURES:
            heapq.heappush(self.pictures, (rank, -place, _picture(found)))
        elif rank > self.pictures[0][0]:
            heapq.heapreplace(self.pictures, (rank, -place, _picture(found)))

    def html(self) -> bytes:
        """The page."""
        pictures = {-place: jpeg for _, place, jpeg in self.pictures}
        order = sorted(range(len(self.rows)), key=lambda place: -_rank(self.rows[place][0]))
        lines = []
        for place in order:
            score, decision, path = self.rows[place]
            jpeg = base64.b64encode(pictures.get(place, b"")).decode()
            shown = f'<img alt="" src="data:image/jpeg;base64,{jpeg}">' if jpeg else ""
            cells = (f"{score:.6g}", decision, html.escape(path), shown)
            lines.append(f'<tr class="{decision}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
        counts = Counter(row[1] for row in self.rows)
        summary = "".join(f", {counts[name]} {name}" for name in ("anomalous", "good") if counts[name])
        if (reached := len(self.rows) + len(self.failed)) < self.images:
            summary += f"; broken off after {reached} of {self.images}"
        return _PAGE.format(
            title=html.escape(self.title),
            about=html.escape(self.about),
            summary=f"{len(self.rows)} images{summary}; {len(self.failed)} could not be read.",
            rows="\n".join(lines),
            further=_listed("Not read", self.failed) + _listed("Left out", self.left_out),
        ).encode(errors="backslashreplace")  # the name of a file may be no UTF-8


def _listed(heading: str, texts: list[str]) -> str:
    """The texts under a heading; '' where there are none."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
    return f"<h2>{heading}</h2><ul>{items}</ul>" if items else ""


def _picture(found: Inspected) -> bytes:
    """The image and its overlay side by side, a small JPEG."""
    both = Image.new("RGB", (2 * found.image.width, found.image.height))
    both.paste(found.image)
    both.paste(found.overlay(), (found.image.width, 0))
    both.thumbnail((2 * THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    both.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _rank(score: float) -> float:
    """The score; infinity for one that is no number, which is the worst."""
    return math.inf if math.isnan(score) else score


_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 1.5em; }} td, th {{ padding: .3em .8em; text-align: left; }}
.anomalous td:nth-child(2) {{ color: #b00020; font-weight: bold; }}
</style>
<h1>{title}</h1><p>{summary} {about}</p>
<table><tr><th>Score</th><th>Decision</th><th>Image</th><th>Image and map</th></tr>
{rows}
</table>{further}
</html>
"""
