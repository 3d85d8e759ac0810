"""report.html: it has what the run has, hostile replies stay text, and a person can find every trace in a browser."""

import io
import json
import re
import zlib
from base64 import b64decode
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bench.browser import Browser
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import assert_one_error_line, r1distill

from r1distill.errors import UserError
from r1distill.evaluate.metrics import accuracy_interval
from r1distill.html_text import shown, source_hash
from r1distill.records import Outcome, Problem, Trace, Verdict
from r1distill.report.charts import apart
from r1distill.report.command import write_report
from r1distill.report.embedding import CHUNK_BYTES, Chunks, Embedding, as_json_block, excerpt
from r1distill.report.reading import read_run
from r1distill.report.scales import Scale, counts_in, edges_of, log_ticks, ticks
from r1distill.store import write_json, write_records

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    '"><img src=x onerror="window.hacked = 1">',
    "'><svg/onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "]]><![CDATA[ --> </style></textarea></title>",
    '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/">',
    '<iframe srcdoc="<script>parent.hacked=1</script>"></iframe><base href="http://127.0.0.1:9/">',
    "\\u003cscript\\u003ewindow.hacked=1",
    "${window.hacked = 1} `{{constructor.constructor('window.hacked=1')()}}`",
    "\u202e7\u202c \u200b\x00\x1b[31m\u2028\u2029\ufeff",
]
KEYS = {"down": "\ue015", "end": "\ue010", "escape": "\ue00c"}

Sample = tuple[str | None, str, Outcome, str]  # thinking, answer, outcome, finish reason


def trace(
    problem: Problem, sample: int, thinking: str | None, answer: str, finish: str = "stop", tokens: int = 7
) -> Trace:
    return Trace(
        problem.id, sample, "m", "sha", 1, "", thinking, answer, finish, [1, 2], 3, tokens,  # type: ignore[arg-type]
        seconds=1.5, error="the server said no" if finish == "error" else None,
    )  # fmt: skip


def score(folder: Path, task: str, model: str, rows: list[tuple[Problem, list[Sample]]], /, **summary: Any) -> Path:
    """eval/TASK/MODEL with these samples of each problem; the detail and the extracted answer repeat the answer."""
    place = folder / "eval" / task / model
    traces = [
        trace(problem, sample, thinking, answer, finish, tokens=100 * sample + 5)
        for problem, samples in rows
        for sample, (thinking, answer, _, finish) in enumerate(samples)
    ]
    verdicts = [
        Verdict(problem.id, sample, outcome, None if outcome == "no_answer" else answer, f"why {answer}", "rules 1")
        for problem, samples in rows
        for sample, (_, answer, outcome, _) in enumerate(samples)
    ]
    write_records(place / "problems.parquet", Problem, [problem for problem, _ in rows])
    write_records(place / "traces" / "00000.parquet", Trace, traces)
    write_records(place / "verdicts.parquet", Verdict, verdicts)
    correct = [[outcome == "correct" and finish == "stop" for _, _, outcome, finish in samples] for _, samples in rows]
    value, low, high = accuracy_interval(correct)
    write_json(
        place / "summary.json",
        {
            "task": task,
            "n_problems": len(rows),
            "samples": len(rows[0][1]),
            "pass@1": value,
            "ci95": [low, high],
            **summary,
        },
    )
    return folder


def small(folder: Path) -> Path:
    """Two models, three questions, two samples."""
    write_json(folder / "recipe.json", {"versions": {"r1distill": "0.1.0"}})
    problems = [Problem(f"What is {n} + 4?", answer=str(n + 4), meta={"level": n}) for n in range(3)]
    right: Sample = ("I add.", "It is right.", "correct", "stop")
    wrong: Sample = ("I guess the needle.", "It is wrong.", "incorrect", "stop")
    cut: Sample = ("I go on", "Cut off.", "correct", "length")
    score(
        folder,
        "sums",
        "student",
        [(problems[0], [right, right]), (problems[1], [wrong, cut]), (problems[2], [wrong, wrong])],
    )
    score(folder, "sums", "base", [(one, [wrong, ("", "", "no_answer", "error")]) for one in problems])
    return folder


class Page(HTMLParser):
    """What a browser would find: elements with attributes, text outside of scripts, and the scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.text = ""
        self.blocks: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id") or tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.blocks[self.inside] = data
        else:
            self.text += data

    def records(self, name: str) -> list[dict[str, Any]]:
        """What the chunks t0, t1 … or q0, q1 … hold."""
        found = []
        number = 0
        while (block := self.blocks.get(f"{name}{number}")) is not None:
            found += json.loads(zlib.decompress(b64decode(block, validate=True)))
            number += 1
        return found

    @property
    def index(self) -> dict[str, Any]:
        return json.loads(self.blocks["index"])


def page_of(folder: Path, samples: int | None = None) -> Page:
    write_report(folder, samples)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- what is on it


def test_scores_rates_and_published_numbers_of_the_summaries_are_on_the_page(tmp_path: Path) -> None:
    problem = Problem("What is 3 + 4?", answer="7")
    score(
        tmp_path, "aime24", "student", [(problem, [("t", "7", "correct", "stop")])],
        title="AIME 2024", **{"pass@1": 0.4213, "ci95": [0.31, 0.54], "ci95_samples": [0.401, 0.442]},
        truncated=0.123, no_answer=0.045, repetition=0.006, mean_tokens=12345.6, mean_tokens_correct=9876.4,
        **{"pass@k": {"1": 0.42, "2": 0.5, "16": 0.81}, "cons@k": {"1": 0.42, "16": 0.6}},
        groups={"level": {"5": {"n_problems": 13, "pass@1": 0.2718, "ci95": [0.1, 0.4]}}},
        published={"source": "a table", "scores": {"R1-7B": 55.5}}, conditions={"engine": {"name": "an engine"}},
    )  # fmt: skip
    text = page_of(tmp_path).text
    for said in (
        "AIME 2024", "42.1 %", "31.0 – 54.0", "40.1 – 44.2", "12.3 %", "4.5 %", "0.6 %", "12,346", "9,876", "55.5 %", "R1-7B",
        "a table", "27.2 %", "student pass@k", "student cons@k", "conditions.engine.name", "an engine",
    ):  # fmt: skip
        assert said in text


def test_several_published_tables_are_told_apart_by_source_and_metric(tmp_path: Path) -> None:
    small(tmp_path)
    path = tmp_path / "eval" / "sums" / "student" / "summary.json"
    tables = [
        {"source": "a paper", "scores": {"R1-7B": 55.5}},
        {"source": "a paper", "metric": "cons@64", "scores": {"R1-7B": 83.3}},
        {"source": "a post", "metric": "pass@1", "scores": {"R1-7B": 50.8}},
        {"source": "a post", "metric": "rating", "scores": {"R1-7B": 1189}},
    ]
    write_json(path, {**json.loads(path.read_text()), "published": tables})
    page = page_of(tmp_path)
    assert "published: 55.5 % [1], cons@64 83.3 % [1], 50.8 % [2], rating 1189 [2]" in page.text
    assert "[1] a paper; [2] a post" in page.text
    assert [row.get("class") for tag, row in page.found if tag == "path"] == ["hollow"] * 2


def test_funnel_losses_and_times_are_on_the_page(tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", {"versions": {"vllm": "9.8.7"}})
    dropped = {"truncated": 30, "incorrect": 60}
    source = {"sampled": 100, "kept": 5, "dropped": {"incorrect": 95}}
    sources = {"one": source, "two": {"sampled": 0, "kept": 0, "dropped": {}}}
    write_json(tmp_path / "funnel.json", {"sampled": 1000, "kept": 910, "dropped": dropped, "by_source": sources})
    write_json(tmp_path / "stages" / "train.json", {"status": "running", "seconds": 3723})
    log = [{"step": 1, "loss": 2.5, "kl": 0.5}, {"step": 2, "loss": 1.25, "kl": 0.25}, {"train_loss": 2}]
    write_json(tmp_path / "student" / "training_log.json", log)
    page = page_of(tmp_path)
    for said in (
        "1,000 (100.0 %)",
        "− incorrect",
        "60 (6.0 %)",
        "910 (91.0 %)",
        "1:02:03, not done",
        "vllm 9.8.7",
        "95",
    ):
        assert said in page.text
    labels = [attributes.get("aria-label") or "" for tag, attributes in page.found if tag == "svg"]
    assert any("loss from 2.5 to 1.25; kl from 0.5 to 0.25" in label for label in labels)


def test_every_trace_of_a_run_is_embedded_with_its_verdict(tmp_path: Path) -> None:
    page = page_of(small(tmp_path))
    index, traces, questions = page.index, page.records("t"), page.records("q")
    assert index["models"] == ["base", "student"]
    assert len(traces) == len(index["question"]) == 12
    assert [one["problem"] for one in questions] == [f"What is {n} + 4?" for n in range(3)]
    assert index["excerpts"] == [one["problem"] for one in questions]
    assert index["sets"] == [[0, 0, 0], [0, 1, 6]]
    student = slice(6, 12)
    assert index["question"][student] == [0, 0, 1, 1, 2, 2]
    assert index["sample"][student] == [0, 1] * 3
    assert [index["outcomes"][one] for one in index["outcome"][student]] == ["correct"] * 2 + [
        "incorrect",
        "correct",
    ] + ["incorrect"] * 2
    assert [index["finishes"][one] for one in index["finish"][student]] == ["stop"] * 3 + ["length"] + ["stop"] * 2
    assert index["tokens"][student] == [5, 105] * 3
    assert [one["thinking"] for one in traces[student]][2:4] == ["I guess the needle.", "I go on"]
    assert traces[1]["error"] == "the server said no"
    assert traces[6]["detail"] == "why It is right."


def test_only_so_many_samples_a_question_are_embedded_where_asked_and_the_page_says_so(tmp_path: Path) -> None:
    page = page_of(small(tmp_path), samples=1)
    assert page.index["sample"] == [0] * 6
    assert "6 more traces" in page.text
    assert "2 of 2" in page.text  # right of the first question: of all samples


def test_a_reply_that_was_cut_off_counts_as_wrong_on_the_page_as_in_the_scores(tmp_path: Path) -> None:
    run = read_run(small(tmp_path))
    with (tmp_path / "chunks").open("wb") as file:
        embedding = Embedding(file, None)
        for scored in run.scored:
            embedding.add(scored)
    for scored in run.scored:
        found = embedding.measured[scored.task, scored.model]
        shares = [found.right[number] / found.samples[number] for number in found.samples]
        assert sum(shares) / len(shares) == scored.summary["pass@1"]
    assert embedding.measured["sums", "student"].tokens_right == [5, 105]


def test_the_worst_questions_come_first_and_lead_to_their_traces(tmp_path: Path) -> None:
    page = page_of(small(tmp_path))
    links = [row["href"] for tag, row in page.found if tag == "a" and "question=" in (row.get("href") or "")]
    assert links[:3] == [f"#traces?task=0&question={number}" for number in (1, 2, 0)]
    assert links[3:] == ["#traces?task=0&question=0"]  # the only one where the models differ
    assert "2 of 3 never right" in page.text


# ---------------------------------------------------------------- what there is of a run


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    assert_one_error_line(r1distill("report", tmp_path), "not a run folder", "recipe.json")
    assert not list(tmp_path.iterdir())


def test_a_run_without_evaluation_has_a_page(tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", {})
    done = r1distill("report", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    assert "This run has no evaluation yet." in Page((tmp_path / "report.html").read_text()).text


def test_traces_that_are_not_verified_or_not_scored_yet_are_shown_as_such(tmp_path: Path) -> None:
    small(tmp_path)
    student, base = (tmp_path / "eval" / "sums" / name for name in ("student", "base"))
    (student / "summary.json").unlink()
    (student / "verdicts.parquet").unlink()
    (base / "summary.json").unlink()
    page = page_of(tmp_path)
    index = page.index
    assert [index["outcomes"][one] for one in index["outcome"]][6:] == ["unverified"] * 6
    assert "not scored yet; 6 replies are verified" in page.text
    assert "not scored yet; 0 replies are verified" in page.text


def test_verdicts_of_an_evaluation_that_is_being_extended_stay_with_their_samples(tmp_path: Path) -> None:
    small(tmp_path)
    place = tmp_path / "eval" / "sums" / "student"
    problems = [Problem(f"What is {n} + 4?", answer=str(n + 4), meta={"level": n}) for n in range(3)]
    more = [trace(problem, sample, None, "") for problem in problems for sample in range(4)]
    write_records(place / "traces" / "00000.parquet", Trace, more)
    index = page_of(tmp_path).index
    seen = [index["outcomes"][one] for one in index["outcome"]][6:]
    unverified = ["unverified"] * 2
    assert seen == ["correct"] * 2 + unverified + ["incorrect", "correct"] + unverified + ["incorrect"] * 2 + unverified
    # and one that was made shorter: the verdicts of samples that are gone are passed over
    write_records(place / "traces" / "00000.parquet", Trace, [one for one in more if one.sample == 1])
    index = page_of(tmp_path).index
    assert [index["outcomes"][one] for one in index["outcome"]][6:] == ["correct", "correct", "incorrect"]


def test_a_file_that_cannot_be_read_leaves_the_old_page_and_nothing_else(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "report.html").write_text("the old page")
    (tmp_path / "eval" / "sums" / "student" / "verdicts.parquet").write_bytes(b"PAR1 and no more")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"verdicts\.parquet: cannot be read"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "the old page"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_summary_that_is_not_json_is_named(tmp_path: Path, content: str) -> None:
    small(tmp_path)
    (tmp_path / "eval" / "sums" / "base" / "summary.json").write_text(content)
    with pytest.raises(UserError, match=r"sums/base/summary\.json"):
        write_report(tmp_path)


# ---------------------------------------------------------------- hostile texts


def hostile_run(folder: Path, texts: list[str]) -> Path:
    """A run where each text stands in every place that a model, a data set or a recipe can write to."""
    write_json(folder / "recipe.json", {"versions": {texts[0]: texts[-2]}})
    rows: list[tuple[Problem, list[Sample]]] = []
    for number, text in enumerate(texts):
        problem = Problem(f"{number} {text}", "choice", text, {"asserts": text}, [text, text], text, meta={text: text})
        rows.append((problem, [(text, text, "correct", "stop"), (None, text, "incorrect", "stop")]))
    names = [text.replace("/", "∕").replace("\x00", "") for text in texts[1:4:2]]
    for name in names:
        group = {"n_problems": 1, "pass@1": 0.5, "ci95": [0.1, 0.9]}
        score(
            folder, "hostile", name, rows, title=texts[3], model=texts[4], groups={texts[1]: dict.fromkeys(texts, group)},
            published={"source": texts[0], "scores": dict.fromkeys(texts, 50)}, conditions=dict.fromkeys(texts, texts[1]),
            **{"pass@k": {"1": 0.1, "2": 0.5}},
        )  # fmt: skip
    dropped = dict.fromkeys(texts, 3)
    by_source = {text: {"sampled": 9, "kept": 1, "dropped": dropped} for text in texts}
    write_json(folder / "funnel.json", {"sampled": 99, "kept": 1, "dropped": dropped, "by_source": by_source})
    return folder


def test_hostile_texts_add_no_element_and_no_attribute_to_the_page(tmp_path: Path) -> None:
    harmless = page_of(hostile_run(tmp_path / "a", [f"text {n}" for n in range(len(HOSTILE))]))
    hostile = page_of(hostile_run(tmp_path / "b", HOSTILE))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in harmless.found]
    for tag, attributes in hostile.found:
        assert tag not in (
            "img",
            "iframe",
            "base",
            "link",
            "object",
            "embed",
            "foreignobject",
            "style" * bool(attributes),
        )
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "style", "action")
        ]
        assert (attributes.get("href") or "#").startswith("#")
    for text in HOSTILE[:-1]:
        assert text in hostile.text
    text = (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    assert not set(text) & set("\u202e\u202c\u200b\x00\x1b\u2028\u2029\ufeff")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text() | st.sampled_from(HOSTILE), max_size=5))
def test_the_index_is_ascii_that_html_does_not_know_and_reads_back_as_it_was(texts: list[str]) -> None:
    block = as_json_block({"texts": texts})
    assert block.isascii()
    assert not set(block) & set("<>&")
    assert json.loads(block) == {"texts": texts}


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(HOSTILE), min_size=1, max_size=8)
)
def test_texts_come_out_of_the_page_as_the_model_wrote_them(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    problem = Problem("What?", answer="7")
    samples: list[Sample] = [(text, text, "incorrect", "stop") for text in texts]
    page = page_of(score(tmp_path_factory.mktemp("run"), "t", "student", [(problem, samples)]))
    assert [(one["thinking"], one["answer"], one["extracted"]) for one in page.records("t")] == [
        (one,) * 3 for one in texts
    ]


def test_half_a_surrogate_pair_is_neither_an_error_nor_lost() -> None:
    # Parquet has none, but the JSON of a problem's meta can
    file = io.BytesIO()
    chunks = Chunks(file, "t")
    chunks.add({"meta": "\ud800 \udfff"})
    chunks.flush()
    assert Page(file.getvalue().decode("ascii")).records("t") == [{"meta": "\ud800 \udfff"}]
    assert shown("\ud800") == "⟨U+D800⟩"


def test_long_texts_are_in_chunks_of_which_each_can_be_opened_alone(tmp_path: Path) -> None:
    problem = Problem("What?", answer="7")
    sizes = [10, CHUNK_BYTES, 3 * CHUNK_BYTES, 100, 100, CHUNK_BYTES // 2, CHUNK_BYTES // 3 * 2, 5]
    samples: list[Sample] = [(f"{n} " + "x" * size, "7", "correct", "stop") for n, size in enumerate(sizes)]
    page = page_of(score(tmp_path, "t", "student", [(problem, samples)]))
    firsts = page.index["traceChunks"]
    assert firsts == [0, 1, 2, 3, 6]
    assert [one["thinking"].partition(" ")[0] for one in page.records("t")] == [str(n) for n in range(len(sizes))]
    for number, first in enumerate(firsts):
        [start] = json.loads(zlib.decompress(b64decode(page.blocks[f"t{number}"])))[:1]
        assert start["thinking"].startswith(f"{first} ")


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else(tmp_path: Path) -> None:
    page = page_of(small(tmp_path))
    rules = next(row["content"] for _, row in page.found if row.get("http-equiv") == "Content-Security-Policy")
    assert rules == (
        f"default-src 'none'; script-src '{source_hash(page.blocks['script'])}'; "
        f"style-src '{source_hash(page.blocks['style'])}'; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    tags = [tag for tag, _ in page.found]
    assert tags.index("meta") < tags.index("style") < tags.index("script")
    assert [row.get("type") for tag, row in page.found if tag == "script"].count(None) == 1


# ---------------------------------------------------------------- axes


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e7), st.integers(2, 10))
def test_ticks_are_round_evenly_spaced_and_inside(low: float, width: float, number: int) -> None:
    high = low + width
    found = ticks(low, high, number)
    assert 1 <= len(found) <= 2 * number + 2
    assert all(low - 1e-6 * width <= one <= high + 1e-6 * width for one in found)
    steps = [round((two - one) / width, 6) for one, two in pairwise(found)]
    assert len(set(steps)) <= 1 or max(steps) - min(steps) < 1e-5


@given(st.lists(st.integers(0, 40_000), min_size=1), st.integers(1, 40))
def test_a_histogram_counts_every_value_once_and_in_its_bin(values: list[int], bins: int) -> None:
    edges, log = edges_of(values, bins)
    assert len(edges) == bins + 1
    assert edges == sorted(set(edges))
    counts = counts_in(values, edges, log=log)
    assert sum(counts) == len(values)
    for value in values:
        # the slow way; a value on an edge may fall to either side, for the logarithm is not exact
        inside = [n for n in range(bins) if edges[n] * (1 - 1e-9) <= value <= edges[n + 1] * (1 + 1e-9)]
        outside = [0] if value < edges[0] else [bins - 1]
        assert any(counts[n] for n in inside or outside)
    if log:
        assert all(edges[0] <= one <= edges[-1] for one in log_ticks(edges[0], edges[-1]))


def test_a_scale_meets_its_ends_and_is_even_in_its_own_measure() -> None:
    assert [Scale(0, 10, 100, 200)(value) for value in (0, 5, 10)] == [100, 150, 200]
    assert Scale(1, 100, 0, 2, log=True)(10) == pytest.approx(1)


def test_ticks_on_a_logarithmic_axis_are_apart_and_keep_the_last() -> None:
    assert apart([1, 2, 4, 8, 16, 32, 33], Scale(1, 33, 0, 300, log=True)) == [1, 2, 4, 8, 16, 33]


def test_an_excerpt_is_one_short_line_and_marked_where_it_is_cut() -> None:
    assert excerpt(" a\n b ", 10) == "a b"
    assert excerpt("x" * 11, 10) == "x" * 10 + "…"
    assert len(excerpt("x " * 10_000_000, 10)) == 11


# ---------------------------------------------------------------- in a browser


def open_traces(browser: Browser, folder: Path, address: str = "#traces") -> None:
    browser.open(f"{(folder / 'report.html').as_uri()}{address}")
    browser.wait("performance.getEntriesByName('interactive').length")
    browser.wait("performance.getEntriesByName('trace shown').length")


def listed(browser: Browser) -> str:
    return browser.script("return document.getElementById('count').textContent")


def chosen(browser: Browser) -> str:
    return browser.script("return document.querySelector('.reply h2').textContent")


def test_a_browser_shows_hostile_traces_as_text_and_nothing_runs_or_loads(tmp_path: Path, browser: Browser) -> None:
    write_report(hostile_run(tmp_path, HOSTILE))
    browser.open(f"{(tmp_path / 'report.html').as_uri()}#overview")
    open_traces(browser, tmp_path, "#traces?with=1")
    total = browser.script("return total")
    assert total == len(HOSTILE) * 2 * 2
    seen = ""
    for number in range(total):
        browser.script(f"performance.clearMarks('trace shown'); thinkingOpen = true; choose({number})")
        browser.wait("performance.getEntriesByName('trace shown').length")
        seen += browser.script("return detail.textContent")
    for text in HOSTILE[:-1]:
        assert seen.count(text) >= 4
    assert "⟨U+202E⟩7⟨U+202C⟩ ⟨U+200B⟩⟨U+0000⟩⟨U+001B⟩[31m⟨U+2028⟩⟨U+2029⟩⟨U+FEFF⟩" in seen
    assert not set(seen) & set("\u202e\u202c\u200b\x00\x1b\u2028\u2029\ufeff")
    for text in HOSTILE:  # as an address and as a search
        browser.script("change({ search: arguments[0] })", text)
        browser.wait("!/searched|searching/.test(document.getElementById('count').textContent)")
        assert int(listed(browser).split()[0]) >= 4
    assert browser.script("return window.hacked") is None
    assert (
        browser.script(
            "return document.querySelectorAll('img, iframe, base, script:not([type]) ~ script:not([type])').length"
        )
        == 0
    )
    browser.read_logs()
    assert browser.console == []
    assert browser.dialogs == []
    assert browser.blocked == []
    assert {address.partition("#")[0] for address in browser.requests.values()} == {(tmp_path / "report.html").as_uri()}


def test_the_page_refuses_to_parse_text_as_html_even_from_its_own_script(tmp_path: Path, browser: Browser) -> None:
    write_report(small(tmp_path))
    open_traces(browser, tmp_path)
    tried = browser.script(
        "try { document.body.innerHTML = '<b>x</b>'; return 'parsed'; } catch (e) { return e.name; }"
    )
    assert tried == "TypeError"
    browser.script(
        "const s = document.createElement('script'); try { s.textContent = 'window.hacked = 1'; document.body.append(s); }"
        "catch (e) {} const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/'; document.body.append(i);"
    )
    assert browser.script("return window.hacked") is None
    browser.read_logs()
    assert any("img-src" in line or "default-src" in line for line in browser.console)
    assert browser.blocked == ["http://127.0.0.1:9/"]
    assert not [address for address in browser.requests.values() if address.startswith("http")]


def test_traces_are_filtered_searched_and_compared(tmp_path: Path, browser: Browser) -> None:
    write_report(small(tmp_path))
    open_traces(browser, tmp_path)
    assert listed(browser) == "12 of 12 traces"
    for changes, count in (
        ({"model": "1"}, 6),
        ({"verdict": "right"}, 2),
        ({"verdict": "wrong"}, 4),
        ({"verdict": "correct"}, 3),
        ({"finish": "length"}, 1),
        ({"finish": "", "verdict": "", "search": "THE NEEDLE"}, 3),
        ({"search": "what is 1 +"}, 2),
        ({"search": "why it is wrong", "model": ""}, 6),
        ({"search": "(needle|.*"}, 0),
        ({"search": "", "question": "2"}, 4),
    ):
        browser.script("change(arguments[0])", changes)
        browser.wait(f"document.getElementById('count').textContent === '{count} of 12 traces'")
    browser.script("change({ question: '', model: '1', search: 'guess' })")
    browser.wait("document.querySelectorAll('.reply mark').length === 1")
    assert browser.script("return document.querySelector('.thinking').open")
    browser.script("change({ search: '', with: '0' })")
    browser.wait("document.querySelectorAll('.reply').length === 2")
    assert browser.script("return Array.from(document.querySelectorAll('.reply h2'), (one) => one.textContent)") == [
        "student, sample 1", "base, sample 1",
    ]  # fmt: skip
    browser.wait("location.hash.includes('with=0')")
    link = browser.script("return location.href")
    browser.open("about:blank")
    browser.open(link)
    browser.wait("document.querySelectorAll('.reply').length === 2")


def test_a_link_of_the_worst_question_opens_its_traces_and_back_returns(tmp_path: Path, browser: Browser) -> None:
    write_report(small(tmp_path))
    browser.open((tmp_path / "report.html").as_uri())
    assert browser.script("return document.getElementById('traces').hidden")
    browser.script("document.querySelector('td.question a').click()")
    browser.wait("!document.getElementById('traces').hidden && document.querySelectorAll('.reply').length")
    assert listed(browser) == "4 of 12 traces"
    assert "question 2" in browser.script("return document.querySelector('#detail h2').textContent")
    browser.send("back")
    browser.wait("!document.getElementById('overview').hidden")


def test_the_keyboard_goes_through_the_list_and_unfolds(tmp_path: Path, browser: Browser) -> None:
    write_report(small(tmp_path))
    open_traces(browser, tmp_path, "#traces?model=1")
    assert chosen(browser) == "student, sample 1"
    browser.script("list.focus()")
    browser.press(KEYS["down"], KEYS["down"])
    browser.wait("state.trace === '8'")
    browser.press("k")
    browser.wait("state.trace === '7'")
    browser.press(KEYS["end"])
    browser.wait("state.trace === '11'")
    assert browser.script("return list.getAttribute('aria-activedescendant')") == "row-11"
    assert browser.script("return document.getElementById('row-11').getAttribute('aria-selected')") == "true"
    browser.wait("document.querySelector('.reply h2').textContent === 'student, sample 2'")
    browser.press("t")
    browser.wait("document.querySelector('.thinking').textContent.includes('guess')")
    browser.press("[")
    browser.wait("state.trace === '10'")
    browser.press("c")
    browser.wait("document.querySelectorAll('.reply').length === 2")
    browser.press("/")
    browser.press("n", "o", "p", "e")
    browser.wait("document.getElementById('count').textContent === '0 of 12 traces'")
    browser.press(KEYS["escape"])  # empties the search and goes back to the list
    browser.wait("document.getElementById('count').textContent === '6 of 12 traces'")
    assert browser.script("return document.activeElement.id") == "list"


def test_a_line_of_ten_megabytes_is_shown_a_part_at_a_time(tmp_path: Path, browser: Browser) -> None:
    problem = Problem("What?", answer="7")
    long: Sample = ("\x00\U0001f600" * 2_000_000, "7", "correct", "stop")
    write_report(score(tmp_path, "t", "student", [(problem, [long, ("short", "7", "correct", "stop")])]))
    assert (tmp_path / "report.html").stat().st_size < 1 << 20
    open_traces(browser, tmp_path)
    browser.script("foldThinking()")
    shown = "document.querySelector('.thinking .text').textContent.length"
    first = browser.wait(shown)
    assert 300_000 <= first < 2_000_000
    assert "characters are left" in browser.script("return document.querySelector('.thinking button').textContent")
    browser.script("document.querySelector('.thinking button').click()")
    assert browser.script(f"return {shown}") > 1.9 * first
    # no character was cut into halves
    assert "⟨U+D8" not in browser.script("return document.querySelector('.thinking .text').textContent")
    browser.read_logs()
    assert browser.console == []


def test_an_address_of_nonsense_opens_a_page_that_works(tmp_path: Path, browser: Browser) -> None:
    write_report(small(tmp_path))
    page = (tmp_path / "report.html").as_uri()
    for words, count in (
        ("trace=1.5&with=99&other=-1&question=length", 12),
        ("trace=length&order=toString&with=x", 12),
        ("task=9&verdict=none", 0),
        ("=&&trace=1e9&search=%", 0),
    ):
        browser.open(f"{page}#traces?{words}")
        browser.wait(f"document.getElementById('count').textContent === '{count} of 12 traces'")
        browser.open("about:blank")
    browser.open(f"{page}#%00<script>")
    assert not browser.script("return document.getElementById('overview').hidden")
    browser.read_logs()
    assert browser.console == []


def test_a_page_that_was_cut_off_says_so_where_its_texts_are_missing(tmp_path: Path, browser: Browser) -> None:
    write_report(small(tmp_path))
    page = tmp_path / "report.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text[: text.index('id="t0"') - 30], encoding="utf-8")
    browser.open(f"{page.as_uri()}#traces")
    browser.wait("document.querySelector('#detail [role=alert]')")
    assert "write the report again" in browser.script("return detail.textContent")


def test_every_field_has_a_label_and_every_text_enough_contrast(tmp_path: Path, browser: Browser) -> None:
    write_report(small(tmp_path))
    open_traces(browser, tmp_path)
    unlabelled = (
        "return Array.from(document.querySelectorAll('select, input')).filter((one) => !one.labels.length).length"
    )
    assert browser.script(unlabelled) == 0
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.command("Emulation.setEmulatedMedia", features=features)
        style = browser.script(
            "const style = getComputedStyle(document.documentElement); return Object.fromEntries("
            "['--paper', '--panel', '--faint', '--ink', '--soft', '--link', '--right', '--wrong', '--right-wash', '--wrong-wash']"
            ".map((name) => [name, style.getPropertyValue(name).trim()]))"
        )
        pairs = [(ink, paper) for ink in ("--ink", "--soft", "--link") for paper in ("--paper", "--panel", "--faint")]
        for ink, paper in [*pairs, ("--right", "--right-wash"), ("--wrong", "--wrong-wash")]:
            assert contrast(style[ink], style[paper]) >= 4.5, (scheme, ink, paper)


def contrast(one: str, two: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    first, second = sorted((luminance(one), luminance(two)))
    return (second + 0.05) / (first + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part, 16) / 255 for part in re.findall(r"[0-9a-f]{2}", colour)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
