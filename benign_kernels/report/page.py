"""The page: text in, one HTML document out that asks nothing of the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ..experiments import claims, figures
from ..experiments.claims import INTERVALS, Verdict
from ..experiments.records import Records
from ..experiments.registry import MARKS, Plan

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2429; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin-bottom: .2rem; }
h2 { font-size: 1.2rem; margin-top: 2.4rem; border-bottom: 1px solid #d5dbe0; padding-bottom: .2rem; }
.reference { color: #5a6670; margin-top: 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #e4e8eb; }
th { font-weight: 600; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.holds, .fails, .undecided, .untested, .yes, .no { font-weight: 600; white-space: nowrap; }
.holds { color: #17694a; } .fails { color: #b3261e; } .undecided { color: #7a5b00; } .untested { color: #6b6b6b; }
.claims td:nth-child(2) { min-width: 15rem; } .claims td:nth-child(4) { min-width: 12rem; }
.small { color: #5a6670; font-size: .85rem; }
.wide { overflow-x: auto; }
figure { margin: 1.6rem 0; }
figure svg { width: 100%; max-width: 46rem; height: auto; display: block; }
figcaption { color: #414b53; font-size: .9rem; max-width: 46rem; }
pre { background: #f4f6f8; padding: .7rem .9rem; overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; }
"""
# A browser that honours this could not load anything even if the page asked for it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(
    plan: Plan,
    records: Records,
    *,
    command: str,
    versions: Mapping[str, str],
    seconds: float,
) -> str:
    """The report of a plan's records as one HTML document; ``seconds`` is what all trials took together.

    >>> from benign_kernels import experiments
    >>> plan = experiments.Plan.of(experiments.get("chen21"), seeds=[0])
    >>> html = page(plan, experiments.Records([]), command="benign report chen21", versions={}, seconds=0.0)
    >>> html.startswith("<!doctype html>"), "://" in html
    (True, False)
    """
    experiment = plan.experiment
    verdicts = [claims.judge(claim, records) for claim in experiment.claims]
    body = [
        f"<h1>{escape(experiment.title)}</h1>",
        f'<p class="reference">{escape(experiment.reference)}</p>',
        f"<p>{_summary(plan, records, verdicts, seconds)}</p>",
        "<h2>Claims</h2>",
        _claims(verdicts),
        "<h2>Figures</h2>",
        *_figures(plan, records),
        "<h2>What was run</h2>",
        _facts(plan),
        "<h2>How to get these numbers again</h2>",
        f"<pre>{escape(command)}</pre>",
        _table(("", "version"), [(escape(name), escape(value)) for name, value in versions.items()]),
        "<h2>Every configuration</h2>",
        _configurations(records),
    ]
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(experiment.name)}: {escape(experiment.title)}</title>\n<style>{_STYLE}</style>\n"
        + "</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _summary(plan: Plan, records: Records, verdicts: Sequence[Verdict], seconds: float) -> str:
    planned = len(plan.tasks())
    share = f"{len(records)} of {planned} trials" if len(records) < planned else f"{planned} trials"
    seeds = f"{len(plan.seeds)} seed{'s' if len(plan.seeds) != 1 else ''}"
    said = ", ".join(f'{n} <span class="{outcome}">{outcome}</span>' for outcome, n in claims.count(verdicts).items())
    return (
        f"Preset <b>{escape(plan.preset)}</b>: {share}, {seeds}, {seconds:.0f} s of computing. "
        f"Of {len(verdicts)} claims and questions: {said}."
    )


def _claims(verdicts: Sequence[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        claim = verdict.claim
        note = f'<div class="small">{escape(claim.note)}</div>' if claim.note else ""
        relation = {"<=": "≤", ">=": "≥"}[claim.relation]
        rows.append(
            (
                escape(claim.name),
                f"{escape(claim.sentence)} ({claim.mark}){note}",
                f"{escape(claim.measure)} {relation} {claim.bound:g}",
                escape(claims.found(verdict)),
                f'<span class="{verdict.outcome}">{verdict.outcome}</span>',
            )
        )
    used = dict.fromkeys(verdict.claim.interval for verdict in verdicts)
    legend = "; ".join(f"{kind}: {INTERVALS[kind]}" for kind in used)
    several = "Over several places the intervals hold together (Bonferroni)."
    table = _table(("", "claim", "measure and bound", "found", ""), rows)
    return f'<div class="claims">{table}</div><p class="small">Intervals – {escape(legend)}. {several} {_marks()}</p>'


def _marks() -> str:
    return "Marks – " + "; ".join(f"({mark}) {escape(text)}" for mark, text in MARKS.items()) + "."


def _figures(plan: Plan, records: Records) -> Iterable[str]:
    for figure in plan.experiment.figures:
        svg = figures.inline_svg(figure, records)
        if svg is not None:
            svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(figure.title)}"', 1)
            yield f'<figure id="{figure.name}">\n{svg}\n<figcaption>{escape(figure.caption)}</figcaption>\n</figure>'


def _facts(plan: Plan) -> str:
    items = "".join(f"<li>{escape(fact.text)} <b>({fact.mark})</b></li>" for fact in plan.experiment.facts)
    return f'<ul>{items}</ul><p class="small">{_marks()}</p>'


def _configurations(records: Records) -> str:
    """The mean of each measured number, configuration by configuration, with the fields that differ."""
    configs = list(dict.fromkeys(row.config for row in records))
    if not configs:
        return "<p>No trial has been run.</p>"
    fields = [f.name for f in dataclasses.fields(configs[0])]
    varying = [name for name in fields if len({getattr(config, name) for config in configs}) > 1]
    by_config: dict[Any, list[Mapping[str, Any]]] = {}
    for row in records:
        by_config.setdefault(row.config, []).append(row.record)
    measures = [name for name, value in records[0].record.items() if isinstance(value, (bool, int, float))]
    rows = []
    for config, found in by_config.items():
        means = [sum(float(r[name]) for r in found) / len(found) for name in measures]
        cells = [*(_number(getattr(config, name)) for name in varying), *map(_number, means), str(len(found))]
        rows.append(tuple(cells))
    same = ", ".join(f"{name} = {getattr(configs[0], name)}" for name in fields if name not in varying)
    table = _table((*varying, *measures, "seeds"), rows, number=True)
    return (
        f'<p class="small">In all: {escape(same)}.</p>'
        f'<details><summary>Means over seeds</summary><div class="wide">{table}</div></details>'
    )


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, number: bool = False) -> str:
    """Cells are HTML already."""
    cell = '<td class="number">' if number else "<td>"
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"{cell}{value}</td>" for value in row) + "</tr>\n" for row in rows)
    return f"<table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table>"
