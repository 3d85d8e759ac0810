"""The parts of report.html around the traces: head, overview, and the empty frame that the script fills.

Everything that a model or a data set wrote is escaped here or put in by the script as text; the content security policy
lets nothing run or load but the one script and the one style, by their hashes, and has the browser refuse every place
in the script that would parse a text as HTML.
"""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from r1distill import __version__
from r1distill.html_text import policy, shown
from r1distill.report.embedding import Measured, as_json_block
from r1distill.report.making import funnel_section, losses_section, stages_section
from r1distill.report.questions import lengths, worst_questions
from r1distill.report.reading import RunFiles, Scored
from r1distill.report.scores import conditions, curves, groups, score_table, series_of

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("index.js", "chunks.js", "elements.js", "filters.js", "list.js", "detail.js", "main.js")


def head(run: RunFiles, index: Mapping[str, Any], measured: Mapping[tuple[str, str], Measured], facts: str) -> str:
    """The page up to where the chunks follow; `index` as of Embedding, `facts` a line below the title."""
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    script = '"use strict";\n' + "".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    rules = policy(script, style) + "; require-trusted-types-for 'script'; trusted-types 'none'"
    traces = len(index["question"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(rules)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{shown(run.name)} · r1distill report</title>
<style>{style}</style>
</head>
<body>
<header class="top">
<strong class="name">{shown(run.name)}</strong>
<nav aria-label="Parts of the report"><a href="#overview">Overview</a><a href="#traces">Traces
<span class="count">{traces:,}</span></a></nav>
</header>
<main id="overview">
<h1>{shown(run.name)}</h1>
<p class="facts">{shown(facts)}</p>
{overview(run, measured, index["excerpts"])}
<footer>Written by r1distill {shown(__version__)}. {shown(", ".join(map(" ".join, run.versions.items())))}</footer>
</main>
{EXPLORER}
<script type="application/json" id="index">{as_json_block(index)}</script>
<script>{script}</script>
"""


def overview(run: RunFiles, measured: Mapping[tuple[str, str], Measured], excerpts: Sequence[str]) -> str:
    series = series_of(list(dict.fromkeys(one.model for one in run.scored)))
    tasks = [list(scored) for _, scored in groupby(run.scored, key=lambda one: one.task)]
    scores, curve, group, length, worst = [], [], [], [], []
    for number, scored in enumerate(tasks):
        name = title_of(scored)
        of_task = {one.model: measured[one.task, one.model] for one in scored}
        scores.append(f"<h3>{shown(name)}{size_of(scored)}</h3>{score_table(name, scored, series, measured)}")
        scores.append(conditions(scored))
        curve.append(curves(name, scored, series))
        group.append(groups(name, scored, series))
        length.append(lengths(name, of_task))
        worst.append(worst_questions(name, number, of_task, excerpts))
    return "".join(
        [
            section("scores", "Scores", scores, "This run has no evaluation yet."),
            section("curves", "More samples a question", [wrapped("charts", curve)]),
            section("lengths", "Lengths of right and wrong replies", length),
            section("groups", "Scores by group", group),
            section("worst", "Questions", worst),
            section("funnel", "Data", [funnel_section(run.funnel)]),
            section("training", "Training", [losses_section(run.training_log)]),
            section("stages", "Time", [stages_section(run.stages)]),
        ]
    )


def section(name: str, title: str, parts: Sequence[str], absent: str = "") -> str:
    """A section, left out where there is nothing in it, unless `absent` says so to the reader."""
    content = "".join(parts) or (absent and f"<p>{absent}</p>")
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{content}</section>' * bool(
        content
    )


def wrapped(kind: str, parts: Sequence[str]) -> str:
    content = "".join(parts)
    return f'<div class="{kind}">{content}</div>' if content else ""


def title_of(scored: Sequence[Scored]) -> str:
    return next((str(one.summary["title"]) for one in scored if one.summary.get("title")), scored[0].task)


def size_of(scored: Sequence[Scored]) -> str:
    """How many questions and samples; of the first summary that there is."""
    summary = next((one.summary for one in scored if "n_problems" in one.summary), None)
    if summary is None:
        return ""
    return f' <small>{summary["n_problems"]:,} questions × {summary.get("samples", "?")} samples</small>'


EXPLORER = """<main id="traces" hidden>
<h1 class="unseen">Traces</h1>
<form id="filters" role="search" aria-label="Which traces are listed">
<label>Task <select id="task"></select></label>
<label>Model <select id="model"></select></label>
<label>Verdict <select id="verdict"></select></label>
<label>Finish <select id="finish"></select></label>
<label>Order <select id="order"><option value="question">question</option><option value="hardest">hardest question first
</option><option value="longest">longest first</option><option value="shortest">shortest first</option></select></label>
<label class="wide">Search <input id="search" type="search" placeholder="in questions, thinking, answers ( / )"
autocomplete="off" spellcheck="false"></label>
<button id="question" type="button" hidden></button>
<output id="count" aria-live="polite"></output>
</form>
<div class="panes">
<div id="list" role="listbox" tabindex="0" aria-label="Traces"><div id="spacer"></div></div>
<article id="detail" tabindex="-1" aria-label="The chosen trace"></article>
</div>
<p id="keys"><kbd>↑</kbd> <kbd>↓</kbd> or <kbd>k</kbd> <kbd>j</kbd> previous, next · <kbd>/</kbd> search · <kbd>t</kbd>
thinking · <kbd>c</kbd> compare · <kbd>[</kbd> <kbd>]</kbd> previous, next sample</p>
</main>
<noscript><p>The list of traces needs JavaScript, which is switched off.</p></noscript>
"""
