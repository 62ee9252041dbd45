"""The report as one HTML file: no script, nothing from elsewhere, light or dark as its reader likes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 480, 180, 56, 26, 12
Points = Sequence[tuple[float, float]]
_STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--line:#d9dde3;--ink:#16191d;--ink2:#565e69;
--a:#1d5fd1;--b:#0f766e;--c:#a3540a;--bad:#b3261e;--good:#0b6b3a}
@media(prefers-color-scheme:dark){:root{--bg:#101215;--card:#191c20;--line:#31363d;--ink:#eceff3;--ink2:#a4adb9;
--a:#7fb0ff;--b:#5fd0c2;--c:#f0a860;--bad:#ff8a80;--good:#6fd8a0}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:14px/1.5 Inter,system-ui,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1200px;margin:0 auto;padding:24px 16px}h1{font-size:22px;margin:0}h2{font-size:15px;margin:0 0 8px}
.sub{color:var(--ink2);margin:4px 0 16px;overflow-wrap:anywhere}.grid{display:grid;gap:12px;
grid-template-columns:repeat(auto-fit,minmax(130px,1fr))}
.wide{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px;min-width:0;margin:0 0 12px}
.grid .card,.wide .card{margin:0}.grid,.wide{margin-bottom:12px}.big{font-size:22px;font-weight:600}
.verdict{font-weight:600}.ok{color:var(--good)}.failed{color:var(--bad)}dt{color:var(--ink2)}dd{margin:0}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:4px 8px;
border-bottom:1px solid var(--line)}th:first-child,td:first-child{text-align:left}th{color:var(--ink2);font-weight:500}
svg{width:100%;height:auto;display:block}svg text{fill:var(--ink2);font-size:13px}.axis{stroke:var(--line)}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}.a{stroke:var(--a)}.b{stroke:var(--b);stroke-dasharray:6 3}
.c{stroke:var(--c);stroke-dasharray:2 3}.key{display:inline-block;width:22px;height:0;margin-right:6px;
border-top:2px solid;vertical-align:middle}.key.a{color:var(--a)}.key.b{color:var(--b);border-top-style:dashed}
.key.c{color:var(--c);border-top-style:dotted}.legend{color:var(--ink2);display:flex;gap:16px;flex-wrap:wrap}
li{overflow-wrap:anywhere}
"""
_LINES = "abc"


