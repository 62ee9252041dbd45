"""The figures as a picture: each beside its limit of the same run. SVG, readable on light and on dark ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lablink_ui.bench.figures import show

WIDTH, ROW, TOP = 920, 34, 56
LABEL_X, BAR_X, BAR_WIDTH = 12, 430, 300
_STYLE = """text{font:13px system-ui,sans-serif;fill:#1d2530}.quiet{fill:#5b6673;font-size:12px}
.ours{fill:#1769c4}.limit{fill:#a9b4c0}.ground{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#e7ecf2}.quiet{fill:#a3afbc}.ours{fill:#6aaefc}.limit{fill:#56626f}
.ground{fill:#12171e}}"""


def draw(content: Mapping[str, Any]) -> str:
    """The picture of what a run has written as JSON."""
    figures: Sequence[Mapping[str, Any]] = content["figures"]
    height = TOP + ROW * len(figures) + 12
    title = f"LabLink bench, {content['at']}, {content['machine']['cpu']}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
            _text(LABEL_X, 22, title),
            _text(
                LABEL_X,
                42,
                "Upper bar: ours; lower: the limit of the same run; each row has its own scale.",
                "quiet",
            ),
            *(_draw_row(TOP + ROW * number, figure) for number, figure in enumerate(figures)),
            "</svg>\n",
        ]
    )


def _draw_row(y: int, figure: Mapping[str, Any]) -> str:
    ours, limit = figure["ours"], figure["limit"]
    longest = max(ours, limit or 0) or 1
    values = f"{show(ours)} {figure['unit']}"
    if limit is not None:
        values += f" of {show(limit)} {figure['unit']}" if figure["better"] == "more" else f" to {show(limit)}"
    return "".join(
        [
            _text(LABEL_X, y + 20, f"{figure['path']}: {figure['figure']}"),
            _bar("ours", y + 6, ours / longest),
            _bar("limit", y + 17, (limit or 0) / longest),
            _text(BAR_X + BAR_WIDTH + 10, y + 20, values, "quiet"),
        ]
    )


def _bar(kind: str, y: int, share: float) -> str:
    return f'<rect class="{kind}" x="{BAR_X}" y="{y}" width="{BAR_WIDTH * share:.1f}" height="9" rx="2"/>'


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x}" y="{y}">{escape(text)}</text>'
