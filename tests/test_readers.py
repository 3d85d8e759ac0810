"""Others' generations: what is read of each tool's files, and what is said where our verdict is another one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_run import assert_one_error_line, jsonl, r1distill

from r1distill.errors import UserError
from r1distill.evaluate.readers import READERS, Generation, evalplus, files, lighteval, livecodebench, lm_eval
from r1distill.evaluate.readers.files import as_reply
from r1distill.evaluate.readers.known import KnownProblems, load_known
from r1distill.evaluate.regrade import as_verdicts, described, disagreements_of, regrade_file
from r1distill.verify.programs import extract_program, is_python

DATA = Path(__file__).parent / "data" / "generations"
GSM8K = DATA / "samples_gsm8k.jsonl"
PROGRAMS = DATA / "evalplus.jsonl"
RESULTS = DATA / "evalplus_eval_results.json"
LIVE = DATA / "Scenario.codegeneration_2_0.2_eval_all.json"


def known(name: str) -> KnownProblems:
    return load_known(str(DATA / name))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---------------------------------------------------------------- lm-eval


def lm_eval_line(**changes: Any) -> dict[str, Any]:
    return {**lines_of(GSM8K)[0], **changes}


def read_line(folder: Path, **changes: Any) -> list[Generation]:
    return list(lm_eval.read(jsonl(folder / "samples.jsonl", [lm_eval_line(**changes)]), None, None))


def test_one_filter_of_lm_eval_is_read_and_the_gold_is_that_of_the_row() -> None:
    first = list(lm_eval.read(GSM8K, None, None))
    assert [(item.question, item.right, item.metric) for item in first] == [
        ("0", False, "exact_match,strict-match"),
        ("1", False, "exact_match,strict-match"),
    ]
    other = list(lm_eval.read(GSM8K, None, "exact_match,flexible-extract"))
    assert [item.right for item in other] == [True, False]
    assert [item.problem.answer for item in other if item.problem] == ["7", "5"]
    assert other[0].response == "3 + 4 = 7. The answer is 7."


@pytest.mark.parametrize("answer", ["B", "(B)", 1, "pears"])
def test_the_answer_to_a_choice_is_its_letter_however_the_row_says_it(tmp_path: Path, answer: Any) -> None:
    doc = {"Question": "Which?", "choices": ["apples", "pears", "plums"], "answer": answer}
    (item,) = read_line(tmp_path, doc=doc)
    assert item.problem is not None
    assert (item.problem.kind, item.problem.answer) == ("choice", "B")


def test_the_program_that_lm_eval_ran_is_judged_and_not_the_completion(tmp_path: Path) -> None:
    prompt = 'def one():\n    """One."""\n'
    doc = {
        "task_id": "HumanEval/0",
        "prompt": prompt,
        "entry_point": "one",
        "test": "def check(f):\n    assert f() == 1\n",
    }
    ran = [[f"{prompt}    return 1\n"]]
    scores = {"metrics": ["pass@1"], "pass@1": 1.0, "filter": "create_test"}
    (item,) = read_line(tmp_path, doc=doc, resps=[["    return 1\n"]], filtered_resps=ran, **scores)
    assert extract_program(item.response, "one") == ran[0][0]
    source = jsonl(tmp_path / "samples.jsonl", [lm_eval_line(doc=doc, resps=[["x"]], filtered_resps=ran, **scores)])
    result = regrade_file(source, "lm-eval", tmp_path / "out.jsonl", workers=1, timeout_s=5)
    assert result.agreement == {(True, True): 1}


@pytest.mark.parametrize(
    ("text", "is_program"),
    [
        ("    return 1\n\ndef other():\n    pass\n", True),
        ("import re\n", True),
        ("<think>\nno", False),
        ("So:\n```\nx\n```", False),
    ],
)
def test_a_completion_is_taken_as_a_program_and_prose_is_not(text: str, is_program: bool) -> None:
    assert (lm_eval.with_fence(text) != text) == is_program


@pytest.mark.parametrize(
    ("score", "verdicts", "kept"),
    [(1.0, [True, True], 1.0), (0, [False, False], 0.0), (0.5, [None, None], 0.5), (float("nan"), [None, None], None)],
)
def test_of_several_responses_each_is_known_where_all_are_alike(
    tmp_path: Path, score: float, verdicts: list[bool | None], kept: float | None
) -> None:
    items = read_line(tmp_path, resps=[["a", "b"]], exact_match=score)
    assert [item.right for item in items] == verdicts
    assert [item.sample for item in items] == [0, 1]
    assert items[0].score == kept


def test_the_score_of_the_best_response_says_nothing_of_each(tmp_path: Path) -> None:
    items = read_line(tmp_path, resps=[["a", "b"]], metrics=["pass@2"], **{"pass@2": 1.0})
    assert [(item.right, item.score) for item in items] == [(None, None), (None, None)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"samples\.jsonl:1: not valid JSON"),
        ("[" * 100_000, r"samples\.jsonl:1: not valid JSON"),
        ("[1]", r"samples\.jsonl:1: a dict is needed, this is a list"),
        (lm_eval_line(doc="text"), r"samples\.jsonl:1: doc: a dict is needed, this is a str"),
        (lm_eval_line(resps=[]), "resps is empty"),
        (lm_eval_line(resps=[[3]]), "a str is needed, this is a int"),
        (lm_eval_line(resps=[[["-1.5", "False"]], [["-2.5", "False"]]]), "log-likelihoods"),
        (lm_eval_line(metrics=[]), "no score in it"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(line if isinstance(line, str) else json.dumps(line))
    with pytest.raises(UserError, match=message):
        list(lm_eval.read(path, None, None))


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b"\n" + b"x" * (3 << 20))
    with pytest.raises(UserError, match=r"samples\.jsonl:2: over 1 MB in one line"):
        list(lm_eval.read(path, None, None))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["doc", "target", "resps", "filtered_resps", "filter", "metrics", "exact_match", "arguments"]
DOC_NAMES = ["question", "answer", "choices", "options", "tests", "test_list", "kind", "meta", "input_output", "level"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, max_size=3),
    doc=st.dictionaries(st.sampled_from(DOC_NAMES), JSON_VALUES, max_size=4),
)
def test_whatever_a_line_holds_it_is_read_or_named(tmp_path: Path, row: dict[str, Any], doc: dict[str, Any]) -> None:
    changes = {"doc": {"question": "Why?", **doc}, **row}
    try:
        items = read_line(tmp_path, **changes)
    except UserError as error:
        assert "samples.jsonl:1" in str(error)  # noqa: PT017 - both ends are right
    else:
        assert all(isinstance(item.response, str) for item in items)


# ---------------------------------------------------------------- lighteval


def nested(query: str, responses: list[str], gold: str, scores: dict[str, float]) -> dict[str, Any]:
    """A row as lighteval writes it since June 2025."""
    doc = {"query": query, "choices": [gold], "gold_index": 0, "specific": None, "id": "", "num_samples": 1}
    reply = {"text": responses, "input_tokens": [1, 2], "output_tokens": [[3]] * len(responses), "logprobs": []}
    return {"doc": doc, "metric": scores, "model_response": reply}


def flat(query: str, responses: list[str], gold: str, scores: dict[str, float]) -> dict[str, Any]:
    """The same as it was before."""
    return {
        "choices": [], "cont_tokens": [[3]], "example": query, "full_prompt": f"<s>{query}", "gold": [gold],
        "gold_index": [], "instruction": "", "metrics": scores, "predictions": responses, "specifics": None,
    }  # fmt: skip


def read_rows(folder: Path, rows: list[dict[str, Any]], metric: str | None = None) -> list[Generation]:
    path = folder / "details.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return list(lighteval.read(path, None, metric))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    responses=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3),
    share=st.sampled_from([0.0, 0.25, 1.0]),
)
def test_the_three_layouts_of_lighteval_say_the_same(
    tmp_path: Path, query: str, responses: list[str], share: float
) -> None:
    scores = {"math_pass@1:3_samples": share}
    given_row = flat(query, responses, "#### 42", scores)
    expected = read_rows(tmp_path, [nested(query, responses, "#### 42", scores)])
    assert read_rows(tmp_path, [given_row]) == expected
    assert read_rows(tmp_path, [{name: str(value) for name, value in given_row.items()}]) == expected
    assert [item.response for item in expected] == responses
    assert [(item.problem and item.problem.answer, item.score) for item in expected] == [("42", share)] * len(responses)


@pytest.mark.parametrize(
    ("scores", "metric", "taken", "score"),
    [
        ({"maj@n:n=2": 1.0, "pass@k:k=1&n=2": 0.5}, None, "pass@k:k=1&n=2", 0.5),
        ({"gpqa_pass@k:k=1": 0.5}, None, "gpqa_pass@k:k=1", 0.5),
        ({"codegen_pass@1:16": 0.5}, None, "codegen_pass@1:16", 0.5),
        ({"avg@n:n=2": 0.5}, None, "avg@n:n=2", 0.5),
        ({"extractive_match": 1.0}, None, "extractive_match", 1.0),
        ({"maj@n:n=2": 1.0, "pass@k:k=1&n=2": 0.5}, "maj@n:n=2", "maj@n:n=2", None),
        ({"pass@k:k=16&n=16": 1.0}, None, "pass@k:k=16&n=16", None),
    ],
)
def test_the_share_of_right_responses_is_the_score(
    tmp_path: Path, scores: dict[str, float], metric: str | None, taken: str, score: float | None
) -> None:
    first, _ = read_rows(tmp_path, [nested("q", ["a", "b"], "1", scores)], metric)
    assert (first.metric, first.score) == (taken, score)


def test_choices_and_tests_of_lighteval_become_problems(tmp_path: Path) -> None:
    row = nested("Which?\nA) x\nB) y", ["Answer: B"], "", {"gpqa_pass@k:k=1": 1.0})
    row["doc"] |= {"choices": ["A", "B"], "gold_index": 1}
    (choice,) = read_rows(tmp_path, [row])
    assert choice.problem is not None
    assert (choice.problem.kind, choice.problem.answer, choice.problem.choices) == ("choice", "B", ["A", "B"])
    row = nested("Double it.", ["```python\nprint(2 * int(input()))\n```"], "", {"codegen_pass@1:16": 1.0})
    row["doc"]["specific"] = {"inputs": ["1\n"], "outputs": ["2\n"], "fn_name": None}
    (code,) = read_rows(tmp_path, [row])
    assert code.problem is not None
    assert code.problem.tests == {"type": "stdio", "inputs": ["1\n"], "outputs": ["2\n"], "tolerance": 0.0}


def test_several_right_answers_need_the_problems(tmp_path: Path) -> None:
    row = nested("q", ["\\boxed{2}"], "", {"extractive_match": 1.0})
    row["doc"] |= {"choices": ["1", "2"], "gold_index": [0, 1]}
    row["doc"]["specific"] = {"note": "x"}
    (item,) = read_rows(tmp_path, [row])
    assert (item.problem, item.missing) == (None, "2 right answers instead of one; give --problems")


@pytest.mark.parametrize(
    "predictions", ["__import__('pathlib').Path('{there}').touch()", "[" * 5000, "['a'", "open('{there}', 'w')"]
)
def test_a_column_of_text_is_never_executed(tmp_path: Path, predictions: str) -> None:
    there = tmp_path / "there"
    row = {name: str(value) for name, value in flat("q", ["a"], "1", {"em": 1.0}).items()}
    row["predictions"] = predictions.replace("{there}", str(there))
    with pytest.raises(UserError, match=r"details\.parquet:1: predictions: not the text of a Python value"):
        read_rows(tmp_path, [row])
    assert not there.exists()


def test_a_file_that_is_no_parquet_and_one_of_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match=r"x\.parquet: not a readable Parquet file"):
        list(lighteval.read(tmp_path / "x.parquet", None, None))
    with pytest.raises(UserError, match="its columns are a, b; lighteval's details are needed"):
        read_rows(tmp_path, [{"a": 1, "b": 2}])


# ---------------------------------------------------------------- EvalPlus


def evalplus_folder(folder: Path) -> Path:
    """The programs as EvalPlus's folder of them, with the verdicts in it."""
    counts: dict[str, int] = {}
    for row in lines_of(PROGRAMS):
        place = folder / row["task_id"].replace("/", "_")
        place.mkdir(parents=True, exist_ok=True)
        number = counts[row["task_id"]] = counts.get(row["task_id"], -1) + 1
        (place / f"{number}.py").write_text(row["solution"])
    shutil.copy(RESULTS, folder / "eval_results.json")
    return folder


