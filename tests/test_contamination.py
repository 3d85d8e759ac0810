"""What a benchmark asks is found in the dresses that it comes in, and what only sounds like it is not."""

import random
from pathlib import Path

import planted_contamination as planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import DATA, jsonl

from r1distill.contamination_section import Contamination
from r1distill.errors import UserError
from r1distill.evaluate.tasks import data_sha256
from r1distill.filter.benchmark_index import BenchmarkIndex, build_index
from r1distill.filter.contamination import Hit, find_contamination
from r1distill.filter.contamination_report import contamination_report
from r1distill.filter.gram_table import gram_hashes, gram_table, joined, mixed, starts_of
from r1distill.filter.registry import build_registry
from r1distill.problems import load_problems
from r1distill.records import Problem

WALK = (
    "Every morning Aya goes for a $9$-kilometer-long walk and stops at a coffee shop afterwards. When she walks at a "
    "constant speed of $s$ kilometers per hour, the walk takes her 4 hours, including $t$ minutes spent in the shop."
)
SHORT = r"What is the smallest prime that divides $7^{7} + 1$?"
CODE = (
    "Given a rooted tree of n glittering lanterns, each coloured red or violet, print how many lanterns see an ember."
)
QUESTIONS = [WALK, SHORT, CODE, "What is 20 + 77?"]
BOILERPLATE = "Let a, b, c be positive real numbers such that a + b + c = 1. Find the minimum value of "


def index_of(*texts: str | Problem, **settings: object) -> BenchmarkIndex:
    problems = [text if isinstance(text, Problem) else Problem(text, answer="1") for text in texts]
    return build_index([("bench", problem) for problem in problems], Contamination.model_validate(settings))


def found(index: BenchmarkIndex, text: str | Problem) -> list[tuple[str, str]]:
    problem = text if isinstance(text, Problem) else Problem(text, answer="2")
    return [(hit.benchmark, hit.method) for hit in find_contamination(index, [problem])[0]]


@pytest.mark.parametrize(
    ("text", "method"),
    [
        (WALK, "exact"),
        (WALK.upper().replace(" ", "\n"), "exact"),
        (f"Problem 12. {WALK}", "exact"),
        (f"**Question 3:** {SHORT}", "exact"),
        ("(12) What is 20 + 77?", "exact"),
        (WALK.replace("$", ""), "exact"),
        (WALK.replace("a", "\u0430"), "exact"),  # Cyrillic
        (WALK.replace("i", "i\u200b"), "exact"),  # zero width
        (r"What is the smallest prime that divides \(7^7+1\) ?", "exact"),
        (f"Please solve this carefully and think. {WALK} Put the final answer in a box.", "ngram"),
        (WALK.split(". ")[1], "ngram"),
        (WALK.replace("goes for", "takes").replace("constant", "steady").replace("spent", "lost"), "ngram"),
        (" ".join(word + (" now" if place % 7 == 6 else "") for place, word in enumerate(WALK.split())), "fuzzy"),
        (WALK.replace("9", "11").replace("4", "5"), "renumbered"),
        (CODE, "exact"),
    ],
)
def test_a_question_is_found_in_another_dress(text: str, method: str) -> None:
    assert found(index_of(*QUESTIONS), text) == [("bench", method)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "prime",
        "Every morning Aya goes for a swim.",
        "What is the smallest prime that divides $7^{7} + 2$?",
        "What is the largest prime that divides $7^{7} + 1$?",
        "今有雉兔同笼，上有三十五头，下有九十四足，问雉兔各几何？",
    ],
)
def test_another_question_is_clean(text: str) -> None:
    assert found(index_of(*QUESTIONS), text) == []


def test_brackets_count_where_there_is_little_else() -> None:
    index = index_of("Compute $(2 + 3) * 4$.")
    assert found(index, r"Compute \((2+3) \cdot 4\)") == [("bench", "exact")]
    assert found(index, "Compute $2 + (3 * 4)$.") == []


def test_turns_of_phrase_that_problems_share_are_clean() -> None:
    index = index_of(f"{BOILERPLATE}the sum of the reciprocals of the pairwise products of a, b and c, each cubed.")
    assert found(index, f"{BOILERPLATE}a^2 + 3b^2 + 5c^2 over all triangles whose sides have these lengths.") == []


