"""Bounds of the token entropy from the top k, against the exact entropy over the whole vocabulary.

    python scripts/check_entropy.py RUN [--traces 200]        # a run folder with traces and their token ids

Every token of the traces is passed through transformers again with the model that wrote them; its distribution in float64
is the exact one. From its k largest logprobs, in float32 as an engine gives them, the bounds are computed as while
sampling. Prints for each k how often the exact entropy lies outside, and the mean width; and how far the means that
were measured while sampling lie from the exact ones. Ends with 1 where a bound fails.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1distill.generate.signals import entropy_bounds
from r1distill.models import resolve_model
from r1distill.prompting import encode_prompt, load_prompt, render
from r1distill.records import Problem, Trace
from r1distill.run import open_run
from r1distill.store import read_records
from r1distill.train.teacher_cache import TeacherCache

TOLERANCE_NATS = 1e-6  # of float32 logprobs
KS = (1, 2, 5, 10, 20, 50, 100, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--traces", type=int, default=200)
    options = parser.parse_args()
    run = open_run(options.run)
    name = resolve_model(run.recipe.teacher.model, "teacher.model")
    tokenizer = AutoTokenizer.from_pretrained(name, revision=run.recipe.teacher.revision)
    model = AutoModelForCausalLM.from_pretrained(name, revision=run.recipe.teacher.revision, dtype=torch.float32)
    prompt = load_prompt(run.recipe.generate.prompt, run.recipe.generate.prefill)
    problems = {problem.id: problem for problem in read_records(run.problems, Problem)}
    cache = TeacherCache(run.teacher_cache) if run.recipe.generate.keep_distributions else None
    outside, widths, tokens, means, errors = dict.fromkeys(KS, 0), dict.fromkeys(KS, 0.0), 0, [], []
    traces = [trace for trace in read_records(run.traces, Trace) if trace.token_ids][: options.traces]
    for trace in traces:
        rendered = render(tokenizer, prompt.user_message(problems[trace.problem_id]))
        before = encode_prompt(tokenizer, rendered, prompt.prefill)
        ids = torch.tensor([before + (trace.token_ids or [])])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(before) - 1 : -1].double()
        logprobs = torch.log_softmax(logits, -1)
        exact = -(logprobs.exp() * logprobs).sum(-1).numpy()
        top = torch.topk(logprobs, max(KS), dim=-1).values.float().numpy()
        tokens += len(exact)
        for k in KS:
            lower, upper = entropy_bounds(top[:, :k], logprobs.shape[1])
            assert upper is not None
            outside[k] += int(((lower > exact + TOLERANCE_NATS) | (exact > upper + TOLERANCE_NATS)).sum())
            widths[k] += float((upper - lower).sum())
        if trace.mean_entropy_nats is not None and trace.mean_entropy_upper_nats is not None:
            means.append((trace.mean_entropy_nats, float(exact.mean()), trace.mean_entropy_upper_nats))
        if cache and (rows := cache.rows(trace)):
            token = np.repeat(np.arange(len(rows)), rows.lengths)
            errors.append(np.abs(logprobs.numpy()[token, rows.ids] - rows.logprobs) * np.exp(rows.logprobs))
    print(f"{len(traces)} traces, {tokens:,} tokens, a vocabulary of {model.config.vocab_size:,}")
    for k in KS:
        print(f"k = {k:4}: {outside[k]} outside, mean width {widths[k] / tokens:.5f} nats")
    if means:
        lower, exact, upper = np.array(means).T
        inside = int(((lower <= exact + 1e-3) & (exact <= upper + 1e-3)).sum())
        print(
            f"measured while sampling: {inside} of {len(means)} exact means within the bounds (1e-3 for another kernel); "
            f"mean width {float((upper - lower).mean()):.5f}, lower one at most {float((exact - lower).max()):.5f} below"
        )
    if cache:
        each = np.concatenate(errors) if errors else np.zeros(1)
        print(
            f"kept distributions of {len(errors)} traces, {cache.manifest['mean_entries_a_token']:.1f} entries and "
            f"{cache.manifest['mean_mass_a_token']:.5f} of the mass a token: probabilities off by {each.mean():.1e} in "
            f"the mean, {each.max():.1e} at most"
        )
    sys.exit(1 if any(outside.values()) else 0)


if __name__ == "__main__":
    main()
