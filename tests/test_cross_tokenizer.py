"""The divergence from a teacher with other tokens, and the alignment of two tokenizations."""

import math
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import tiny_trainer
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from r1distill.errors import UserError
from r1distill.train.alignment import Group, TokenBytes, groups_of, shared_ids
from r1distill.train.cross_data import GROUPS, TEACHER_IDS, Aligner, Cross
from r1distill.train.cross_tokenizer import Shared, Side, Spans, cross_sum, shared_of
from r1distill.train.distill import DistillTrainer
from r1distill.train.render import prepare_tokenizer, render_example
from r1distill.train_sections import Kl, Train

cuts = st.lists(st.integers(1, 30), max_size=12)


def pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


@given(st.binary(max_size=30), cuts, cuts)
def test_groups_are_the_finest_common_division(text: bytes, ours: list[int], theirs: list[int]) -> None:
    student, teacher = pieces(text, ours), pieces(text, theirs)
    groups = groups_of(student, teacher)
    assert [place for group in groups for place in range(group.first, group.last + 1)] == list(range(len(student)))
    whole = [place for group in groups for place in range(group.teacher_first, group.teacher_last + 1)]
    assert whole == list(range(len(teacher)))
    for group in groups:
        assert b"".join(student[group.first : group.last + 1]) == b"".join(
            teacher[group.teacher_first : group.teacher_last + 1]
        )
    assert len(groups) == len(set(accumulate(map(len, student))) & set(accumulate(map(len, teacher))))


@given(st.binary(min_size=1, max_size=8), st.binary(max_size=30), cuts, cuts)
def test_what_only_one_of_them_begins_with_is_in_no_group(opening: bytes, text: bytes, ours, theirs) -> None:
    student, teacher = pieces(opening + text, ours), pieces(text, theirs)
    for group in (groups := groups_of(student, teacher)):
        assert b"".join(student[group.first : group.last + 1]) == b"".join(
            teacher[group.teacher_first : group.teacher_last + 1]
        )
    swapped = [
        Group(each.teacher_first, each.teacher_last, each.first, each.last) for each in groups_of(teacher, student)
    ]
    assert swapped == groups
    if groups:
        assert groups[-1].last == len(student) - 1
        assert b"".join(student[groups[0].first :]) == b"".join(teacher[groups[0].teacher_first :])


def test_texts_that_differ_are_not_aligned() -> None:
    with pytest.raises(ValueError, match="not of one text"):
        groups_of([b"ab"], [b"a", b"c"])


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=8), st.data())
def test_a_token_with_a_space_that_the_other_has_not_is_in_no_group_and_all_others_are(
    words: list[bytes], data
) -> None:
    """SentencePiece puts one before every piece that it is given, on either side."""
    put_in = [data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words))) for _ in range(2)]
    # words that begin otherwise, so that it is known which of two spaces was put in
    words = [b"w" + word.replace(b" ", b"_") for word in words]
    student, teacher = ([b" " * spaced + word for word, spaced in zip(words, side, strict=True)] for side in put_in)
    groups = groups_of(student, teacher)
    alike = [place for place, (ours, theirs) in enumerate(zip(*put_in, strict=True)) if ours == theirs]
    assert groups == [Group(place, place, place, place) for place in alike]


def byte_level(texts: list[str], size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet))  # type: ignore[call-arg]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def sentencepiece_like() -> PreTrainedTokenizerFast:
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for token in ("▁", "▁the", "the", "e", "t", "h", "é", "▁a", "1", "2", "+"):
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h")] if "th" in vocabulary else [], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@given(st.text(max_size=40))
def test_the_bytes_of_the_tokens_are_those_of_the_text(text: str) -> None:
    for tokenizer in TOKENIZERS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert b"".join(TokenBytes(tokenizer, "it").of(ids)) == text.encode()


TOKENIZERS = [
    byte_level(["the theory of the thing is that 12 + 12 = 24"] * 5, 300),
    byte_level([], 300),
    sentencepiece_like(),
]


def test_a_vocabulary_that_is_not_bytes_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"naïve → word": 0, "?": 1}, unk_token="?"))
    with pytest.raises(UserError, match=r"cannot be told as bytes; take another teacher"):
        TokenBytes(PreTrainedTokenizerFast(tokenizer_object=words), "org/teacher")