def test_problems_of_a_template_that_the_benchmark_uses_are_clean() -> None:
    template = (
        "Chickens and rabbits live in a wooden cage behind the barn: {} heads and {} legs. How many rabbits are there?"
    )
    index = index_of(*(template.format(n, 2 * n + 10) for n in range(20, 30)))
    assert found(index, template.format(77, 190)) == []
    assert found(index, template.format(25, 60)) == [("bench", "exact")]
    assert found(index_of(template.format(25, 60)), template.format(77, 190)) == [("bench", "renumbered")]
    assert found(index_of(template.format(25, 60), other_numbers=False), template.format(77, 190)) == []


def test_quickstart_trains_on_none_of_its_held_out_problems() -> None:
    heldout, train = (load_problems(f"prompts/quickstart/{name}.jsonl") for name in ("heldout", "train"))
    index = build_index([("quickstart", problem) for problem in heldout], Contamination())
    assert not any(find_contamination(index, train))
    assert all(hits[0].method == "exact" for hits in find_contamination(index, heldout))


def test_choices_count_where_the_question_alone_says_nothing() -> None:
    ask = "Which of these is true?"
    choices = ["the photon is its own antiparticle", "the muon is stable", "gluons carry electric charge"]
    index = index_of(Problem(ask, "choice", "A", choices=choices))
    assert found(index, Problem(ask, "choice", "A", choices=choices[::-1])) == [("bench", "exact")]
    assert found(index, Problem(ask, "choice", "A", choices=["whales are fish", "whales are mammals"])) == []
    assert found(index, ask) == []


def test_a_code_question_is_found_without_its_tests() -> None:
    text = "Write a function to find the sum of the squared gaps between neighbouring glyphs."
    tests = {"type": "asserts", "code": "assert f(1) == 2"}
    index = index_of(Problem(f"{text}\n\nYour code should pass these tests:\n\nassert f(1) == 2", "code", tests=tests))
    assert found(index, text) == [("bench", "exact")]
    assert found(index, f'"""\n{text}\nassert f(3) == 4\n"""') != []


def test_each_benchmark_with_a_question_is_named_and_the_span_is_in_both() -> None:
    index = build_index([("first", Problem(WALK, answer="1")), ("second", Problem(WALK, answer="3"))], Contamination())
    (hits,) = find_contamination(index, [Problem(f"Listen: {WALK}", answer="1")])
    assert [hit.benchmark for hit in hits] == ["first", "second"]
    assert hits[0].span.startswith("every morning aya goes for a 9 kilometer long walk")
    assert len(hits[0].span) <= 200


def test_the_length_of_a_run_is_the_recipes() -> None:
    text = f"{' '.join(WALK.split()[:7])} run which nobody in the whole village has ever managed to explain to any tourist."
    short = WALK.split(". ")[0]
    assert found(index_of(short), text) == []
    assert found(index_of(short, ngram=6, share=0.3), text) == [("bench", "ngram")]


@settings(deadline=None)
@given(st.lists(st.sampled_from([WALK, SHORT, CODE, "What is 1 + 1?", ""]), min_size=1, max_size=8), st.integers(1, 4))
def test_the_result_depends_on_the_problem_alone(texts: list[str], size: int) -> None:
    index = index_of(*QUESTIONS)
    problems = [Problem(text, answer=str(place)) for place, text in enumerate(texts)]
    parts: list[list[Hit]] = []
    for start in range(0, len(problems), size):
        parts += find_contamination(index, problems[start : start + size])
    assert parts == find_contamination(index, problems)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=5),
    st.integers(1, 4),
)
def test_the_table_finds_what_a_search_of_all_pairs_finds(
    texts: list[list[int]], queries: list[list[int]], length: int
) -> None:
    words, ends = joined(texts)
    ids, stops = joined(queries)
    starts = starts_of(stops, length)
    pairs = gram_table(words, starts_of(ends, length), length).find(
        gram_hashes(mixed(ids), length)[starts], ids, starts
    )
    flat, asked = [word for text in texts for word in text], [word for text in queries for word in text]
    expected = {
        (i, j)
        for i in runs(queries, length)
        for j in runs(texts, length)
        if asked[i : i + length] == flat[j : j + length]
    }
    assert set(zip(*(each.tolist() for each in pairs), strict=True)) == expected


def runs(texts: list[list[int]], length: int) -> list[int]:
    found, begin = [], 0
    for text in texts:
        found += range(begin, begin + len(text) - length + 1)
        begin += len(text)
    return found


