"""Examples for a teacher with another tokenizer: what it reads, and which of its tokens stand for which of the student's."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from r1distill.train.alignment import Group, TokenBytes, groups_of, shared_ids
from r1distill.train.cross_tokenizer import Shared, Spans, Way, shared_of
from r1distill.train.render import IGNORED, Example, render_example

TEACHER_IDS, GROUPS = "teacher_input_ids", "teacher_groups"


@dataclass(frozen=True)
class Aligner:
    """Both tokenizers, prepared for rendering, what their tokens stand for, and how many the teacher can read."""

    student: TokenBytes
    teacher: TokenBytes
    teacher_tokenizer: Any
    ends: tuple[int, int]
    teacher_positions: int

    @staticmethod
    def of(tokenizer: Any, teacher_tokenizer: Any, teacher_positions: int | None = None) -> "Aligner":
        return Aligner(
            TokenBytes(tokenizer, "the student"), TokenBytes(teacher_tokenizer, "the teacher"), teacher_tokenizer,
            (tokenizer.eos_token_id, teacher_tokenizer.eos_token_id), teacher_positions or sys.maxsize,
        )  # fmt: skip

    def columns(self, message: str, reply: str, example: Example, length: int) -> dict[str, Any]:
        """The teacher's tokens of the example, and groups as [first, last, teacher's first, teacher's last] token places.

        Of the example the student reads the first `length` tokens, and the teacher no more than stands for them and than it
        has positions for. Without a group where the two do not read the same reply, as where a tokenizer changes the text.
        """
        # in one piece: SentencePiece puts a space before the first of every piece
        theirs = render_example(self.teacher_tokenizer, message, reply, "")
        start, teacher_start = first_taught(example.labels), first_taught(theirs.labels)
        ours, others = example.input_ids[start:], theirs.input_ids[teacher_start:]
        is_whole = bool(ours) and bool(others) and (ours[-1], others[-1]) == self.ends
        if is_whole:
            ours, others = ours[:-1], others[:-1]
        try:
            groups = groups_of(self.student.of(ours), self.teacher.of(others))
        except ValueError:
            groups, is_whole = [], False
        if is_whole:
            groups.append(Group(len(ours), len(ours), len(others), len(others)))
        places = [
            [
                start + each.first,
                start + each.last,
                teacher_start + each.teacher_first,
                teacher_start + each.teacher_last,
            ]
            for each in groups
        ]
        places = [each for each in places if each[1] < length and each[3] < self.teacher_positions]
        read = places[-1][3] + 1 if places else 1
        return {TEACHER_IDS: theirs.input_ids[:read], GROUPS: places}


def first_taught(labels: list[int]) -> int:
    return next((place for place, label in enumerate(labels) if label != IGNORED), len(labels))


class Cross:
    """What of the vocabularies is shared, and how they are compared; `rows` and `teacher_rows` of the heads."""

    def __init__(self, aligner: Aligner, way: Way, rows: int, teacher_rows: int, pad: int) -> None:
        self.way: Way = way
        self.pad = pad
        self.shared = shared_of(*shared_ids(aligner.student, aligner.teacher, aligner.ends), rows, teacher_rows)

    def on(self, device: torch.device) -> Shared:
        self.shared = Shared(*(each.to(device) for each in self.shared))
        return self.shared

    @staticmethod
    def spans(groups: Tensor, ids: Tensor, teacher_ids: Tensor) -> Spans:
        """Places among the flattened predictors, one fewer in a row than tokens. `groups (G, 5)`: row of the batch, places."""
        row, first, last, teacher_first, teacher_last = groups.T
        ours, theirs = row * (ids.shape[1] - 1) - 1, row * (teacher_ids.shape[1] - 1) - 1
        return Spans(ours + first, ours + last, theirs + teacher_first, theirs + teacher_last)


def with_teacher_tokens(collate: Callable[[list[dict[str, Any]]], dict[str, Any]], cross: Cross) -> Any:
    """A collator that adds the teacher's tokens `(B, L')` with their mask, and the groups `(G, 5)` of all rows."""

    def collate_with_teacher(examples: list[dict[str, Any]]) -> dict[str, Any]:
        ids = [example.pop(TEACHER_IDS) for example in examples]
        groups = [[row, *places] for row, example in enumerate(examples) for places in example.pop(GROUPS)]
        batch = collate(examples)
        padded = torch.full((len(ids), max(map(len, ids))), cross.pad)
        mask = torch.zeros_like(padded)
        for row, each in enumerate(ids):
            padded[row, : len(each)] = torch.tensor(each)
            mask[row, : len(each)] = 1
        batch[TEACHER_IDS], batch["teacher_attention_mask"] = padded, mask
        batch[GROUPS] = torch.tensor(groups, dtype=torch.long).reshape(-1, 5)
        return batch

    return collate_with_teacher