def test_tokens_are_shared_by_their_bytes_and_end_tokens_by_what_they_do() -> None:
    first, _, other = TOKENIZERS
    ours, theirs = (TokenBytes(each, "it") for each in (first, other))
    ids, other_ids = first.get_vocab(), other.get_vocab()
    ends = (ids["<end>"], other_ids["</s>"])
    student, teacher = shared_ids(ours, theirs, ends)
    assert len(set(student)) == len(set(teacher)) == len(student)
    pairs = dict(zip(student, teacher, strict=True))
    assert pairs[ends[0]] == ends[1]
    for number, same in pairs.items():
        assert number == ends[0] or ours.of_id[number] == theirs.of_id[same]
    assert pairs[ids["Ġthe"]] == other_ids["▁the"]
    assert pairs[ids["1"]] == other_ids["1"]  # and not <0x31>, which is never written
    assert dict(zip(*shared_ids(theirs, ours, (ends[1], ends[0])), strict=True))[other_ids["1"]] == ids["1"]
    assert pairs[ids["Ċ"]] == other_ids["<0x0A>"]
    assert len(pairs) == 1 + len(set(ours.of_id.values()) & set(theirs.of_id.values()))


def test_of_two_tokens_of_the_same_bytes_the_one_that_is_written_is_shared() -> None:
    """GPT-NeoX has its runs of spaces as plain and as added tokens, and writes the latter."""
    runs = byte_level(["a    b  c"] * 5, 300)
    assert "ĠĠĠ" in runs.get_vocab()
    twice = byte_level(["a    b  c"] * 5, 300)
    twice.add_tokens(["   "])
    [written] = twice("   ", add_special_tokens=False)["input_ids"]
    assert written != twice.get_vocab()["ĠĠĠ"]
    one, other = TokenBytes(runs, "it"), TokenBytes(twice, "it")
    end, other_end = runs.get_vocab()["<end>"], twice.get_vocab()["<end>"]
    assert dict(zip(*shared_ids(one, other, (end, other_end)), strict=True))[runs.get_vocab()["ĠĠĠ"]] == written
    assert dict(zip(*shared_ids(other, one, (other_end, end)), strict=True))[written] == runs.get_vocab()["ĠĠĠ"]
    both, same = shared_ids(other, other, (other_end, other_end))
    assert both == same == sorted(other.of_id)


def test_runs_of_spaces_that_gemma_adds_are_spaces() -> None:
    gemma = sentencepiece_like()
    gemma.add_tokens(["▁▁", "▁▁▁"])
    gemma.add_special_tokens({"additional_special_tokens": ["<start▁of▁turn>"]})
    found, ids = TokenBytes(gemma, "it"), gemma.get_vocab()
    assert (found.of_id[ids["▁▁"]], found.of_id[ids["▁▁▁"]]) == (b"  ", b"   ")
    assert found.of_id[ids["<start▁of▁turn>"]] == "<start▁of▁turn>".encode()


# ---------------------------------------------------------------- the loss


def sides(rows: int, teacher_rows: int, n: int, n_teacher: int) -> tuple[Side, Side]:
    draw = torch.Generator().manual_seed(rows + n)

    def side(rows: int, n: int) -> Side:
        hidden, weight = torch.randn(n, 8, generator=draw), torch.randn(rows, 8, generator=draw)
        return Side(hidden, weight, torch.randint(0, rows, (n,), generator=draw))

    return side(rows, n), side(teacher_rows, n_teacher)


def spans_of(*groups: Group) -> Spans:
    columns = [(each.first, each.last, each.teacher_first, each.teacher_last) for each in groups]
    return Spans(*torch.tensor(columns).T)


PAIRS = spans_of(*(Group(n, n, n, n) for n in range(6)))
MIXED = spans_of(Group(0, 0, 0, 0), Group(1, 3, 1, 1), Group(4, 4, 2, 4), Group(5, 6, 5, 6), Group(7, 7, 7, 7))
SHARED = shared_of([0, 3, 4, 7], [5, 1, 2, 0], 11, 9)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("divergence", ["forward", "reverse", "jensen_shannon"])
def test_with_one_vocabulary_it_is_the_plain_divergence(divergence, temperature) -> None:
    student, teacher = sides(11, 11, 6, 6)
    everything = list(range(11))
    found = cross_sum(
        student, teacher, PAIRS, shared_of(everything, everything, 11, 11),
        way="aligned", divergence=divergence, temperature=temperature,
    )  # fmt: skip
    q = (student.hidden.double() @ student.weight.double().T / temperature).softmax(1)
    p = (teacher.hidden.double() @ teacher.weight.double().T / temperature).softmax(1)
    m = (p + q) / 2
    expected = {
        "forward": (p * (p / q).log()).sum(),
        "reverse": (q * (q / p).log()).sum(),
        "jensen_shannon": ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2,
    }
    assert found.item() == pytest.approx(expected[divergence].item(), rel=1e-5)