def test_two_runs_with_one_hash_are_not_taken_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1distill.filter.gram_table.mixed", lambda numbers: numbers * 0)
    monkeypatch.setattr("r1distill.filter.contamination.mixed", lambda numbers: numbers * 0)
    index = index_of(*QUESTIONS, WALK.replace("walk", "ride"))
    assert found(index, WALK) == [("bench", "exact")]
    assert (
        found(index, "How tall is a giraffe that eats four kilograms of leaves on each of nine sunny mornings?") == []
    )


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmarks' files in ../shared/data")
def test_planted_questions_are_found_and_gsm8k_is_clean() -> None:
    names = ["aime24", "aime25", "amc23", "math500", "humaneval", "mbpp"]
    settings = Contamination(benchmarks=names, data_dir=str(DATA))
    questions = list(build_registry(settings, "2026-01-01").questions())
    index = build_index(questions, settings)
    draw = random.Random(5)
    for kind, change in planted.KINDS.items():
        pool = [problem for _, problem in questions if len(problem.problem.split()) >= 15]
        texts = [change(problem.problem, draw) for problem in draw.sample(pool, 40)]
        hits = find_contamination(index, [Problem(text, answer="1") for text in texts])
        assert sum(map(bool, hits)) >= (37 if kind in ("reworded", "shortened") else 40), kind
    clean = load_problems(str(DATA / "gsm8k" / "train.jsonl"), limit=1000)
    assert not any(find_contamination(index, clean))


# ------------------------------------------------------------ the registry


def test_a_benchmark_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "aime24.jsonl", [{"problem": WALK, "answer": "204"}, {"problem": SHORT, "answer": "2"}])
    own = jsonl(tmp_path / "own.jsonl", [{"problem": CODE, "answer": "3"}])
    settings = Contamination(benchmarks=["aime24", "aime25", "quickstart"], data_dir=str(tmp_path), extra=[str(own)])
    registry = build_registry(settings, "2026-01-01")
    assert [benchmark.name for benchmark in registry.benchmarks] == ["aime24", "quickstart", str(own)]
    assert registry.benchmarks[0].questions == 2
    assert registry.benchmarks[0].sha256 == data_sha256(load_problems(str(file)))
    assert list(registry.not_checked) == ["aime25"]
    assert "aime25" in (registry.warning() or "")
    assert registry.as_table()["built"] == "2026-01-01"
    assert {name for name, _ in registry.questions()} == {"aime24", "quickstart", str(own)}


def test_the_report_counts_each_problem_once_and_each_benchmark_that_asks_it(tmp_path: Path) -> None:
    for name in ("aime24", "aime25"):
        jsonl(tmp_path / f"{name}.jsonl", [{"problem": WALK, "answer": "204"}, {"problem": SHORT, "answer": "2"}])
    settings = Contamination(benchmarks=["aime24", "aime25", "amc23"], data_dir=str(tmp_path))
    registry = build_registry(settings, "2026-01-01")
    index = build_index(registry.questions(), settings)
    problems = [Problem(text, answer="1") for text in (WALK, WALK.replace("9", "11"), CODE, f"{WALK} Show your work.")]
    report = contamination_report(registry, settings, find_contamination(index, problems))
    assert (report["problems"], report["contaminated"]) == (4, 3)
    assert report["by_method"] == {"exact": 1, "ngram": 1, "fuzzy": 0, "renumbered": 1}
    assert [benchmark["problems"] for benchmark in report["benchmarks"]] == [report["by_method"]] * 2
    assert [benchmark["questions_found"] for benchmark in report["benchmarks"]] == [1, 1]
    assert list(report["not_checked"]) == ["amc23"]


def test_no_questions_and_no_problems() -> None:
    assert find_contamination(build_index([], Contamination()), [Problem(WALK, answer="1")]) == [[]]
    assert find_contamination(index_of(*QUESTIONS), []) == []
    assert build_index([("bench", Problem("???", answer="1"))], Contamination()).without_words[0][0] == "bench"


def test_all_benchmarks_are_in_the_registry_or_named_as_not_checked() -> None:
    registry = build_registry(Contamination(), "2026-01-01")
    names = [benchmark.name for benchmark in registry.benchmarks]
    assert "quickstart" in names
    assert {"aime24", "gpqa_diamond", "math500"} <= {*names, *registry.not_checked}


@pytest.mark.parametrize(
    "settings",
    [{"benchmarks": ["aime99"]}, {"extra": ["no/such.jsonl"]}, {"benchmarks": ["aime24"], "data": {"aime24": "no/such.jsonl"}},
     {"benchmarks": ["aime24"], "data": {"aime25": "x"}}],
)  # fmt: skip
def test_what_the_user_named_must_be_readable(settings: dict[str, object]) -> None:
    with pytest.raises(UserError):
        build_registry(Contamination.model_validate(settings), "2026-01-01")
