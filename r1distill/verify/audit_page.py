"""audit.html: one page, without a network, on which a person marks the cases of an audit.

Everything in it was written by models or comes from data sets, so every text is escaped and characters that cannot be
seen are spelled out (a right-to-left mark could make a wrong answer look right). Should something slip through, the
content security policy lets nothing run or load but the one script and the one style below, known by their hashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from r1distill.html_text import policy, shown
from r1distill.prompting import LETTERS
from r1distill.records import Outcome
from r1distill.verify.rates import MARKS


@dataclass(frozen=True, slots=True)
class Case:
    """A line of audit.jsonl: all that a person needs to mark a reply, and the size of the stratum it stands for."""

    id: str
    problem_id: str
    sample: int
    stratum: str
    stratum_traces: int
    kind: str
    problem: str
    choices: list[str] | None
    reference: str
    extracted: str | None
    outcome: Outcome
    detail: str
    verifier: str
    finish_reason: str
    others: list[tuple[str, int]]  # answers of the samples of this problem, one text a class, with how often
    tail: str


STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
header { position: sticky; top: 0; padding: .5rem 0; background: Canvas; border-bottom: 1px solid GrayText; }
article { margin: 1.5rem 0; padding: 1rem; border: 1px solid GrayText; border-radius: .5rem; }
h2, h3 { font-size: 1rem; margin: .8rem 0 .2rem; }
pre { margin: 0; padding: .5rem; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate;
      border-left: 3px solid GrayText; max-height: 30rem; overflow-y: auto; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
fieldset { margin: .8rem 0 0; border: 0; padding: 0; }
label { margin-right: 1.5rem; }
article:has(input:checked) { opacity: .75; }
"""

SCRIPT = """
"use strict";
const articles = Array.from(document.querySelectorAll("article"));
let unsaved = false;
function marks() {
  return articles.flatMap((article) => {
    const chosen = article.querySelector("input:checked");
    return chosen ? [{ id: article.dataset.id, mark: chosen.value }] : [];
  });
}
function count() {
  document.getElementById("count").textContent = marks().length + " of " + articles.length + " marked";
}
document.addEventListener("change", () => { unsaved = true; count(); });
document.getElementById("download").addEventListener("click", () => {
  const lines = marks().map((mark) => JSON.stringify(mark) + "\\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.download = "marks.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
  unsaved = false;
});
window.addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
count();
"""


def page(title: str, cases: Sequence[Case]) -> str:
    """The whole page. What the verifier said is folded away: it should not lead the person who marks."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy(SCRIPT, STYLE))}">
<meta name="viewport" content="width=device-width">
<title>Audit of {shown(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><strong>Audit of {shown(title)}</strong>
<button id="download" type="button">Download marks.jsonl</button> <output id="count"></output></header>
<p>Is the final answer of each reply right? Mark what you would say if you graded it yourself: <em>right</em> where it
means the same as the reference (or is right although the reference is not), <em>wrong</em> where it does not or there is
none, <em>unsure</em> where you cannot tell. What the verifier said is folded away.</p>
{"".join(article(number, case) for number, case in enumerate(cases, 1))}
<script>{SCRIPT}</script>
</body>
</html>
"""


def article(number: int, case: Case) -> str:
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, case.choices or [], strict=False))
    marks = "".join(f'<label><input type="radio" name="case-{number}" value="{mark}"> {mark}</label>' for mark in MARKS)
    others = "\n".join(f"{size} × {answer}" for answer, size in case.others)
    verdict = f"{case.outcome}\n{case.detail}\n{case.verifier}\nstratum: {case.stratum}"
    return f"""<article data-id="{shown(case.id)}">
<h2>{number}. {shown(case.kind)} problem</h2>{block(case.problem)}{block(options) if options else ""}
<div class="pair"><div><h3>Reference</h3>{block(case.reference or "(none)")}</div>
<div><h3>Extracted answer</h3>{block("(none)" if case.extracted is None else case.extracted)}</div></div>
<h3>End of the reply (it ended with: {shown(case.finish_reason)})</h3>{block(case.tail)}
<fieldset><legend>The answer of the reply is</legend>{marks}</fieldset>
<details><summary>What the verifier said, and the other samples</summary>{block(verdict)}{block(others or "(no answers)")}
</details>
</article>
"""


def block(text: str) -> str:
    return f"<pre>{shown(text)}</pre>"