def test_samples_results_and_folders_of_evalplus_say_the_same(tmp_path: Path) -> None:
    problems = known("HumanEvalPlus.jsonl")

    def read(path: Path, metric: str | None = None) -> list[Any]:
        items = evalplus.read(path, problems, metric)
        return [(item.question, item.sample, item.response, item.right, item.score) for item in items]

    found = read(RESULTS)
    assert [(question, right, score) for question, _, _, right, score in found] == [
        ("HumanEval/900", True, 0.5), ("HumanEval/900", False, 0.5),
        ("HumanEval/901", False, 0.0), ("HumanEval/901", False, 0.0),
    ]  # fmt: skip
    assert read(PROGRAMS) == found
    assert read(evalplus_folder(tmp_path / "programs")) == found
    assert [right for *_, right, _ in read(RESULTS, "base")] == [True, False, True, True]


def test_the_results_of_old_evalplus_are_joined_with_its_programs(tmp_path: Path) -> None:
    old = {
        task: {
            "nfiles": len(entries),
            "base": [["success" if entry["base_status"] == "pass" else "failed", []] for entry in entries],
            "plus": [["success" if entry["plus_status"] == "pass" else "failed", []] for entry in entries],
        }
        for task, entries in json.loads(RESULTS.read_text())["eval"].items()
    }
    folder = evalplus_folder(tmp_path / "programs")
    (folder / "eval_results.json").write_text(json.dumps({"eval": old}))
    problems = known("HumanEvalPlus.jsonl")
    assert [item.right for item in evalplus.read(folder, problems, None)] == [True, False, False, False]


