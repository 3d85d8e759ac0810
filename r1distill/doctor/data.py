"""The dataset of a run, where it is there already: what in it would be taught wrongly, and how long it is."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from r1distill.doctor.findings import Finding, error, ok, warning
from r1distill.doctor.reading import Launch, Model
from r1distill.errors import UserError
from r1distill.prompting import THINK_END, THINK_START
from r1distill.recipe import Recipe
from r1distill.train.batch import count_packs, packed_batch
from r1distill.train.render import check_example, malformed, render_example

TOKENISED = 2000  # examples looked at token by token; of more, as many evenly spaced, and the longest
LONGEST = 100
ROWS_AT_ONCE = 1000
SERIOUS = {"empty", "end token inside", "two beginnings of thinking", "two ends of thinking", "no answer"}
REMEDIES = {
    "empty": "they are left out of the training; look at the run's traces",
    "end token inside": "they are left out of the training, which would else teach to stop in the middle",
    "no beginning of thinking": f"put {THINK_START} back in front (vLLM does not return what was forced)",
    "no end of thinking": "they were cut off while thinking: leave them out (filter.require_thinking)",
    "two beginnings of thinking": "leave them out (filter.require_thinking), or teach one of the two",
    "two ends of thinking": "leave them out (filter.require_thinking)",
    "no answer": "they teach to stop behind the thinking: leave them out",
    "as long as generate.max_tokens": "they were probably cut off; raise generate.max_tokens, which continues them",
    "special token inside": "the student would read it as such, and not as text",
    "twice": "the same prompt and reply weigh double; leave one of them out",
    "of a validation problem": "the validation loss knows them; split by problem",
}


@dataclass
class Texts:
    """Counts over the texts of a dataset, in one pass, and the places of the examples to be tokenised."""

    examples: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    characters: list[int] = field(default_factory=list)  # of the examples of train
    pools: Counter[str] = field(default_factory=Counter)

    def count(self, trap: str, row: dict[str, Any]) -> None:
        self.counts[trap] += 1
        self.first.setdefault(trap, f"{row.get('problem_id')}/{row.get('sample')}")


def check_data(folder: Path, recipe: Recipe, student: Model | None, launch: Launch | None) -> list[Finding]:
    """All of dataset/; without a readable student only its texts. Raises UserError where it is no dataset."""
    if not (folder / "train.parquet").is_file():
        return [ok("data", "dataset", f"{folder} is not there yet: run doctor again after `r1distill filter`")]
    special = set(student.tokenizer.all_special_tokens) if student else set()
    end = student.tokenizer.eos_token if student else None
    texts = read_texts(folder, recipe, special, end)
    findings = [
        (error if trap in SERIOUS else warning)(
            "data", trap, f"{count:,} of {texts.examples:,}, the first {texts.first[trap]}", "none", REMEDIES[trap]
        )
        for trap, count in texts.counts.most_common()
    ]
    findings = findings or [ok("data", "dataset", f"{texts.examples:,} examples, no trap in their texts")]
    findings += check_pools(recipe, texts)
    if student is not None:
        findings += check_lengths(folder, recipe, student, launch, texts)
    return findings


def rows_of(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Raises UserError for a file that has no prompts and replies."""
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if missing := {"prompt", "completion"} - set(names):
            raise UserError(f"{path}: no column {' and '.join(sorted(missing))}; run `r1distill filter` again")
        known = [name for name in columns or names if name in names]
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=known):
            yield from batch.to_pylist()


def read_texts(folder: Path, recipe: Recipe, special: set[str], end: str | None) -> Texts:
    texts = Texts()
    seen: set[bytes] = set()
    held_out: set[str] = set()
    columns = ["prompt", "completion", "problem_id", "sample", "n_tokens", "pools"]
    validation = folder / "validation.parquet"
    for path in (validation, folder / "train.parquet") if validation.is_file() else (folder / "train.parquet",):
        for row in rows_of(path, columns):
            texts.examples += 1
            for trap in traps_of(row["completion"], recipe, special, end, row.get("n_tokens")):
                texts.count(trap, row)
            digest = hashlib.sha256(f"{row['prompt']}\0{row['completion']}".encode()).digest()[:16]
            if digest in seen:
                texts.count("twice", row)
            seen.add(digest)
            if path == validation:
                held_out.add(row["prompt"])
                continue
            if row["prompt"] in held_out:
                texts.count("of a validation problem", row)
            texts.characters.append(len(row["prompt"]) + len(row["completion"]))
            texts.pools.update(row.get("pools") or [])
    return texts


def traps_of(reply: str, recipe: Recipe, special: set[str], end: str | None, n_tokens: int | None) -> Iterator[str]:
    """The traps in one reply. Those of the thinking only where the recipe teaches to think."""
    if not reply.strip():
        yield "empty"
        return
    if end and end in reply:
        yield "end token inside"
    elif any(token in reply for token in special):
        yield "special token inside"
    if recipe.traces is None and n_tokens is not None and n_tokens >= recipe.generate.max_tokens:
        yield "as long as generate.max_tokens"
    begins, ends = reply.count(THINK_START), reply.count(THINK_END)
    if begins > 1:
        yield "two beginnings of thinking"
    if ends > 1:
        yield "two ends of thinking"
    if ends and not begins:
        yield "no beginning of thinking"
    if not ends and (begins or recipe.filter.require_thinking):
        yield "no end of thinking"
    if ends and not reply.rpartition(THINK_END)[2].strip():
        yield "no answer"