def probabilities(side: Side, temperature: float = 1.0) -> list[list[float]]:
    return (side.hidden.double() @ side.weight.double().T / temperature).softmax(1).tolist()


def aligned_by_hand(student: Side, teacher: Side, spans: Spans, shared: Shared, temperature: float) -> float:
    q, p, total = probabilities(student, temperature), probabilities(teacher, temperature), 0.0
    said, other_said = probabilities(student), probabilities(teacher)
    ours, theirs = student.ids.tolist(), teacher.ids.tolist()
    for first, last, teacher_first, teacher_last in zip(*(each.tolist() for each in spans), strict=True):
        if first == last and teacher_first == teacher_last:
            mine, other = q[first], p[teacher_first]
            pairs = list(zip(shared.student.tolist(), shared.teacher.tolist(), strict=True))
            rest = sorted((mine[each] for each in shared.student_rest.tolist()), reverse=True)
            other_rest = sorted((other[each] for each in shared.teacher_rest.tolist()), reverse=True)
            total += sum(other[b] * math.log(other[b] / mine[a]) for a, b in pairs)
            total += sum(other_rest) * math.log(sum(other_rest) / sum(rest))
            length = max(len(rest), len(other_rest))
            rest, other_rest = (each + [0.0] * (length - len(each)) for each in (rest, other_rest))
            total += sum(abs(a - b) for a, b in zip(rest, other_rest, strict=True)) / temperature
        else:
            mine = tempered(math.prod(said[n][ours[n]] for n in range(first, last + 1)), temperature)
            whole = math.prod(other_said[n][theirs[n]] for n in range(teacher_first, teacher_last + 1))
            other = tempered(whole, temperature)
            total += other * math.log(other / mine) + (1 - other) * math.log((1 - other) / (1 - mine))
    return total