def test_programs_without_verdicts_are_unknown_and_other_programs_verdicts_are_refused(tmp_path: Path) -> None:
    problems = known("HumanEvalPlus.jsonl")
    samples = jsonl(tmp_path / "samples.jsonl", lines_of(PROGRAMS)[:3])
    assert [item.right for item in evalplus.read(samples, problems, None)] == [None] * 3
    shutil.copy(RESULTS, tmp_path / "samples_eval_results.json")
    with pytest.raises(UserError, match="not of the same programs as the samples beside it"):
        list(evalplus.read(samples, problems, None))


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "a dict is needed, this is a list"),
        ({"eval": []}, "eval: a dict is needed"),
        ({"eval": {"HumanEval/900": [{"solution": 1}]}}, "HumanEval/900: solution: a str is needed"),
        ({"eval": {"HumanEval/900": [{"base_status": "passed"}]}}, "unknown status 'passed'; known: pass"),
        ({"eval": {"HumanEval/900": {"base": [["success"]], "plus": []}, "x": {"base": [1]}}}, "x: base and plus"),
    ],
)
def test_malformed_results_of_evalplus_are_named(tmp_path: Path, results: Any, message: str) -> None:
    path = tmp_path / "eval_results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match=message):
        list(evalplus.read(path, known("HumanEvalPlus.jsonl"), None))


