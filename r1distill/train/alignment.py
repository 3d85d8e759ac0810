"""Where two tokenizers agree: the same reply as the tokens of either, cut at the byte boundaries that both have.

Tokens are taken as the bytes that they stand for, so that a character of four bytes that one tokenizer has in three tokens
and the other in one is no special case. Two ways are known in which a vocabulary writes bytes: that of GPT-2 (Llama 3, Qwen,
SmolLM, DeepSeek), a printable character for each byte, and that of SentencePiece (Llama 2, Mistral, Gemma), with a mark for
the space and `<0x0A>` for a byte that is no character of its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from r1distill.errors import UserError

SPACE_MARK = "▁"
SINGLE_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class Group:
    """Tokens of either side that stand for the same bytes: `first` to `last` of the student's, likewise of the teacher's."""

    first: int
    last: int
    teacher_first: int
    teacher_last: int


def groups_of(student: Sequence[bytes], teacher: Sequence[bytes]) -> list[Group]:
    """The finest division of both at common boundaries, in order: every token is in one group, however long it has to be.

    One may begin later than the other, as where a template has put the opening of the reply into the prompt: what only the
    longer has is in no group. Raises ValueError where neither text ends with the other.
    """
    ours, theirs = b"".join(student), b"".join(teacher)
    if not (ours.endswith(theirs) or theirs.endswith(ours)):
        raise ValueError("the two are not of one text")
    starts = max(len(theirs) - len(ours), 0), max(len(ours) - len(theirs), 0)
    our_ends, their_ends = ends(student, starts[0]), ends(teacher, starts[1])
    found: list[Group] = []
    for before, end in pairwise(sorted(our_ends.keys() & their_ends.keys())):
        found.append(Group(our_ends[before] + 1, our_ends[end], their_ends[before] + 1, their_ends[end]))
    return found


def ends(tokens: Sequence[bytes], start: int) -> dict[int, int]:
    """{how many bytes there are up to its end: the last token that ends there}, from -1 at `start`."""
    found, end = {start: -1}, start
    for place, token in enumerate(tokens):
        end += len(token)
        found[end] = place
    return found


class TokenBytes:
    """What each token of a tokenizer stands for. Raises UserError for a vocabulary that is written in neither known way."""

    def __init__(self, tokenizer: Any, whose: str) -> None:
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        plain = [token for token in vocabulary if token not in added]
        printed = byte_of_character()
        if all(character in printed for token in plain for character in token):
            read = lambda token: bytes(printed[character] for character in token)  # noqa: E731
        elif "<0x0A>" in vocabulary or any(token.startswith(SPACE_MARK) for token in plain):
            read = of_sentencepiece
        else:
            raise UserError(
                f"train.kl.cross_tokenizer: {whose} writes its tokens neither as GPT-2's bytes nor as SentencePiece, so "
                "that they cannot be told as bytes; take another teacher, or one of the student's family"
            )
        self.of_id = {number: token.encode() if token in added else read(token) for token, number in vocabulary.items()}
        self.fallbacks: set[int] = set()
        if read is of_sentencepiece:
            self.fallbacks = {number for token, number in vocabulary.items() if SINGLE_BYTE.fullmatch(token)}

    def usual_first(self) -> list[tuple[int, bytes]]:
        """(id, bytes) by id, the bytes of SentencePiece last: it writes `7` with them only where it has no token `7`."""
        return sorted(self.of_id.items(), key=lambda item: (item[0] in self.fallbacks, item[0]))

    def of(self, ids: Sequence[int]) -> list[bytes]:
        return [self.of_id[each] for each in ids]


def byte_of_character() -> dict[str, int]:
    """The printable character that stands for each byte in GPT-2's vocabulary (encoder.py of github.com/openai/gpt-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def of_sentencepiece(token: str) -> bytes:
    if found := SINGLE_BYTE.fullmatch(token):
        return bytes([int(found[1], 16)])
    return token.replace(SPACE_MARK, " ").encode()


def shared_ids(student: TokenBytes, teacher: TokenBytes, ends: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Ids of the tokens that both have, the student's and the teacher's, in the order of the student's.

    Tokens are the same that stand for the same bytes; of several of one side the first counts (`usual_first`). `ends`:
    the end tokens of student and teacher, which are one whatever they are called.
    """
    theirs: dict[bytes, int] = {}
    for number, token in teacher.usual_first():
        theirs.setdefault(token, number)
    pairs, seen = {ends[0]: ends[1]}, {ends[1]}
    for number, token in student.usual_first():
        other = theirs.get(token)
        if number not in pairs and other is not None and other not in seen:
            pairs[number] = other
            seen.add(other)
    ordered = sorted(pairs.items())
    return [number for number, _ in ordered], [number for _, number in ordered]