def tempered(probability: float, temperature: float) -> float:
    """Of one of two outcomes."""
    yes, no = probability ** (1 / temperature), (1 - probability) ** (1 / temperature)
    return yes / (yes + no)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_aligned_is_as_by_hand_however_many_are_computed_at_once(at_once: int, temperature: float) -> None:
    student, teacher = sides(11, 9, 8, 8)
    found = cross_sum(student, teacher, MIXED, SHARED, way="aligned", at_once=at_once, temperature=temperature)
    assert found.item() == pytest.approx(aligned_by_hand(student, teacher, MIXED, SHARED, temperature), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_a_text_that_both_find_as_likely_costs_nothing_however_it_is_cut(temperature: float) -> None:
    """Half and half, and a quarter at once: with products of tempered probabilities 3.1 times T^2 at temperature 5."""
    halves = Side(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([0, 1]))
    quarter = Side(torch.ones(1, 1), torch.tensor([[0.25], [0.75]]).log(), torch.tensor([0]))
    spans = spans_of(Group(0, 1, 0, 0))
    found = cross_sum(halves, quarter, spans, shared_of([0, 1], [0, 1], 2, 2), way="aligned", temperature=temperature)
    assert found.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("way", ["aligned", "uld"])
def test_the_square_of_the_temperature_keeps_the_size_of_gradients(way) -> None:
    norms = []
    for temperature in (1.0, 2.0, 5.0):
        student, teacher = sides(11, 9, 8, 8)
        hidden, teacher = student.hidden.div(10).requires_grad_(), Side(teacher.hidden / 10, *teacher[1:])
        student = Side(hidden, student.weight, student.ids)
        cross_sum(student, teacher, PAIRS, SHARED, way=way, temperature=temperature).mul(temperature**2).backward()
        assert hidden.grad is not None
        norms.append(hidden.grad.norm().item())
    assert max(norms) < 2 * min(norms)


@pytest.mark.parametrize("way", ["aligned", "uld"])
def test_gradients_are_those_of_finite_differences_and_reach_the_student_alone(way) -> None:
    student, teacher = sides(11, 9, 8, 8)
    student = Side(student.hidden.requires_grad_(), student.weight.requires_grad_(), student.ids)
    teacher = Side(teacher.hidden.requires_grad_(), teacher.weight, teacher.ids)

    def loss() -> Tensor:
        return cross_sum(student, teacher, MIXED, SHARED, way=way, at_once=2)

    loss().backward()
    assert teacher.hidden.grad is None
    for tensor in (student.hidden, student.weight):
        gradient = tensor.grad
        assert gradient is not None
        direction = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            tensor += 1e-3 * direction
            above = loss().item()
            tensor -= 2e-3 * direction
            below = loss().item()
            tensor += 1e-3 * direction
        assert (above - below) / 2e-3 == pytest.approx((gradient * direction).sum().item(), rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_uld_is_that_of_trl(temperature: float) -> None:
    """trl.experimental.gold.ULDLoss with its chain rule, on the sequences as it takes them.

    At other temperatures than 1 without groups of several tokens, whose probabilities it takes the product of as they are
    tempered, and divided by the temperature, which it does not do.
    """
    gold = pytest.importorskip("trl.experimental.gold.gold_trainer")
    from types import SimpleNamespace

    student, teacher = sides(11, 9, 8, 8)
    config = SimpleNamespace(
        uld_crossentropy_weight=0.0, uld_distillation_weight=1.0, uld_student_temperature=temperature,
        uld_teacher_temperature=temperature, uld_skip_student_eos=False, uld_skip_teacher_eos=False, use_extended_uld=True,
        uld_token_merge_strategy="bayesian",
    )  # fmt: skip
    # the groups of MIXED end where both have the same number of bytes
    ends, teacher_ends = torch.tensor([1, 10, 20, 30, 50, 60, 80, 90]), torch.tensor([1, 30, 35, 40, 50, 70, 80, 90])
    spans = MIXED
    if temperature != 1.0:
        spans, teacher_ends = spans_of(*(Group(n, n, n, n) for n in range(8))), ends

    def with_one_before(side: Side) -> tuple[Tensor, Tensor, Tensor]:
        logits = (side.hidden @ side.weight.T)[None]
        ids = torch.cat([torch.zeros(1, dtype=torch.long), side.ids])[None]
        labels = ids.clone()
        labels[0, 0] = -100
        return torch.cat([logits, logits[:, :1]], 1), labels, ids

    ours, theirs = with_one_before(student), with_one_before(teacher)

    def offsets(ends: Tensor) -> Tensor:
        return torch.stack([torch.zeros(9, dtype=torch.long), torch.cat([torch.zeros(1, dtype=torch.long), ends])], 1)[
            None
        ]

    expected = gold.ULDLoss(config)(
        ours[0], theirs[0], ours[1], theirs[1], ours[2], theirs[2], offsets(ends), offsets(teacher_ends)
    )
    found = cross_sum(student, teacher, spans, SHARED, way="uld", temperature=temperature)
    assert found.item() / len(spans.first) == pytest.approx(expected.item() / temperature, rel=1e-5)


# ---------------------------------------------------------------- in the trainer

OPENED = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] <think>\n{% endif %}"
)


def other_tokenizer() -> PreTrainedTokenizerFast:
    """Another vocabulary, longer tokens, another template that opens the thinking itself, as R1's does."""
    texts = [tiny_model.reply(problem) for problem in tiny_model.PROBLEMS] * 3
    tokenizer = byte_level(texts, 400)
    tokenizer.add_special_tokens({"eos_token": "<end>", "pad_token": "<pad>"})
    prepare_tokenizer(tokenizer, OPENED, None, None)
    return tokenizer


def rows_of(aligner: Aligner, tokenizer: Any) -> list[dict[str, Any]]:
    rows = []
    for problem in tiny_model.PROBLEMS:
        message, reply = f"{problem.problem} é", tiny_model.reply(problem)
        example = render_example(tokenizer, message, reply, "<think>\n")
        columns = aligner.columns(message, reply, example, len(example.input_ids))
        rows.append({"input_ids": example.input_ids, "labels": example.labels, **columns})
    return rows