def test_evalplus_and_livecodebench_need_the_tests() -> None:
    for reader, path in ((evalplus.read, RESULTS), (livecodebench.read, LIVE)):
        with pytest.raises(UserError, match="hold no tests: give --problems"):
            list(reader(path, None, None))


# ---------------------------------------------------------------- LiveCodeBench


def test_the_replies_of_livecodebench_have_its_verdicts() -> None:
    items = list(livecodebench.read(LIVE, known("livecodebench_problems.jsonl"), None))
    assert [(item.question, item.right, item.score) for item in items] == [
        ("abc900_a", True, 0.5), ("abc900_a", False, 0.5), ("abc999_z", True, 1.0),
    ]  # fmt: skip
    assert items[2].problem is None
    assert items[0].response.startswith("So:")


def test_programs_without_replies_are_judged_too(tmp_path: Path) -> None:
    path = tmp_path / "output.json"
    path.write_text(json.dumps([{"question_id": "abc900_a", "code_list": ["print(2 * int(input()))"]}]))
    (item,) = livecodebench.read(path, known("livecodebench_problems.jsonl"), None)
    assert (item.right, extract_program(item.response)) == (None, "print(2 * int(input()))\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question_id": 3}, "question_id: a str is needed"),
        ({"question_id": "q"}, "code_list: a list is needed"),
        ({"question_id": "q", "code_list": ["x"], "graded_list": [True, False]}, "not one true or false for each"),
        ({"question_id": "q", "code_list": ["x"], "graded_list": [[1, -2]]}, "not one true or false for each"),
    ],
)
def test_malformed_outputs_of_livecodebench_are_named(tmp_path: Path, row: Any, message: str) -> None:
    path = tmp_path / "output.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(UserError, match=rf"output\.json\[0\]: .*{message}"):
        list(livecodebench.read(path, known("livecodebench_problems.jsonl"), None))


