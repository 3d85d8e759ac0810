"""The dataset as training reads it: every example looked at, none cut as if it were whole, and all of it counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from tokenizers import normalizers

from r1distill.errors import UserError
from r1distill.generate.distributions import sparse_rows
from r1distill.prompting import encode
from r1distill.records import Trace
from r1distill.train.cross_data import GROUPS, TEACHER_IDS, Aligner
from r1distill.train.data import Data, load_data
from r1distill.train.render import IGNORED, Example, check_example, cut, render_example
from r1distill.train.teacher_cache import NO_ROW, CacheWriter, Teacher

PREFILL = "<think>\n"
SHORT = "<think>\n1 + 1 = 2\n</think>\n\n\\boxed{2}"
LONG = f"<think>\n{'1 + 1 = 2, ' * 20}\n</think>\n\n\\boxed{{2}}"


def row(number: int, completion: str, prompt: str = "1 + 1?") -> dict[str, Any]:
    return {"problem_id": f"p{number}", "sample": 0, "prompt": prompt, "completion": completion}


def load(folder: Path, train: list[dict[str, Any]], tokenizer: Any = None, **changes: Any) -> Data:
    for split, rows in {"train": train, "validation": changes.pop("validation", [])}.items():
        if rows:
            folder.mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    options = {"prefill": PREFILL, "max_length": 200, "overlong": "drop", "processes": None, **changes}
    return load_data(folder, folder.parent / "work", tokenizer or tiny_model.make_tokenizer(), **options)


@pytest.fixture
def length_of() -> Any:
    tokenizer = tiny_model.make_tokenizer()
    return lambda completion: len(render_example(tokenizer, "1 + 1?", completion, PREFILL).labels)


def test_an_overlong_example_is_dropped_and_counted(tmp_path: Path, length_of: Any) -> None:
    data = load(tmp_path / "d", [row(0, SHORT), row(1, LONG)])
    assert (data.overlong_dropped, data.overlong_truncated, data.lengths) == (1, 0, [length_of(SHORT)])


def test_an_overlong_example_stops_the_training_where_that_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 examples are longer than train.max_length = 200; raise it, or set"):
        load(tmp_path / "d", [row(0, SHORT), row(1, LONG)], overlong="error")


def test_a_truncated_example_teaches_its_beginning_and_never_an_end(tmp_path: Path) -> None:
    tokenizer = tiny_model.make_tokenizer()
    data = load(tmp_path / "d", [row(0, SHORT), row(1, LONG)], overlong="truncate")
    whole = render_example(tokenizer, "1 + 1?", LONG, PREFILL)
    assert data.train["input_ids"][1] == whole.input_ids[:200]
    assert data.train["labels"][1] == whole.labels[:200]
    assert tokenizer.eos_token_id not in data.train["labels"][1]
    assert data.train["labels"][0][-1] == tokenizer.eos_token_id
    assert (data.overlong_dropped, data.overlong_truncated, data.cut_in_thinking) == (0, 1, 1)
    assert data.tokens == sum(map(len, data.train["input_ids"]))
    assert data.supervised_tokens == sum(label != IGNORED for labels in data.train["labels"] for label in labels)


def test_a_cut_behind_the_thinking_is_told_from_one_within_it(tmp_path: Path, length_of: Any) -> None:
    data = load(tmp_path / "d", [row(0, SHORT), row(1, SHORT + " and so on" * 9)], overlong="truncate", max_length=100)
    assert (data.overlong_truncated, data.cut_in_thinking) == (1, 0)


def test_an_example_that_would_be_cut_before_its_reply_is_dropped(tmp_path: Path) -> None:
    data = load(tmp_path / "d", [row(0, SHORT), row(1, SHORT, "1 + " * 80 + "1?")], overlong="truncate")
    assert (data.overlong_dropped, data.overlong_truncated, data.train.num_rows) == (1, 0, 1)


def test_the_teachers_rows_are_cut_with_the_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_model.make_tokenizer()
    ids = [*encode(tokenizer, LONG.removeprefix(PREFILL)), tokenizer.eos_token_id]
    teacher = Teacher("generation", "teacher", None, "0" * 64, "raw_logprobs", 4)
    top = np.tile(np.arange(4), (len(ids), 1))
    logprobs = np.full(top.shape, np.log(0.25))
    with CacheWriter(tmp_path / "cache", teacher) as cache:
        trace = Trace("p1", 0, "teacher", "sha", 0, LONG, None, "", "stop", token_ids=ids, n_tokens=len(ids))
        cache.add(trace, sparse_rows(top, logprobs, top[:, 0], logprobs[:, 0]))
    options = {"overlong": "truncate", "teacher_caches": [tmp_path / "cache"]}
    data = load(tmp_path / "d", [row(0, SHORT), row(1, LONG)], **options)
    assert data.with_rows == 1
    assert list(map(len, data.train["teacher_row"])) == data.lengths
    assert set(data.train["teacher_row"][0]) == {NO_ROW}
    start = data.lengths[1] - data.train["teacher_row"][1][-1] - 1
    assert data.train["teacher_row"][1] == [NO_ROW] * start + list(range(200 - start))
    assert data.train["input_ids"][1][start:] == ids[: 200 - start]


def test_what_another_teacher_reads_is_cut_with_the_example(tmp_path: Path) -> None:
    tokenizer = tiny_model.make_tokenizer()
    aligner = Aligner.of(tokenizer, tokenizer)
    data = load(tmp_path / "d", [row(0, SHORT), row(1, LONG)], overlong="truncate", aligner=aligner)
    assert data.lengths[1] == 200
    for length, groups, teacher_ids in zip(data.lengths, data.train[GROUPS], data.train[TEACHER_IDS], strict=True):
        assert groups[-1][1] == length - 1
        assert len(teacher_ids) == length


def test_a_malformed_example_is_left_out_with_its_reason(tmp_path: Path) -> None:
    stops_inside = SHORT.replace("1 + 1", "1 <|im_end|>+ 1")
    data = load(tmp_path / "d", [row(0, SHORT), row(1, stops_inside), row(2, " \n")], validation=[row(3, stops_inside)])
    assert data.malformed == {"end_token_inside": 2, "empty": 1}
    assert data.train.num_rows == 1
    with pytest.raises(UserError, match=r"no example is left, all are malformed: \{'end_token_inside': 1\}"):
        load(tmp_path / "e", [row(1, stops_inside)])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_example_is_checked_and_not_the_first_alone(tmp_path: Path, split: str) -> None:
    """A tokenizer that drops the tags of some replies only: those that do not begin with the forced start."""
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" <think>", "")
    good, bad = [row(0, SHORT), row(1, SHORT)], [row(2, f"Well. {SHORT}"), row(3, f"So: {SHORT}")]
    rows = {"train": good + bad} if split == "train" else {"train": good, "validation": bad}
    with pytest.raises(
        UserError, match=r"2 of 4 examples cannot be taught; the first is problem p2, sample 0: .*<think>"
    ):
        load(tmp_path / "d", tokenizer=tokenizer, **rows)


def test_what_is_taught_twice_or_out_of_place_is_refused() -> None:
    tokenizer = tiny_model.make_tokenizer()
    good = render_example(tokenizer, "1 + 1?", SHORT, PREFILL)
    begin = good.labels.index(good.input_ids[-len([x for x in good.labels if x != IGNORED])])
    twice = Example([*good.input_ids[:-1], *good.input_ids[begin:]], [*good.labels[:-1], *good.labels[begin:]])
    with pytest.raises(UserError, match=r"<think> is supervised 2 times and is 1 times in the reply"):
        check_example(tokenizer, twice, SHORT)
    with pytest.raises(UserError, match="not the reply, whole and in its place"):
        check_example(tokenizer, Example(good.input_ids, [*good.labels[1:], IGNORED]), SHORT)
    with pytest.raises(UserError, match="not the reply, whole and in its place"):
        check_example(tokenizer, Example(good.input_ids, good.input_ids), SHORT)
    with pytest.raises(UserError, match="<think> is not supervised"):  # an assistant mask of zeros (trl#4879)
        check_example(tokenizer, Example(good.input_ids, [IGNORED] * len(good.labels)), SHORT)


def test_a_reply_that_the_tokenizer_composes_is_still_the_reply() -> None:
    tokenizer = tiny_model.make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    reply = SHORT.replace("{2}", "{cafe\N{COMBINING ACUTE ACCENT}}")
    check_example(tokenizer, render_example(tokenizer, "1 + 1?", reply, PREFILL), reply)


def test_a_cut_leaves_what_is_before_it_as_it_was() -> None:
    assert cut(Example([1, 2, 3, 4], [IGNORED, 2, 3, 4]), 3) == Example([1, 2, 3], [IGNORED, 2, 3])
