"""The audit: which cases are drawn, a page that hostile replies cannot break, and rates from the marks of its reader."""

import json
import re
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bench.browser import Browser
from hypothesis import given
from hypothesis import strategies as st
from small_run import assert_one_error_line, jsonl, r1distill

from r1distill.errors import UserError
from r1distill.html_text import source_hash
from r1distill.prompting import split_thinking
from r1distill.records import Outcome, Problem, Trace, Verdict
from r1distill.store import read_json, write_records
from r1distill.verify.audit import allocation, draw, make_audit, read_audit, stratum_of
from r1distill.verify.audit_page import Case, page

JUDGED = "judge judge-1 / prompt 0123456789ab / math-verify 0.9.0"
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</pre></article></body><script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "'><svg/onload=window.hacked=1>",
    "javascript:window.hacked=1",
    '<a href="javascript:window.hacked=1">7</a>',
    "<!--",
    "]]><![CDATA[",
    "<style>* { display: none }</style>",
    '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/">',
    '<base href="http://127.0.0.1:9/"><iframe src="/"></iframe>',
    "&lt;script&gt;&#x3C;script&#x3E;",
    "\u202e7\u202c \u200b\u0000\u001b[31m\u2028",
    "${window.hacked = 1} `</textarea>`",
]


def audit(folder: Path, *, cases: int = 100, seed: int = 0) -> str:
    return make_audit(folder, cases=cases, seed=seed, workers=1, timeout_s=5.0)


def folder_of(folder: Path, rows: list[tuple[Problem, list[tuple[str, Outcome, str | None]]]]) -> Path:
    """A run folder with, for each problem, its samples as (reply, outcome, extracted)."""
    traces, verdicts = [], []
    for problem, samples in rows:
        for sample, (text, outcome, extracted) in enumerate(samples):
            thinking, answer = split_thinking(text)
            traces.append(Trace(problem.id, sample, "teacher", "sha", 1, text, thinking, answer, "stop"))
            verdicts.append(Verdict(problem.id, sample, outcome, extracted, "the detail", "math-verify 0.9.0"))
    write_records(folder / "problems.parquet", Problem, [problem for problem, _ in rows])
    write_records(folder / "traces" / "00000.parquet", Trace, traces)
    write_records(folder / "verdicts.parquet", Verdict, verdicts)
    return folder


def ordinary_run(folder: Path, n_problems: int = 40) -> Path:
    """Of each problem two right samples and two that are wrong in two ways; every tenth: the majority is rejected."""
    rows: list[tuple[Problem, list[tuple[str, Outcome, str | None]]]] = []
    for number in range(n_problems):
        right, wrong = str(number), str(number + 1)
        samples: list[tuple[str, Outcome, str | None]] = [
            (rf"\boxed{{{right}}}", "correct", right), (rf"\boxed{{{right}.0}}", "correct", f"{right}.0"),
            (rf"\boxed{{{wrong}}}", "incorrect", wrong), ("No idea.", "no_answer", None),
        ]  # fmt: skip
        if number % 10 == 0:
            samples[1] = (rf"\boxed{{{wrong}.0}}", "incorrect", f"{wrong}.0")
        rows.append((Problem(f"Which number is {number}?", answer=right), samples))
    return folder_of(folder, rows)


def cases_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit" / "audit.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- which cases


@pytest.mark.parametrize(
    ("verdict", "is_against", "stratum"),
    [
        (Verdict("p", 0, "correct"), False, "correct"),
        (Verdict("p", 0, "incorrect"), False, "incorrect"),
        (Verdict("p", 0, "correct"), True, "accepted_against_majority"),
        (Verdict("p", 0, "incorrect"), True, "rejected_against_majority"),
        *(
            (Verdict("p", 0, outcome), False, "undecided")
            for outcome in ("no_answer", "unverifiable", "timeout", "error")
        ),
        (Verdict("p", 0, "correct", "7", "judge: correct; rules: no_answer (x)", JUDGED), True, "accepted_by_judge"),
        (Verdict("p", 0, "incorrect", "7", "judge: incorrect; rules: correct (x)", JUDGED), False, "rejected_by_judge"),
        (Verdict("p", 0, "incorrect", "7", "judge: incorrect; rules: incorrect (x)", JUDGED), False, "incorrect"),
        (Verdict("p", 0, "incorrect", "7", "judge: correct; rules: correct", "math-verify"), False, "incorrect"),
    ],
)
def test_a_trace_is_in_one_stratum(verdict: Verdict, is_against: bool, stratum: str) -> None:
    assert stratum_of(verdict, is_against) == stratum