# ---------------------------------------------------------------- what they share


def test_a_known_problem_is_found_by_id_by_text_and_as_the_last_question_of_a_prompt(tmp_path: Path) -> None:
    rows = [{"unique_id": f"n{n}", "problem": f"What is {n}  times two?", "answer": str(2 * n)} for n in (3, 4, 5)]
    found = load_known(str(jsonl(tmp_path / "problems.jsonl", rows)))

    def answer(question: str | None, text: str | None) -> str | None:
        problem = found.find(question, text)
        return problem and problem.answer

    assert answer("n4", None) == "8"
    assert answer(None, "What is 5 times\n two?") == "10"
    assert answer(None, "Q: What is 5 times two?\nA: 10\nQ: What is 3 times two?\nA: ") == "6"
    assert answer("n6", "What is 6 times two?") is None


LINES = st.sampled_from(["x = 1", "", "s = '```'", '"""', "```", "````python", "~~~", "def f(): pass", "    y", "'''"])


@given(st.lists(LINES, max_size=8))
def test_a_program_survives_the_fence_that_is_put_around_it(lines: list[str]) -> None:
    program = "\n".join(lines).strip("\n")
    if is_python(program) and program.strip():
        assert (extract_program(as_reply(program)) or "").strip("\n") == program


def test_no_reader_takes_a_missing_file(tmp_path: Path) -> None:
    for name, reader in READERS.items():
        with pytest.raises(UserError, match="none"):
            list(reader(tmp_path / "none", known("HumanEvalPlus.jsonl"), None))
        assert name


# ---------------------------------------------------------------- judged again


