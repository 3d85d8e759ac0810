"""The columns of tags.parquet, and those of them that one trace alone gives.

A column is measured and decides nothing: what is dropped, and from which value on, is the recipe's.
"""

import math
from typing import Any

import pyarrow as pa

from r1distill.filter.measures.format import format_of
from r1distill.filter.measures.identity import self_identification
from r1distill.filter.measures.language import languages_of
from r1distill.filter.measures.personal import personal_data
from r1distill.filter.measures.program import program_of
from r1distill.filter.measures.refusal import is_refusal
from r1distill.filter.measures.repetition import repetition_of
from r1distill.records import Problem, Trace, Verdict

SIGNALS = {
    "mean_entropy_nats": "mean token entropy, lower bound, nats, at temperature 1",
    "mean_entropy_upper_nats": "the same, upper bound",
    "p95_entropy_nats": "95th percentile of the token entropy, lower bound, nats",
    "high_entropy_share": "share of tokens whose entropy is over 0.672 nats, where reasoning forks",
    "mean_logprob": "mean logprob of the sampled tokens, nats, at temperature 1",
}
PARTS = {"": "", "thinking_": " (the thinking alone)", "answer_": " (the answer alone)"}

# name → (type, what it says), of what `trace_tags` gives
TRACE_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "problem_id": (pa.string(), "id of the problem"),
    "sample": (pa.int64(), "number of the sample of this problem, from 0"),
    "source": (pa.string(), "where the problem is from"),
    "kind": (pa.string(), "math | code | choice | open"),
    "finish_reason": (pa.string(), "stop | length | repetition | error"),
    "outcome": (pa.string(), "what the verifier says of it"),
    "n_tokens": (pa.int64(), "tokens of the reply, by the teacher's tokenizer"),
    "n_characters": (pa.int64(), "characters of the reply"),
    "n_thinking_characters": (pa.int64(), "characters between the tags; 0 without thinking"),
    "n_answer_characters": (pa.int64(), "characters behind the tags"),
    "format": (pa.string(), "ok, or what is wrong with the form of the reply, in one word"),
    **{
        f"{prefix}{name}": (pa.float64(), f"{description}{part}")
        for prefix, part in PARTS.items()
        for name, description in SIGNALS.items()
    },
    "longest_repeat": (pa.int64(), "words of the longest passage that stands twice; in a loop the two overlap"),
    "repeated_share": (pa.float64(), "share of the words that stand in 8-grams of words which occur three times or more"),
    "compression_ratio": (pa.float64(), "bytes of the text over those of its deflate stream; grows with the length"),
    "loop_words": (pa.int64(), "words of the longest loop: a block at least four times in a row, one word in ten may differ"),
    "loop_at_end": (pa.bool_(), "whether the reply or its thinking ends in a loop"),
    "foreign_script_share": (pa.float64(), "share of the letters of prose that are of scripts which the problem does not use"),
    "problem_language": (pa.string(), "ISO 639-1; empty for unknown"),
    "thinking_language": (pa.string(), "ISO 639-1 of most of the thinking; empty for unknown"),
    "answer_language": (pa.string(), "ISO 639-1; empty for unknown"),
    "language_mixed": (pa.bool_(), "whether passages of the thinking are in another language than the rest and the problem"),
    "has_code": (pa.bool_(), "whether there is program code"),
    "code_fenced": (pa.bool_(), "whether the code stands between fences that are closed"),
    "refusal": (pa.bool_(), "whether the answer begins with a refusal"),
    "self_identification": (pa.string(), "who the model says it is; empty for nothing"),
    "pii": (pa.list_(pa.string()), "kinds of strings like personal data: email, phone, key, ip, address"),
}  # fmt: skip

# of the whole set: measured over columns, by other modules
SET_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "entropy_z": (pa.float64(), "robust z-score of mean_entropy_nats within source and length bin"),
    "student_perplexity": (pa.float64(), "perplexity of the reply under the student before training"),
    "n_samples": (pa.int64(), "traces of its problem"),
    "pass_rate": (pa.float64(), "share of its problem's judged samples that are correct"),
    "consistency": (pa.float64(), "share of its problem's samples whose answer equals its own"),
    "duplicate_of": (pa.string(), "problem_id/sample of the trace that it repeats; empty for none"),
    "duplicate_similarity": (pa.float64(), "how similar the two are, from 0 to 1"),
    "problem_duplicate_of": (pa.string(), "id of the problem that its problem repeats; empty for none"),
    "contaminated_by": (pa.string(), "the benchmark that its problem is of; empty for none"),
    "contamination_method": (pa.string(), "exact | ngram | fuzzy | renumbered"),
    "contamination_span": (pa.string(), "the matching words, at most 200 characters"),
    "freshness": (pa.float64(), "term of the quality score, from 0 to 1"),
    "completeness": (pa.float64(), "term of the quality score, from 0 to 1"),
    "diversity": (pa.float64(), "term of the quality score, from 0 to 1"),
    "quality": (pa.float64(), "weighted sum of the terms that were measured"),
    "cluster": (pa.int64(), "number of its cluster of similar problems; -1 for none"),
    "cluster_size": (pa.int64(), "traces of that cluster"),
    "pools": (pa.list_(pa.string()), "pools that the trainer's curriculum may draw it from"),
}


def schema_of_tags() -> pa.Schema:
    """Trace columns, then those of the set; each with its description as metadata. null is "not measured"."""
    return pa.schema(
        pa.field(name, type_, metadata={"description": description})
        for name, (type_, description) in (TRACE_COLUMNS | SET_COLUMNS).items()
    )


TAGS = schema_of_tags()


def trace_tags(problem: Problem, trace: Trace, verdict: Verdict) -> dict[str, Any]:
    """The columns TRACE_COLUMNS of one trace. Pure, so that any executor can map it over batches.

    A trace without text (a request that failed) has no measures of text: null.
    """
    tags: dict[str, Any] = dict.fromkeys(TRACE_COLUMNS)
    thinking = trace.thinking or ""
    tags |= {
        "problem_id": trace.problem_id,
        "sample": trace.sample,
        "source": problem.source,
        "kind": problem.kind,
        "finish_reason": trace.finish_reason,
        "outcome": verdict.outcome,
        "n_tokens": trace.n_tokens or None,  # 0 where nobody counted them
        "n_characters": len(trace.text),
        "n_thinking_characters": len(thinking),
        "n_answer_characters": len(trace.answer),
        "format": format_of(trace.text),
    }
    tags |= signal_tags(trace)
    if trace.text.strip():
        tags |= text_tags(problem.problem, trace.text, thinking, trace.answer)
    return tags


def signal_tags(trace: Trace) -> dict[str, float | None]:
    """Entropies and logprobs as they were measured while sampling; NaN is not measured."""
    parts = {"": trace, "thinking_": trace.thinking_signals, "answer_": trace.answer_signals}
    return {
        f"{prefix}{name}": finite(getattr(part, name) if isinstance(part, Trace) else (part or {}).get(name))
        for prefix, part in parts.items()
        for name in SIGNALS
    }


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def text_tags(question: str, text: str, thinking: str, answer: str) -> dict[str, Any]:
    return {
        **repetition_of(thinking, answer)._asdict(),
        **languages_of(question, thinking, answer)._asdict(),
        **program_of(text, answer)._asdict(),
        "refusal": is_refusal(answer),
        "self_identification": self_identification(text, question),
        "pii": personal_data(text, question),
    }
