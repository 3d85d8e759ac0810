"""What is scored: the kept traces as the tokens that the teacher read and said."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1distill.generate.distributions import SparseRows
from r1distill.prompting import encode_prompt, load_prompt, render
from r1distill.records import Decision, Problem, Trace
from r1distill.run import Run
from r1distill.store import read_records
from r1distill.train.render import sampled_or_encoded


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """`prompt`: the ids up to where the reply was sampled, its forced start included; the reply is `trace.token_ids`."""

    trace: Trace
    prompt: list[int]

    @property
    def reply(self) -> list[int]:
        return self.trace.token_ids or []

    def __len__(self) -> int:
        return len(self.prompt) + len(self.reply)


class Scores(NamedTuple):
    """The distributions that predict the T tokens of a reply.

    From whole ones also `power_sums (T, G)`, the log sum p^(1/temperature) at each of G temperatures, and `entropies (T,)`
    in nats.
    """

    rows: SparseRows
    power_sums: NDArray[np.float32] | None = None
    entropies: NDArray[np.float32] | None = None


# takes what was scored together, in the order of the items; None for one that the model has no room for
Keep = Callable[[list[tuple[Item, Scores | None]]], None]
Score = Callable[[Iterable[Item], Keep], None]


def kept_keys(run: Run) -> set[tuple[str, int]]:
    """(problem_id, sample) of the traces that the filter kept."""
    return {(each.problem_id, each.sample) for each in read_records(run.decisions, Decision) if each.keep}


def kept_items(run: Run, keys: set[tuple[str, int]], tokenizer: Any, has: Callable[[Trace], bool]) -> Iterator[Item]:
    """The traces of these keys in the order of the run's files, without those that the cache `has`."""
    messages: dict[str, str] = {}
    settings = run.recipe.generate
    prompt = load_prompt(settings.prompt, settings.prefill)
    for problem in read_records(run.problems, Problem):
        messages[problem.id] = prompt.user_message(problem)
    for trace in read_records(run.traces, Trace):
        if (trace.problem_id, trace.sample) in keys and not has(trace):
            item = item_of(tokenizer, messages[trace.problem_id], prompt.prefill, trace)
            if item.trace is trace or not has(item.trace):
                yield item


def item_of(tokenizer: Any, user_message: str, prefill: str, trace: Trace) -> Item:
    """The prompt is rendered as for sampling; the tokens are the sampled ones wherever they are known."""
    head, reply = sampled_or_encoded(tokenizer, trace.text, prefill, trace.token_ids)
    if reply is not trace.token_ids:
        trace = dataclasses.replace(trace, token_ids=reply)
    return Item(trace, encode_prompt(tokenizer, render(tokenizer, user_message), head))