def check_pools(recipe: Recipe, texts: Texts) -> list[Finding]:
    """Every pool that [train.curriculum] draws from has to have examples in it."""
    curriculum = recipe.train.curriculum
    if curriculum is None:
        return []
    wanted = sorted({pool for phase in curriculum.phases for pool in phase.mix})
    missing = [pool for pool in wanted if not texts.pools[pool]]
    if missing:
        remedy = "put the pools of each example into the column `pools`, or take [train.curriculum] out"
        return [error("data", "pools", f"none in {', '.join(missing)}", f"examples in {', '.join(wanted)}", remedy)]
    return [ok("data", "pools", ", ".join(f"{texts.pools[pool]:,} {pool}" for pool in wanted))]


def chosen(characters: list[int]) -> set[int]:
    """The numbers of the examples to tokenise: all of a few, else evenly spaced ones and the longest."""
    if len(characters) <= TOKENISED:
        return set(range(len(characters)))
    longest = sorted(range(len(characters)), key=characters.__getitem__)[-LONGEST:]
    return {round(index * len(characters) / TOKENISED) for index in range(TOKENISED)} | set(longest)


def check_lengths(folder: Path, recipe: Recipe, student: Model, launch: Launch | None, texts: Texts) -> list[Finding]:
    """Lengths and loss masks, as training renders them, and the batch that follows from them."""
    settings = recipe.train
    numbers = chosen(texts.characters)
    lengths, faults = [], []
    for number, row in enumerate(rows_of(folder / "train.parquet")):
        if number not in numbers:
            continue
        example = render_example(student.tokenizer, row["prompt"], row["completion"], recipe.generate.prefill)
        lengths.append(len(example.labels))
        if malformed(student.tokenizer, example, row["completion"]) is None:
            try:
                check_example(student.tokenizer, example, row["completion"])
            except UserError as reason:
                faults.append(str(reason))
    of = "" if len(numbers) == len(texts.characters) else f" (of {len(numbers):,} looked at, the longest among them)"
    findings = []
    if faults:
        value = f"{len(faults):,} of {len(lengths):,} are not taught as they should be"
        findings.append(error("data", "loss masks", value, faults[0], "the training would refuse them"))
    else:
        findings.append(ok("data", "loss masks", f"tags, answer and end are taught once in {len(lengths):,}{of}"))
    over = [length for length in lengths if length > settings.max_length]
    longest = f"{max(lengths):,} tokens{of}"
    if over:
        what = {"drop": "dropped", "error": "refused", "truncate": "truncated"}[settings.overlong]
        value = f"{longest}; {len(over):,} of {len(lengths):,} would be {what}"
        limit, remedy = f"train.max_length = {settings.max_length:,}", f"raise it to {max(lengths):,}, or accept that"
        report = error if settings.overlong == "error" or len(over) == len(lengths) else warning
        findings.append(report("data", "longest example", value, limit, remedy))
    else:
        findings.append(ok("data", "longest example", longest))
    return findings + check_batch(
        recipe, launch, [length for length in lengths if length <= settings.max_length], texts
    )


def check_batch(recipe: Recipe, launch: Launch | None, lengths: list[int], texts: Texts) -> list[Finding]:
    """The effective batch in sequences and tokens, packed or not, and whether an epoch has one."""
    if not lengths or launch is None:
        return []
    arguments = recipe.train.args
    rows, accumulation = (
        arguments.get("per_device_train_batch_size", 8),
        arguments.get("gradient_accumulation_steps", 1),
    )
    processes = launch.processes // (launch.context_parallel * launch.sequence_parallel)
    sequences = float(rows * accumulation * processes)
    mean = sum(lengths) / len(lengths)
    note = f"{sequences:.0f} sequences, about {sequences * mean:,.0f} tokens"
    if arguments.get("packing"):
        in_a_pack = len(lengths) / count_packs(lengths, recipe.train.max_length)
        batch = packed_batch(rows, accumulation, processes, in_a_pack)
        note = (
            f"{batch.sequences:.0f} sequences in {batch.rows * batch.accumulation * processes} packs of {in_a_pack:.1f}, "
            f"about {batch.sequences * mean:,.0f} tokens"
        )
        if batch.sequences > 1.5 * sequences:
            limit = f"{sequences:.0f} sequences, of the recipe: {processes} processes take a whole pack each"
            remedy = "fewer processes, a shorter train.max_length, or no packing"
            return [warning("data", "effective batch", note, limit, remedy)]
    if len(texts.characters) < sequences:
        remedy = "more data, or a smaller per_device_train_batch_size × gradient_accumulation_steps"
        return [warning("data", "effective batch", note, f"{len(texts.characters)} examples in all", remedy)]
    return [ok("data", "effective batch", note)]