def test_groups_name_tokens_of_the_same_bytes_and_both_ends() -> None:
    ours, theirs = tiny_model.make_tokenizer(), other_tokenizer()
    aligner = Aligner.of(ours, theirs)
    for row in rows_of(aligner, ours):
        groups = row[GROUPS]
        assert len(groups) > 5
        for first, last, teacher_first, teacher_last in groups[:-1]:
            mine = aligner.student.of(row["input_ids"][first : last + 1])
            other = aligner.teacher.of(row[TEACHER_IDS][teacher_first : teacher_last + 1])
            assert b"".join(mine) == b"".join(other)
        assert (row["input_ids"][groups[-1][1]], row[TEACHER_IDS][groups[-1][3]]) == aligner.ends
        assert [group[0] for group in groups[1:]] == [group[1] + 1 for group in groups[:-1]]
        assert row["labels"][groups[0][0]] != -100


def test_neither_reads_more_than_it_has_room_for() -> None:
    """The student a cut example, the teacher what stands for that, and no more than it has positions."""
    tokenizer, theirs = tiny_model.make_tokenizer(), other_tokenizer()
    message, reply = "?", tiny_model.reply(tiny_model.PROBLEMS[0])
    example = render_example(tokenizer, message, reply, "<think>\n")
    whole = Aligner.of(tokenizer, theirs).columns(message, reply, example, len(example.input_ids))
    cut = len(example.input_ids) - 9
    found = Aligner.of(tokenizer, theirs).columns(message, reply, example, cut)
    assert found[GROUPS] == [group for group in whole[GROUPS] if group[1] < cut]
    assert 0 < len(found[GROUPS]) < len(whole[GROUPS])
    assert found[TEACHER_IDS] == whole[TEACHER_IDS][: found[GROUPS][-1][3] + 1]
    positions = len(whole[TEACHER_IDS]) - 4
    found = Aligner.of(tokenizer, theirs, positions).columns(message, reply, example, len(example.input_ids))
    assert 0 < len(found[GROUPS]) < len(whole[GROUPS])
    assert len(found[TEACHER_IDS]) <= positions
    found = Aligner.of(tokenizer, theirs).columns(message, reply, example, 1)
    assert (found[GROUPS], len(found[TEACHER_IDS])) == ([], 1)


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_sentencepiece_and_its_space_before_the_text_are_aligned_behind_a_forced_start(scheme: str) -> None:
    tokenizer, theirs = tiny_model.make_tokenizer(), sentencepiece_like()
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)  # type: ignore[arg-type]
    theirs.add_special_tokens({"pad_token": "<pad>"})
    prepare_tokenizer(theirs, OPENED.replace("<end>", "</s>"), None, None)
    reply = tiny_model.reply(tiny_model.PROBLEMS[0])
    example = render_example(tokenizer, "?", reply, "<think>\n")
    found = Aligner.of(tokenizer, theirs).columns("?", reply, example, len(example.input_ids))[GROUPS]
    taught = [place for place, label in enumerate(example.labels) if label != -100]
    assert [place for group in found for place in range(group[0], group[1] + 1)] == taught


@pytest.mark.parametrize("scheme", ["first", "always"])
@pytest.mark.parametrize("template", [OPENED, OPENED.replace(" <think>\n", "")])
def test_a_student_that_puts_spaces_before_its_pieces_is_aligned_too(scheme: str, template: str) -> None:
    student, theirs = sentencepiece_like(), other_tokenizer()
    student.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)  # type: ignore[arg-type]
    student.add_special_tokens({"pad_token": "<pad>"})
    prepare_tokenizer(student, OPENED.replace("<end>", "</s>").replace(" <think>\n", ""), None, None)
    prepare_tokenizer(theirs, template, None, None)
    reply = tiny_model.reply(tiny_model.PROBLEMS[0])
    example = render_example(student, "?", reply, "<think>\n")
    aligner = Aligner.of(student, theirs)
    columns = aligner.columns("?", reply, example, len(example.input_ids))
    taught = [place for place, label in enumerate(example.labels) if label != -100]
    covered = [place for group in columns[GROUPS] for place in range(group[0], group[1] + 1)]
    assert covered == sorted(set(covered))
    assert len(taught) - len(covered) < 16  # the opening of the reply, and what a space was put before
    for first, last, teacher_first, teacher_last in columns[GROUPS][:-1]:
        mine = b"".join(aligner.student.of(example.input_ids[first : last + 1]))
        assert mine == b"".join(aligner.teacher.of(columns[TEACHER_IDS][teacher_first : teacher_last + 1]))


