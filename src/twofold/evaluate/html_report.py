"""A report as one self-contained HTML file with embedded style and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..io import escape_html as escape
from .examples import ReportExample
from .tables import (
    Cell,
    Table,
    counts_text,
    format_score,
    group_table,
    own_table,
    published_tables,
    run_name,
    summary_rows,
)

STYLE = """
:root { color-scheme: light dark; --line: #d5d8dc; --soft: #f4f6f8; --ink: #1d2329; --dim: #5c6873; --mark: #0b6b53;
  --warn: #8a4b00; --warnbg: #fff4e2; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --line: #39424b; --soft: #20262c; --ink: #e4e8ec; --dim: #9aa7b2;
  --mark: #63d3b1; --warn: #ffc57a; --warnbg: #33281a; --page: #15191d; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--page); margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 1280px; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .7rem; }
p { max-width: 78ch; } .dim { color: var(--dim); }
.warn { background: var(--warnbg); color: var(--warn); border-left: 4px solid currentColor; padding: .5rem .8rem;
  margin: .5rem 0; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; }
th { color: var(--dim); font-weight: 600; font-size: .85rem; }
td:first-child, th:first-child { text-align: left; padding-left: .4rem; }
td.source { font-size: .8rem; color: var(--dim); white-space: normal; text-align: left; max-width: 30rem; }
td:first-child { white-space: normal; min-width: 13rem; }
.note { font-size: .78rem; color: var(--dim); font-weight: 400; }
tr.own td { background: var(--soft); font-weight: 700; color: var(--mark); }
.own { font-weight: 700; color: var(--mark); }
tr.own td.source { font-weight: 400; color: var(--dim); }
ol.sources { font-size: .82rem; max-width: 100ch; padding-left: 1.6rem; } a { color: inherit; }
.flagged { text-decoration: underline dotted; cursor: help; } .best { color: var(--mark); font-weight: 700; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 1rem 0; font-size: .9rem; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.example { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .6rem; margin: 0 0 1.4rem; }
.example figure { margin: 0; } .example img { width: 100%; display: block; border-radius: 3px; background: #808080; }
figcaption { font-size: .8rem; color: var(--dim); padding-top: .2rem; }
h3 { font-size: .95rem; margin: 1rem 0 .4rem; font-weight: 600; overflow-wrap: anywhere; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .88em; }
@media (max-width: 700px) { .example { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
"""


def html_document(report: Mapping[str, Any], examples: Sequence[ReportExample] = ()) -> str:
    """The report as one HTML page, with the images of examples."""
    benchmark = report["benchmark"]
    name = benchmark["title"] if benchmark else report["data"]["name"]
    title = f"{run_name(report)} on {name}"
    notes = [report["protocol"]["notes"], benchmark["notes"] if benchmark else ""]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">{escape(_subtitle(report))}</p>',
        *(f'<p class="warn">{escape(_sentence(line))}</p>' for line in report["warnings"]),
        "<h2>Scores</h2>",
        html_table(own_table(report)),
        *(f'<p class="dim">{escape(note)}</p>' for note in notes if note),
        *_groups(report),
        *_images(report, examples),
        *_published(report),
        "<h2>Settings and data</h2>",
        definition_list(summary_rows(report)),
        *(_listed(kind, report) for kind in ("failed", "skipped") if report[kind]),
    ]
    return document(title, body)


def _subtitle(report: Mapping[str, Any]) -> str:
    parts = [report["protocol"]["id"], counts_text(report["counts"]), report["created"][:10]]
    return " · ".join(parts)


def _groups(report: Mapping[str, Any]) -> list[str]:
    table = group_table(report)
    return [f"<h2>By {escape(report['group'])}</h2>", html_table(table)] if table.rows else []


def _published(report: Mapping[str, Any]) -> list[str]:
    tables, sources = published_tables(report)
    if not tables:
        return []
    listed = "".join(f"<li>{_with_link(source)}</li>" for source in sources)
    parts = [part for title, table in tables for part in (f"<h2>{escape(title)}</h2>", html_table(table))]
    return [*parts, f'<ol class="dim sources">{listed}</ol>']


def _with_link(source: str) -> str:
    """A source with its URL as a link."""
    before, address, after = source.partition("https://")
    if not address:
        return escape(source)
    url, _, rest = after.partition(" ")
    whole = escape(f"https://{url}")
    return f'{escape(before)}<a href="{whole}">{whole}</a> {escape(rest)}'


def document(title: str, body: Sequence[str]) -> str:
    """An HTML page with this title and these lines of its body."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    lines = "\n".join(body)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{lines}\n</body>\n</html>\n"
    )


def html_table(table: Table) -> str:
    """A table of scores in HTML; the tooltip of a flagged score is the reason."""
    with_source = any(row.source for row in table.rows)
    head = "".join(
        f"<th>{escape(column)}</th>" for column in ("", *table.columns, *(["source"] if with_source else []))
    )
    rows = []
    for row in table.rows:
        note = f'<br><span class="note">{escape(row.note)}</span>' if row.note else ""
        cells = "".join(map(_cell, row.cells))
        source = f'<td class="source">{escape(row.source)}</td>' if with_source else ""
        rows.append(f'<tr class="{row.kind}"><td>{escape(row.name)}{note}</td>{cells}{source}</tr>')
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    if not cell.mark:
        return f"<td>{escape(cell.text)}</td>"
    tooltip = f' title="{escape(cell.reason)}"' if cell.reason else ""
    question = "?" if cell.mark == "flagged" else ""
    return f'<td><span class="{cell.mark}"{tooltip}>{escape(cell.text)}{question}</span></td>'


def definition_list(pairs: Sequence[tuple[str, str]]) -> str:
    """(Name, text) pairs as a definition list."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs) + "</dl>"


def _images(report: Mapping[str, Any], examples: Sequence[ReportExample]) -> list[str]:
    if not examples:
        return []
    metric = report["examples"]["metric"]
    unit = report["metrics"].get(metric, {}).get("unit", "")
    parts = ["<h2>Images</h2>", f'<p class="dim">By {escape(metric)} of each image.</p>']
    for example in examples:
        figures = "".join(
            f'<figure><img alt="{escape(name)}" src="{data}"><figcaption>{escape(name)}</figcaption></figure>'
            for name, data in example.images
        )
        score = f"{escape(metric)} {format_score(example.value, unit)}"
        head = f"{example.rank}: <code>{escape(example.id)}</code>, {score}"
        parts.append(f'<h3>{head}</h3><div class="example">{figures}</div>')
    return parts


def _listed(kind: str, report: Mapping[str, Any]) -> str:
    total = sum(report["counts"][kind].values())
    lines = "".join(
        f"<li><code>{escape(row['id'])}</code>: {escape(row.get('error') or row['reason'])}</li>"
        for row in report[kind]
    )
    more = f"<li>and {total - len(report[kind])} more</li>" if total > len(report[kind]) else ""
    return f"<h2>{kind.capitalize()}: {total}</h2><ul>{lines}{more}</ul>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