def test_the_programs_of_evalplus_get_its_verdicts(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    problems = str(DATA / "HumanEvalPlus.jsonl")
    plus = regrade_file(RESULTS, "evalplus", out, problems=problems, workers=1, timeout_s=5)
    assert plus.agreement == {(True, True): 1, (False, False): 3}
    base = regrade_file(RESULTS, "evalplus", out, problems=problems, metric="base", workers=1, timeout_s=5)
    assert base.agreement == {(True, True): 3, (False, False): 1}
    assert lines_of(disagreements_of(out)) == []


def test_every_disagreement_is_written_with_all_that_is_needed_to_settle_it(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = regrade_file(GSM8K, "lm-eval", out, workers=1, timeout_s=5)
    assert result.agreement == {(True, False): 1, (False, False): 1}
    (row,) = lines_of(disagreements_of(out))
    assert row["outcome"] == "correct"
    assert row["published"] == "wrong"
    assert row["question"] == "Ann has 3 apples and buys 4. How many has she?"
    assert (row["answer"], row["extracted"]) == ("7", "7")
    assert row["response"] == "3 + 4 = 7. The answer is 7."
    assert row["place"].endswith("samples_gsm8k.jsonl:1")
    text = described(result, out)
    assert "published   0.00%" in text
    assert "r1distill  50.00%" in text
    assert f"1 × {row['kind']}" in text
    assert row["kind"].startswith("right for us")


def test_another_share_of_right_responses_is_a_disagreement(tmp_path: Path) -> None:
    line = lm_eval_line(resps=[["#### 7", "#### 8", "#### 9", "#### 7"]], exact_match=0.25)
    source = jsonl(tmp_path / "samples.jsonl", [line])
    result = regrade_file(source, "lm-eval", tmp_path / "out.jsonl", workers=1, timeout_s=5)
    assert result.differing_shares == ["0"]
    (row,) = lines_of(tmp_path / "out.disagreements.jsonl")
    assert (row["ours"], row["published"]) == (0.5, 0.25)
    assert "1 questions with another share" in described(result, tmp_path / "out.jsonl")


def test_text_that_is_no_unicode_is_judged_and_written(tmp_path: Path) -> None:
    source = tmp_path / "samples.jsonl"
    source.write_text(json.dumps(lm_eval_line(resps=[["\ud800 #### 7"]])))
    regrade_file(source, "lm-eval", tmp_path / "out.jsonl", workers=1, timeout_s=5)
    (row,) = lines_of(tmp_path / "out.disagreements.jsonl")
    assert row["response"] == "? #### 7"


@given(responses=st.integers(1, 64), data=st.data())
def test_a_published_share_is_so_many_right_responses(responses: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, responses))
    assert sum(as_verdicts(right / responses, responses)) == right


def test_questions_without_tests_are_counted_and_a_file_of_nothing_else_is_refused(tmp_path: Path) -> None:
    problems = str(DATA / "livecodebench_problems.jsonl")
    out = tmp_path / "out.jsonl"
    result = regrade_file(LIVE, "livecodebench", out, problems=problems, workers=1, timeout_s=5)
    assert result.agreement == {(True, True): 1, (False, False): 1}
    assert sum(result.left_out.values()) == 1
    assert f"left out: 1 responses, no problem of {problems} has its id or text" in described(result, out)
    with pytest.raises(UserError, match="nothing in it can be judged: no problem of"):
        regrade_file(RESULTS, "evalplus", tmp_path / "new.jsonl", problems=problems, workers=1, timeout_s=5)
    assert not (tmp_path / "new.jsonl").exists()


def test_the_command_prints_both_scores_and_ends_well(tmp_path: Path) -> None:
    result = r1distill("verify", "--file", GSM8K, "--from", "lm-eval", "--out", tmp_path / "out.jsonl")
    assert result.returncode == 0, result.stderr
    assert "exact_match,strict-match: 2 responses to 2 questions" in result.stdout
    assert "disagreements: 1 in" in result.stdout


def test_the_command_says_what_it_takes(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert_one_error_line(
        r1distill("verify", "--file", GSM8K, "--from", "opencompass", "--out", out), "opencompass", "lm-eval, lighteval"
    )
    assert_one_error_line(r1distill("verify", "--file", GSM8K, "--metric", "x", "--out", out), "--metric", "--from")
    assert_one_error_line(
        r1distill("verify", "--file", GSM8K, "--from", "lm-eval", "--metric", "acc", "--out", out),
        "samples_gsm8k.jsonl:1", "exact_match,strict-match",
    )  # fmt: skip