@given(st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 10_000), min_size=1), st.integers(10, 500))
def test_every_stratum_has_cases_and_none_more_than_it_has(sizes: dict[str, int], cases: int) -> None:
    taken = allocation(sizes, cases)
    assert sum(taken.values()) == min(cases, sum(sizes.values()))
    assert all(1 <= taken[name] <= size for name, size in sizes.items())


def test_half_of_the_cases_go_by_size_and_half_evenly() -> None:
    assert allocation({"correct": 9_000, "incorrect": 1_000}, 100) == {"correct": 70, "incorrect": 30}


def test_a_draw_depends_on_seed_and_traces_alone_and_a_larger_one_holds_the_smaller() -> None:
    keys = [(f"p{number}", sample) for number in range(50) for sample in range(4)]
    small, again, other = draw({"x": keys}, 20, 0), draw({"x": keys[::-1]}, 20, 0), draw({"x": keys}, 20, 1)
    assert small == again
    assert small != other
    assert set(small["x"]) < set(draw({"x": keys}, 40, 0)["x"])


def test_every_trace_is_drawn_as_often_as_any_other() -> None:
    keys = [("p", sample) for sample in range(20)]
    drawn = Counter(key for seed in range(2_000) for key in draw({"x": keys}, 5, seed)["x"])
    assert all(400 < drawn[key] < 600 for key in keys)


def test_an_audit_draws_from_every_stratum_and_says_how_large_each_is(tmp_path: Path) -> None:
    said = audit(ordinary_run(tmp_path), cases=60)
    cases = cases_of(tmp_path)
    assert len(cases) == 60 == len({case["id"] for case in cases})
    sizes = {case["stratum"]: case["stratum_traces"] for case in cases}
    # of 40 problems, 4 have two equal rejected answers and one accepted answer against them
    assert sizes == {
        "correct": 72, "accepted_against_majority": 4, "rejected_against_majority": 8, "incorrect": 36, "undecided": 40,
    }  # fmt: skip
    assert "60 of 160 traces to mark" in said
    assert re.search(r"4 of +4 +accepted_against_majority", said)
    against = next(case for case in cases if case["stratum"] == "rejected_against_majority")
    number = int(against["problem"].removeprefix("Which number is ").rstrip("?"))
    assert against["others"] == [[str(number + 1) + ".0", 2], [str(number), 1]]
    assert against["reference"] == str(number)
    assert against["detail"] == "the detail"


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    ordinary_run(tmp_path)
    audit(tmp_path, cases=30)
    first = {path.name: path.read_bytes() for path in (tmp_path / "audit").iterdir()}
    audit(tmp_path, cases=30)
    assert {path.name: path.read_bytes() for path in (tmp_path / "audit").iterdir()} == first
    audit(tmp_path, cases=30, seed=1)
    assert (tmp_path / "audit" / "audit.jsonl").read_bytes() != first["audit.jsonl"]


def test_what_says_nothing_is_left_out_unless_it_was_called_correct(tmp_path: Path) -> None:
    problem = Problem("What is 3 + 4?", answer="7")
    silent = "<think>\nIt is 7, I th"
    folder_of(
        tmp_path, [(problem, [(silent, "no_answer", None), (silent, "correct", "7"), ("It is 7.", "correct", "7")])]
    )
    said = audit(tmp_path)
    assert sorted(case["sample"] for case in cases_of(tmp_path)) == [1, 2]
    assert "left out: 1 that failed or say nothing" in said


