"""Where two tokenizers agree: the same reply as the tokens of either, cut at the byte boundaries that both have.

Tokens are taken as the bytes that they stand for, so that a character of four bytes that one tokenizer has in three tokens
and the other in one is no special case. Two ways are known in which a vocabulary writes bytes: that of GPT-2 (Llama 3, Qwen,
SmolLM, DeepSeek), a printable character for each byte, and that of SentencePiece (Llama 2, Mistral, Gemma), with a mark for
the space and `<0x0A>` for a byte that is no character of its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
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
    longer has is in no group. Nor is a token with a space that the other's text has not (`spaces_put_in`): what is likely
    there is written in other tokens. Raises ValueError where neither text ends with the other.
    """
    put_in = spaces_put_in(student, teacher)
    student, teacher = (
        [token[1:] if place in spaces else token for place, token in enumerate(tokens)]
        for tokens, spaces in zip((student, teacher), put_in, strict=True)
    )
    more = sum(map(len, student)) - sum(map(len, teacher))
    our_ends, their_ends = ends(student, max(-more, 0)), ends(teacher, max(more, 0))
    found: list[Group] = []
    for before, end in pairwise(sorted(our_ends.keys() & their_ends.keys())):
        each = Group(our_ends[before] + 1, our_ends[end], their_ends[before] + 1, their_ends[end])
        tokens = range(each.first, each.last + 1), range(each.teacher_first, each.teacher_last + 1)
        if all(spaces.isdisjoint(places) for spaces, places in zip(put_in, tokens, strict=True)):
            found.append(each)
    return found


def spaces_put_in(student: Sequence[bytes], teacher: Sequence[bytes]) -> tuple[set[int], set[int]]:
    """The tokens of either that begin with a space where the other's text has none.

    SentencePiece puts one before every piece that it is given: the reply, and what follows a forced start, which is encoded
    apart. Raises ValueError where the texts, read from the end to the beginning of the shorter, differ in anything else.
    """
    ours, theirs = b"".join(student), b"".join(teacher)
    our_starts, their_starts = starts_of(student), starts_of(teacher)
    found: tuple[set[int], set[int]] = (set(), set())
    while (same := common_suffix(ours, theirs)) < min(len(ours), len(theirs)):
        ours, theirs = ours[: len(ours) - same], theirs[: len(theirs) - same]
        if ours.endswith(b" ") and len(ours) - 1 in our_starts:
            found[0].add(our_starts[len(ours) - 1])
            ours = ours[:-1]
        elif theirs.endswith(b" ") and len(theirs) - 1 in their_starts:
            found[1].add(their_starts[len(theirs) - 1])
            theirs = theirs[:-1]
        else:
            raise ValueError("the two are not of one text")
    return found


def starts_of(tokens: Sequence[bytes]) -> dict[int, int]:
    """{how many bytes there are before it: the token that begins there}."""
    places = accumulate(map(len, tokens[:-1]), initial=0)
    return {start: place for place, (start, token) in enumerate(zip(places, tokens, strict=False)) if token}


def common_suffix(first: bytes, second: bytes) -> int:
    """How many bytes from the end are alike, by halving: replies are long, and differ in few places."""
    least, most = 0, min(len(first), len(second))
    while least < most:
        middle = (least + most + 1) // 2
        if first[len(first) - middle :] == second[len(second) - middle :]:
            least = middle
        else:
            most = middle - 1
    return least


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
        added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
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
        # added ones are read as they stand; but Gemma adds its runs of spaces, as `▁▁`, which are no special tokens
        literal = {token for token, special in added.items() if special or read is not of_sentencepiece}
        self.of_id = {
            number: token.encode() if token in literal else read(token) for token, number in vocabulary.items()
        }
        self.added = {vocabulary[token] for token in added if token in vocabulary}
        self.fallbacks: set[int] = set()
        if read is of_sentencepiece:
            self.fallbacks = {number for token, number in vocabulary.items() if SINGLE_BYTE.fullmatch(token)}

    def usual_first(self) -> list[tuple[int, bytes]]:
        """(id, bytes) by id, but of those that stand for the same bytes the one that is written comes first.

        Added tokens are taken out of a text before all others (GPT-NeoX has its runs of spaces twice), and the bytes of
        SentencePiece are for what has no token: `7` is written with them only where there is no `7`.
        """
        return sorted(
            self.of_id.items(), key=lambda item: (item[0] in self.fallbacks, item[0] not in self.added, item[0])
        )

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

    Tokens are the same that stand for the same bytes; of several the first of either side are (`usual_first`), then the
    second. `ends`: the end tokens of student and teacher, which are one whatever they are called.
    """
    theirs: dict[bytes, list[int]] = {}
    for number, token in teacher.usual_first():
        if number != ends[1]:
            theirs.setdefault(token, []).append(number)
    pairs = {ends[0]: ends[1]}
    for number, token in student.usual_first():
        if number != ends[0] and (others := theirs.get(token)):
            pairs[number] = others.pop(0)
    ordered = sorted(pairs.items())
    return [number for number, _ in ordered], [number for _, number in ordered]
