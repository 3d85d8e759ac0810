"""Hidden states and attention of the student drawn to the teacher's."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from transformers import GPT2Config

from r1distill.errors import UserError
from r1distill.inner_sections import Attention, Hidden
from r1distill.train.attention import (
    blocks,
    maps_sum,
    relation,
    relations_in_blocks,
    relations_sum,
    sees,
    segments_of,
)
from r1distill.train.hidden import distance, hidden_sum, new_projections
from r1distill.train.inner import pairs_of
from r1distill.train.layers import layer_pairs


@given(st.integers(1, 40), st.integers(1, 80))
def test_uniform_pairs_rise_and_end_at_both_last_layers(n_student: int, n_teacher: int) -> None:
    pairs = layer_pairs("uniform", None, n_student, n_teacher, "train.hidden")
    assert [student for student, _ in pairs] == list(range(1, n_student + 1))
    teachers = [teacher for _, teacher in pairs]
    assert teachers == sorted(teachers)
    assert teachers[0] >= 1
    assert teachers[-1] == n_teacher


@given(st.integers(1, 40), st.integers(1, 80), st.data())
def test_a_count_of_uniform_pairs_are_some_of_all(n_student: int, n_teacher: int, data) -> None:
    count = data.draw(st.integers(1, n_student))
    pairs = layer_pairs("uniform", count, n_student, n_teacher, "train.hidden")
    assert len(set(pairs)) == count
    assert set(pairs) <= set(layer_pairs("uniform", None, n_student, n_teacher, "train.hidden"))
    assert pairs[-1] == (n_student, n_teacher)


def test_last_pairs_and_given_ones() -> None:
    assert layer_pairs("last", 2, 4, 12, "train.hidden") == [(3, 11), (4, 12)]
    assert layer_pairs("last", None, 3, 2, "train.hidden") == [(2, 1), (3, 2)]
    assert layer_pairs({"4": 12, "1": 3}, None, 4, 12, "train.hidden") == [(1, 3), (4, 12)]


def test_a_layer_is_named_once_and_a_model_without_these_projections_is_said() -> None:
    with pytest.raises(ValidationError, match=r'layers: "02" = 1: numbers of layers, from 1'):
        Hidden(layers={"2": 3, "02": 1})
    with pytest.raises(UserError, match=r"\[train.attention\]: the student \(gpt2\) is not made of q_proj"):
        pairs_of(None, Attention(), GPT2Config(n_layer=2), GPT2Config(n_layer=2))


def test_layers_that_there_are_not_are_an_error() -> None:
    with pytest.raises(UserError, match=r'train.hidden.layers: "5" = 1, and the student has 4 layers, the teacher 12'):
        layer_pairs({"5": 1}, None, 4, 12, "train.hidden")
    with pytest.raises(UserError, match=r"train.attention.count = 5, and at most 4 layers"):
        layer_pairs("last", 5, 4, 12, "train.attention")


def states(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_both_losses_are_as_by_hand() -> None:
    ours, theirs = states(5, 6), states(5, 6, seed=1)
    for n in range(5):
        a, b = ours[n].tolist(), theirs[n].tolist()
        norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        cosine = 1 - sum(x * y for x, y in zip(a, b, strict=True)) / norm
        assert distance(ours, theirs, "cosine")[n].item() == pytest.approx(cosine)

        def standard(x: list[float]) -> list[float]:
            mean = sum(x) / 6
            return [(each - mean) / math.sqrt(sum((y - mean) ** 2 for y in x) / 6) for each in x]

        mse = sum((x - y) ** 2 for x, y in zip(standard(a), standard(b), strict=True)) / 6
        assert distance(ours, theirs, "mse")[n].item() == pytest.approx(mse, rel=1e-6)


@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_equal_states_cost_nothing_at_any_scale(loss) -> None:
    ours = [states(7, 8), states(7, 8, seed=1)]
    assert hidden_sum(ours, [each * 30 for each in ours], None, loss).item() == pytest.approx(0, abs=1e-4)


def test_projections_learn_what_a_rotation_hides() -> None:
    """Where the teacher's states are a fixed linear map of the student's, the projections find it."""
    ours, truth = states(60, 4), states(6, 4, seed=2)
    theirs = (ours @ truth.T).float()
    projections = new_projections(1, 4, 6, seed=0)
    assert projections is not None
    optimizer = torch.optim.Adam(projections.parameters(), lr=0.05)
    first = last = 0.0
    for step in range(300):
        loss = hidden_sum([ours.float()], [theirs], list(projections), "cosine") / 60
        first = loss.item() if step == 0 else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = loss.item()
    assert first > 0.3
    assert last < 0.01
    assert new_projections(3, 8, 8, seed=0) is None


# ---------------------------------------------------------------- attention


def test_packed_sequences_see_themselves_alone() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    segments = segments_of(positions, None, positions.shape)
    expected = torch.tensor([[
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1],
    ]], dtype=torch.bool)  # fmt: skip
    assert torch.equal(sees(segments), expected)
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    assert not sees(segments_of(None, mask, mask.shape))[0, :3, 3:].any()


def test_relations_of_packed_sequences_are_those_of_each_alone() -> None:
    ours, theirs = [[states(1, 7, 8, seed=n) for n in range(3)]], [[states(1, 7, 12, seed=10 + n) for n in range(3)]]
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    taught = torch.tensor([[0, 1, 1, 1, 0, 1, 1]], dtype=torch.bool)
    together = relations_sum(ours, theirs, taught, segments_of(positions, None, positions.shape), 2)
    alone = torch.zeros(())
    for part in (slice(0, 4), slice(4, 7)):
        cut = lambda pairs, part=part: [[each[:, part] for each in pairs[0]]]  # noqa: E731
        here = positions[:, part]
        alone = alone + relations_sum(cut(ours), cut(theirs), taught[:, part], segments_of(here, None, here.shape), 2)
    assert together.item() == pytest.approx(alone.item(), rel=1e-5)


def test_a_relation_is_as_by_hand() -> None:
    vectors = states(1, 4, 6)
    found = relation(vectors, sees(torch.zeros(1, 4, dtype=torch.long)), 2)[0]
    for head in range(2):
        rows = vectors[0, :, 3 * head : 3 * head + 3].tolist()
        for i in range(4):
            scores = [
                math.exp(sum(x * y for x, y in zip(rows[i], rows[j], strict=True)) / math.sqrt(3)) for j in range(i + 1)
            ]
            expected = [score / sum(scores) for score in scores] + [0.0] * (3 - i)
            assert found[head, i].tolist() == pytest.approx(expected, rel=1e-5)


def test_equal_relations_cost_nothing_and_others_have_gradients_for_the_taught_alone() -> None:
    ours = [[states(2, 5, 8, seed=n).requires_grad_() for n in range(3)]]
    segments = torch.zeros(2, 5, dtype=torch.long)
    taught = torch.zeros(2, 5, dtype=torch.bool)
    taught[0, 2] = True
    assert relations_sum(ours, [[each.detach() for each in ours[0]]], taught, segments, 4).item() == pytest.approx(
        0, abs=1e-6
    )
    relations_sum(ours, [[states(2, 5, 8, seed=9 + n) for n in range(3)]], taught, segments, 4).backward()
    for each in ours[0]:
        assert each.grad is not None
        assert torch.isfinite(each.grad).all()
        assert each.grad[0, :3].abs().sum() > 0
        assert not each.grad[0, 3:].any()  # later than the taught token
        assert not each.grad[1].any()


def test_maps_are_compared_by_kl_and_by_their_mean_where_the_heads_differ() -> None:
    ours, theirs = (states(1, heads, 3, 3, seed=heads).softmax(-1) for heads in (2, 4))
    taught = torch.tensor([[False, True, True]])
    p, q = theirs.mean(1)[0], ours.mean(1)[0]
    expected = sum((p[n] * (p[n] / q[n]).log()).sum().item() for n in (1, 2))
    assert maps_sum([ours], [theirs], taught).item() == pytest.approx(expected, rel=1e-4)
    both = (theirs * (theirs / theirs.flip(1)).log()).sum(-1).mean(1)[0]
    assert maps_sum([theirs.flip(1)], [theirs], taught).item() == pytest.approx((both[1] + both[2]).item(), rel=1e-4)
    assert maps_sum([theirs], [theirs], taught).item() == pytest.approx(0, abs=1e-6)


@given(st.integers(1, 200), st.integers(8, 64), st.integers(0, 99))
def test_blocks_are_all_of_a_row_and_none_is_too_long(length: int, most: int, step: int) -> None:
    found = blocks(length, most, step)
    assert [place for part in found for place in range(part.start, part.stop)] == list(range(length))
    assert all(0 < part.stop - part.start <= most for part in found)
    assert len(found) <= length // most + 2
    assert found == blocks(length, most, step)


def test_blocks_are_cut_at_other_places_in_every_step() -> None:
    assert len({blocks(1000, 100, step)[0].stop for step in range(50)}) > 30


def test_relations_in_blocks_are_those_of_each_block_and_their_gradients_too() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (
        [[torch.randn(2, 20, 8, generator=generator) for _ in range(3)] for _ in range(2)] for _ in range(2)
    )
    taught = torch.rand(2, 20, generator=generator) < 0.5
    taught[:, 8:13] = False  # a block that teaches nothing
    segments = torch.arange(20)[None].expand(2, 20) // 11
    parts = [slice(0, 8), slice(8, 13), slice(13, 20)]
    for layer in ours:
        for each in layer:
            each.requires_grad_()
    found = relations_in_blocks(ours, theirs, taught, segments, 2, parts)
    flat = [each for layer in ours for each in layer]
    gradients = torch.autograd.grad(found, flat)

    def cut_to(part: slice, side: list[list[Tensor]]) -> list[list[Tensor]]:
        return [[each[:, part] for each in layer] for layer in side]

    cut = [
        relations_sum(cut_to(part, ours), cut_to(part, theirs), taught[:, part], segments[:, part], 2)
        for part in parts
    ]  # fmt: skip
    expected = torch.stack(cut).sum()
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients, torch.autograd.grad(expected, flat), strict=True):
        torch.testing.assert_close(one, other)
    whole = relations_in_blocks(ours, theirs, taught, segments, 2, [slice(0, 20)])
    torch.testing.assert_close(whole, relations_sum(ours, theirs, taught, segments, 2))
    assert relations_in_blocks(ours, theirs, torch.zeros_like(taught), segments, 2, parts).item() == 0