def draw(report: dict[str, Any]) -> str:
    """The whole page."""
    verdict, series = report["verdict"], report["series"]
    lags = [(each["at_s"], 1_000 * each["lag_s"]) for each in report["server_lag_series"]]
    people = {"arrived": _points(series, "arrived"), "seated": _points(series, "seated")}
    charts = (
        _chart("People", "people", {**people, "in line": _points(series, "in_line")}),
        _chart("Pages open", "pages", {"pages": _points(series, "pages")}),
        _chart("Slowest claim of each second", "ms", {"claim": _points(series, "claim_ms_worst")}),
        _chart("Heartbeats", "per second", {"heartbeats": _points(series, "heartbeats_per_s")}),
        _chart("By how much the server was late", "ms", {"lag": lags}),
    )
    told = (report["url"], report["began_at"], f"seed {report['seed']}", f"{report['seconds']:.0f} s")
    parts = [
        f"<h1>Swarm: <span class='verdict {verdict}'>{verdict}</span></h1>",
        f"<p class='sub'>{escape(' · '.join(told))}</p>",
        _list("Why it failed", report["reasons"]),
        _figures(report),
        f"<div class='wide'>{''.join(charts)}</div>",
        _times(report),
        _errors(report["errors_by_kind"]),
        _list("Notes", report["notes"]),
        _scenario(report["scenario"]),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>LabLink swarm</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _figures(report: dict[str, Any]) -> str:
    figures = {
        "people": report["people"],
        "seated": report["seated"],
        "in line": report["in_line"],
        "errors": report["errors"],
        "429s": report["refused_429"],
        "doubles": report["doubles"],
        "machines": report["agents"],
        "heartbeats": report["heartbeats"],
        "Wi-Fi losses": report["wifi_losses"],
        "pages not back": report["not_back"],
    }
    cards = (
        f"<div class='card'><dt>{name}</dt><dd class='big'>{value:,}</dd></div>" for name, value in figures.items()
    )
    return f"<dl class='grid'>{''.join(cards)}</dl>"


def _times(report: dict[str, Any]) -> str:
    rows = []
    for key, value in report.items():
        if key.endswith("_ms") and isinstance(value, dict) and value["p50"] is not None:
            cells = "".join(f"<td>{value[name]:,.0f} ms</td>" for name in ("p50", "p95", "p99"))
            rows.append(f"<tr><td>{key.removesuffix('_ms').replace('_', ' ')}</td>{cells}</tr>")
    return _table("Times", ("what", "p50", "p95", "p99"), rows)


def _errors(errors: dict[str, int]) -> str:
    rows = [f"<tr><td>{escape(kind)}</td><td>{number:,}</td></tr>" for kind, number in errors.items()]
    return _table("Errors by kind", ("kind", "times"), rows) if rows else ""


def _scenario(scenario: dict[str, Any]) -> str:
    words = {key: ", ".join(value) if isinstance(value, list) else str(value) for key, value in scenario.items()}
    rows = [f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in words.items()]
    return _table("Scenario", ("key", "value"), rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th scope='col'>{each}</th>" for each in heads)
    return (
        f"<section class='card'><h2>{title}</h2><div class='scroll' tabindex='0' role='region' aria-label='{title}'>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _list(title: str, sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(each)}</li>" for each in sentences)
    return f"<section class='card'><h2>{title}</h2><ul>{items}</ul></section>"


def _points(series: Sequence[dict[str, float]], key: str) -> Points:
    return [(each["at_s"], each[key]) for each in series]


def _chart(title: str, unit: str, curves: dict[str, Points]) -> str:
    everything = [point for points in curves.values() for point in points]
    if len(everything) < 2:
        return ""
    last_s, most = max(at for at, _ in everything) or 1.0, max(value for _, value in everything) or 1.0
    lines = "".join(_curve(points, _LINES[index], last_s, most) for index, points in enumerate(curves.values()))
    keys = "".join(f"<span><span class='key {_LINES[index]}'></span>{name}</span>" for index, name in enumerate(curves))
    label = f"{title}: at most {most:,.0f} {unit} within {last_s:,.0f} s"
    floor = HEIGHT - BOTTOM
    return (
        f"<section class='card'><h2>{title} <span class='sub'>({unit})</span></h2>"
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>"
        f"<line class='axis' x1='{LEFT}' y1='{floor}' x2='{WIDTH}' y2='{floor}'/>"
        f"<line class='axis' x1='{LEFT}' y1='{TOP}' x2='{WIDTH}' y2='{TOP}'/>"
        f"<text x='{LEFT - 6}' y='{TOP + 4}' text-anchor='end'>{most:,.0f}</text>"
        f"<text x='{LEFT - 6}' y='{floor + 4}' text-anchor='end'>0</text>"
        f"<text x='{LEFT}' y='{HEIGHT - 6}'>0 s</text>"
        f"<text x='{WIDTH}' y='{HEIGHT - 6}' text-anchor='end'>{last_s:,.0f} s</text>{lines}</svg>"
        f"<div class='legend'>{keys if len(curves) > 1 else ''}</div></section>"
    )


def _curve(points: Points, line: str, last_s: float, most: float) -> str:
    across, up = (WIDTH - LEFT) / last_s, (HEIGHT - BOTTOM - TOP) / most
    path = " ".join(f"{LEFT + at * across:.1f},{HEIGHT - BOTTOM - value * up:.1f}" for at, value in points)
    return f"<polyline class='curve {line}' points='{path}'/>"
