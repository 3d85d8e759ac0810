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
from r1distill.report.making import funnel, funnel_by_source, losses, stage_times
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
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
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
<footer>Written by r1distill {shown(__version__)}. {shown(versions)}</footer>
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
    drawn = wrapped("charts", curve)
    making = [
        wrapped("charts", [funnel(run.funnel), losses(run.training_log), stage_times(run.stages)]),
        funnel_by_source(run.funnel),
    ]
    sections = {
        "Scores": "".join([READING, *scores]) if scores else "<p>This run has no evaluation yet.</p>",
        "More samples a question": drawn and CURVES + drawn,
        "Lengths of right and wrong replies": "".join(length),
        "Scores by group": wrapped("halves", group),
        "Hardest questions": "".join(worst),
        "How the student was made": "".join(making),
    }
    return contents_and_sections({title: content for title, content in sections.items() if content})


def contents_and_sections(sections: Mapping[str, str]) -> str:
    links = "".join(f'<a href="#section-{number}">{title}</a>' for number, title in enumerate(sections))
    parts = [
        f'<section id="section-{number}" aria-labelledby="title-{number}"><h2 id="title-{number}">{title}</h2>{content}'
        "</section>"
        for number, (title, content) in enumerate(sections.items())
    ]
    return f'<nav class="contents" aria-label="Sections">{links}</nav>{"".join(parts)}'


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
    return f" <small>{summary['n_problems']:,} questions × {summary.get('samples', '?')} samples</small>"


READING = """<p class="caption">Whiskers: the 95 % interval over questions, for another set of such questions. Band:
over samples, for the same questions asked again. A reply that did not stop by itself counts as wrong.</p>
"""

CURVES = """<p class="caption">pass@k: at least one of k samples is right. cons@k: the most frequent answer of k is.</p>
"""

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
</form>
<div class="panes">
<div class="listing"><div class="counted"><output id="count" aria-live="polite"></output>
<button id="question" type="button" hidden></button></div>
<div id="list" role="listbox" tabindex="0" aria-label="Traces"><div id="spacer" role="presentation"></div></div></div>
<article id="detail" tabindex="-1" aria-label="The chosen trace"></article>
</div>
<p id="keys"><kbd>↑</kbd> <kbd>↓</kbd> or <kbd>k</kbd> <kbd>j</kbd> previous, next · <kbd>/</kbd> search · <kbd>t</kbd>
thinking · <kbd>c</kbd> compare · <kbd>[</kbd> <kbd>]</kbd> previous, next sample</p>
</main>
<noscript><p>The list of traces needs JavaScript, which is switched off.</p></noscript>
"""