def trainer_of(folder: Path, student: Any, teacher: Any, tokenizer: Any, theirs: Any, way: Any, **changes: Any) -> Any:
    aligner = Aligner.of(tokenizer, theirs)
    cross = Cross(aligner, way, student.config.vocab_size, teacher.config.vocab_size, theirs.pad_token_id)
    return DistillTrainer(
        settings=Train(student="tiny", kl=Kl(alpha=0.0, online="t", cross_tokenizer=way)), cross=cross,
        online_teacher=teacher, model=student, args=tiny_trainer.settings(folder, **changes), processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows_of(aligner, tokenizer)),
    )  # fmt: skip


def test_one_tokenizer_gives_the_plain_divergence_in_the_trainer(tmp_path: Path) -> None:
    tokenizer = tiny_model.make_tokenizer()
    student = tiny_model.make_model(tokenizer)
    torch.manual_seed(5)
    teacher = type(student)(student.config)
    rows = [
        {"input_ids": row["input_ids"], "labels": row["labels"]}
        for row in rows_of(Aligner.of(tokenizer, tokenizer), tokenizer)
    ]
    plain = DistillTrainer(
        settings=Train(student="tiny", kl=Kl(alpha=0.0, online="t")), online_teacher=tiny_trainer.copy_of(teacher),
        model=tiny_trainer.copy_of(student), args=tiny_trainer.settings(tmp_path / "plain"), processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )  # fmt: skip
    crossed = trainer_of(tmp_path / "crossed", tiny_trainer.copy_of(student), teacher, tokenizer, tokenizer, "aligned")
    tiny_trainer.assert_same(tiny_trainer.trained(crossed), tiny_trainer.trained(plain), 1e-4)
    assert crossed.state.log_history[0]["kl"] == pytest.approx(plain.state.log_history[0]["kl"], rel=1e-4)


@pytest.mark.parametrize("way", ["aligned", "uld"])
def test_a_student_learns_from_a_teacher_with_other_tokens(tmp_path: Path, way) -> None:
    tokenizer, theirs = tiny_model.make_tokenizer(), other_tokenizer()
    student = tiny_model.make_model(tokenizer)
    torch.manual_seed(5)
    config = type(student.config)(**{**student.config.to_dict(), "vocab_size": len(theirs) + 7})  # a padded head
    teacher = type(student)(config)
    trainer = trainer_of(
        tmp_path, student, teacher, tokenizer, theirs, way, max_steps=25, learning_rate=3e-3, optim="adamw_torch",
        per_device_train_batch_size=8,
    )  # fmt: skip
    trainer.train()
    kl = [row["kl"] for row in trainer.state.log_history if "kl" in row]
    assert kl[-1] < (0.8 if way == "aligned" else 0.9) * kl[0]  # by rank alone there is less to learn


def test_a_reply_that_a_tokenizer_changes_has_no_groups() -> None:
    tokenizer, theirs = tiny_model.make_tokenizer(), other_tokenizer()
    theirs.backend_tokenizer.normalizer = normalizers.Lowercase()
    row = rows_of(Aligner.of(tokenizer, theirs), tokenizer)[0]
    assert row[GROUPS] or "Boxed" in tiny_model.reply(tiny_model.PROBLEMS[0])
    example = render_example(tokenizer, "?", "<think>\nABC\n</think>\n\nX", "<think>\n")
    found = Aligner.of(tokenizer, theirs).columns("?", "<think>\nABC\n</think>\n\nX", example, len(example.input_ids))
    assert found[GROUPS] == []


def test_what_cannot_be_crossed_is_refused_in_the_recipe() -> None:
    for train, message in (
        ({"kl": {"cross_tokenizer": "uld"}}, "takes a teacher in the training itself; name it in online"),
        ({"kl": {"online": "t", "cross_tokenizer": "uld"}, "args": {"packing": True}}, "with packing"),
        ({"kl": {"online": "t", "cross_tokenizer": "uld"}, "hidden": {}}, "states of other tokens cannot be compared"),
        ({"hidden": {}}, r"\[train.hidden\] needs a teacher in the training"),
        (
            {"kl": {"online": "a"}, "hidden": {"teacher": "b"}},
            "train.kl.online = a, train.hidden.teacher = b: one teacher",
        ),
    ):
        with pytest.raises(ValidationError, match=message):
            Train.model_validate({"student": "s", **train})