def test_a_long_reply_and_long_tests_are_cut(tmp_path: Path) -> None:
    code = Problem("Write f.", kind="code", tests={"type": "asserts", "code": "assert f() == 1\n" * 10_000})
    folder_of(tmp_path, [(code, [("x" * 100_000 + "the end", "unverifiable", None)])])
    audit(tmp_path)
    [case] = cases_of(tmp_path)
    assert case["tail"].endswith("the end")
    assert len(case["tail"]) + len(case["reference"]) < 10_000
    assert "assert f() == 1" in case["reference"]


def test_a_folder_that_cannot_be_audited_says_what_can(tmp_path: Path) -> None:
    ordinary_run(tmp_path / "eval" / "mine" / "student", 1)
    with pytest.raises(
        UserError, match=r"it has no problems.parquet, traces, verdicts.parquet; give one of .*mine/student"
    ):
        audit(tmp_path / "eval" / "mine")
    with pytest.raises(UserError, match=r"nowhere: not a folder to audit.*give the folder of a run that was verified"):
        audit(tmp_path / "nowhere")
    audit(tmp_path / "eval" / "mine" / "student")


# ---------------------------------------------------------------- the page


class Elements(HTMLParser):
    """What a browser would find: the elements with their attributes, and the text outside script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.text = ""
        self.sources: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] in ("script", "style"):
            self.sources[self.inside[-1]] = data
        else:
            self.text += data


def hostile_case(text: str) -> Case:
    return Case(
        id=text, problem_id=text, sample=0, stratum=text, stratum_traces=1, kind=text, problem=text, choices=[text],
        reference=text, extracted=text, outcome="correct", detail=text, verifier=text, finish_reason=text,
        others=[(text, 2)], tail=text,
    )  # fmt: skip


def test_a_hostile_text_is_text_everywhere_on_the_page() -> None:
    harmless = Elements(page("run", [hostile_case("7")] * len(HOSTILE)))
    hostile = Elements(page("run", list(map(hostile_case, HOSTILE))))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in harmless.found]
    for tag, attributes in hostile.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "src", "style", "action")]
        assert tag not in ("img", "svg", "iframe", "base", "link", "object", "embed", "form")
    for text in HOSTILE[:-2]:
        assert hostile.text.count(text) >= 10
    assert Elements(page(HOSTILE[0], [])).text.count(HOSTILE[0]) == 2


def test_characters_that_cannot_be_seen_are_spelled_out() -> None:
    text = page("run", [hostile_case(HOSTILE[12])])
    assert "⟨U+202E⟩7⟨U+202C⟩ ⟨U+200B⟩⟨U+0000⟩⟨U+001B⟩[31m⟨U+2028⟩" in text
    assert not set(text) & set("\u202e\u202c\u200b\x00\x1b\u2028")
    assert "two\nlines\tand a tab" in page("run", [hostile_case("two\nlines\tand a tab")])


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    elements = Elements(page("run", [hostile_case("7")]))
    policy = next(row["content"] for tag, row in elements.found if row.get("http-equiv") == "Content-Security-Policy")
    hashes = {tag: source_hash(source) for tag, source in elements.sources.items()}
    assert policy == (
        f"default-src 'none'; script-src '{hashes['script']}'; style-src '{hashes['style']}'; "
        "base-uri 'none'; form-action 'none'"
    )
    # the policy stands before everything that it rules
    assert [tag for tag, _ in elements.found].index("meta") < [tag for tag, _ in elements.found].index("style")


def test_a_person_marks_hostile_replies_in_a_browser_and_the_marks_are_read_back(
    tmp_path: Path, browser: Browser
) -> None:
    rows = [(Problem(f"{n} {text}", answer=text), [(text, "correct", text)]) for n, text in enumerate(HOSTILE)]
    audit(folder_of(tmp_path / "run", rows))  # type: ignore[arg-type]
    browser.open((tmp_path / "run" / "audit" / "audit.html").as_uri())
    script = browser.script
    assert script("return window.hacked") is None
    assert script("return document.scripts.length") == 1
    assert script("return performance.getEntriesByType('resource').length") == 0
    assert script("return document.getElementById('count').textContent") == f"0 of {len(HOSTILE)} marked"
    script("document.querySelectorAll('input[value=right]').forEach((one, n) => { if (n > 1) one.click(); })")
    script("document.querySelector('input[value=wrong]').click()")
    assert (
        script("return document.getElementById('count').textContent") == f"{len(HOSTILE) - 1} of {len(HOSTILE)} marked"
    )
    script("document.getElementById('download').click()")
    deadline = time.monotonic() + 20
    while not (browser.downloads / "marks.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    said = read_audit(tmp_path / "run", browser.downloads / "marks.jsonl")
    assert said.startswith(f"{len(HOSTILE) - 2} right, 1 wrong, 0 unsure, of {len(HOSTILE)} cases")


# ---------------------------------------------------------------- the marks and the command line


def test_marks_become_rates_printed_and_written(tmp_path: Path) -> None:
    folder = ordinary_run(tmp_path / "run")
    drawn = r1distill("verify", "--audit", folder, "--n", "160")
    assert drawn.returncode == 0, drawn.stderr
    assert "r1distill verify --audit" in drawn.stdout
    # a person who finds the rejected majorities right, and the accepted answers against them wrong
    right = {"correct", "rejected_against_majority"}
    rows = [{"id": case["id"], "mark": "right" if case["stratum"] in right else "wrong"} for case in cases_of(folder)]
    result = r1distill("verify", "--audit", folder, "--marks", jsonl(tmp_path / "marks.jsonl", rows))
    assert result.returncode == 0, result.stderr
    # 8 of 80 right replies rejected; 4 of 80 wrong ones accepted; every trace was marked
    assert "80 right, 80 wrong, 0 unsure, of 160 cases" in result.stdout
    assert "false negatives: 10.0% (95 %: 10.0% to 10.0%) of the right replies are not called correct" in result.stdout
    assert "false positives: 5.0% (95 %: 5.0% to 5.0%) of the wrong replies are called correct" in result.stdout
    rates = read_json(folder / "audit" / "rates.json")
    assert rates["false_negative_rate"]["estimate"] == pytest.approx(0.1)
    assert rates["strata"]["undecided"] == {
        "accepted": False, "traces": 40, "right": 0, "wrong": 40, "unsure": 0, "cases": 40,
    }  # fmt: skip


def test_a_stratum_without_marks_is_named_and_leaves_the_rates_open(tmp_path: Path) -> None:
    folder = ordinary_run(tmp_path)
    audit(folder, cases=20)
    rows = [{"id": case["id"], "mark": "right"} for case in cases_of(folder) if case["stratum"] != "undecided"]
    said = read_audit(folder, jsonl(tmp_path / "marks.jsonl", rows))
    assert "no rates yet: no reply is marked right or wrong of undecided (40 traces)" in said
    assert read_json(folder / "audit" / "rates.json")["false_negative_rate"] is None


def test_wrong_calls_of_audit_end_in_one_line(tmp_path: Path) -> None:
    folder, marks = ordinary_run(tmp_path / "run", 3), jsonl(tmp_path / "marks.jsonl", [{"id": "z/0", "mark": "right"}])
    assert_one_error_line(
        r1distill("verify", "--audit", folder, "--marks", marks), "audit.jsonl: cannot be read", "makes it"
    )
    audit(folder)
    assert_one_error_line(r1distill("verify", "--audit", folder, "--marks", marks), "marks.jsonl:1: 'z/0' is no case")
    assert_one_error_line(r1distill("verify", "quickstart", "--audit", folder), "takes no recipe")
    assert_one_error_line(r1distill("verify", "--marks", marks), "needs --audit RUN")
    assert_one_error_line(r1distill("verify", "--audit", tmp_path), "not a folder to audit")
