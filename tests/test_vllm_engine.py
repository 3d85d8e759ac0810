"""The engine in this process, with a tiny model in the real vLLM: loops, limits, continuation, and what it measures."""

import asyncio
import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model

from r1distill.generate.backend import Begun, Completion, Request, SampleFailed, Sampling
from r1distill.generate.signals import TokenSignals
from r1distill.prompting import encode_prompt, render

pytestmark = pytest.mark.slow
CONTEXT = 256
GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=150, logprobs=5)
WARM = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=40, logprobs=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    tokenizer = tiny_model.make_tokenizer()
    made = tiny_model.make_model(tokenizer)
    return tiny_model.save(made, tokenizer, tmp_path_factory.mktemp("model")), made, tokenizer


@pytest.fixture(scope="module")
def sample(model: tuple[Path, Any, Any]) -> Iterator[Any]:
    """Ask the engine for several requests at once. One loop for all tests: the engine belongs to it."""
    from r1distill.generate.vllm_engine import VllmEngine

    loop = asyncio.new_event_loop()
    engine = VllmEngine(str(model[0]), None, {"max_model_len": CONTEXT, "dtype": "float32"}, logprobs=5)
    loop.run_until_complete(engine.__aenter__())

    def ask(*requests: Request) -> list[Any]:
        async def main() -> list[Any]:
            return await asyncio.gather(*map(engine.sample, requests), return_exceptions=True)

        return loop.run_until_complete(main())

    yield ask
    loop.run_until_complete(engine.__aexit__(None, None, None))
    loop.close()


def request(name: str, sampling: Sampling = GREEDY, message: str = "What is 2 + 3?", **changes: Any) -> Request:
    return Request(name, message, "<think>\n", sampling, seed=7, **changes)


def test_a_loop_is_ended_early_and_its_beginning_is_what_it_would_have_been(sample: Any) -> None:
    ended, whole = sample(request("a", dataclasses.replace(GREEDY, stop_repetition=32)), request("b"))
    assert (ended.finish_reason, whole.finish_reason) == ("repetition", "length")
    assert ended.n_tokens < whole.n_tokens == 150
    assert whole.token_ids[: ended.n_tokens] == ended.token_ids
    assert whole.text.startswith(ended.text)


def test_a_continued_reply_is_what_it_would_have_been_in_one_go(sample: Any) -> None:
    short = dataclasses.replace(GREEDY, max_tokens=30)
    [begun] = sample(request("c", short))
    assert (begun.finish_reason, begun.n_tokens) == ("length", 30)
    rest, whole = sample(request("d", begun=Begun(begun.text, begun.token_ids, 30)), request("e"))
    assert rest.token_ids == whole.token_ids
    assert rest.text == whole.text.rstrip("\ufffd")
    assert rest.n_prompt_tokens == whole.n_prompt_tokens
    np.testing.assert_allclose(
        np.concatenate([begun.signals.lower, rest.signals.lower]), whole.signals.lower, atol=1e-4
    )


def test_the_context_bounds_the_reply_and_an_overlong_prompt_is_named(sample: Any) -> None:
    long = dataclasses.replace(GREEDY, max_tokens=10_000)
    bounded, refused = sample(request("f", long), request("g", long, message="?" * 300))
    assert bounded.finish_reason == "length"
    assert bounded.n_prompt_tokens + bounded.n_tokens == CONTEXT
    assert isinstance(refused, SampleFailed)
    assert "overlong prompt" in str(refused)
    [still] = sample(request("h", long, begun=Begun(bounded.text, bounded.token_ids, bounded.n_tokens)))
    assert (still.text, still.n_tokens, still.finish_reason) == (
        bounded.text.rstrip("\ufffd"),
        CONTEXT - bounded.n_prompt_tokens,
        "length",
    )


def test_the_exact_entropy_lies_between_the_bounds_at_every_token(sample: Any, model: tuple[Path, Any, Any]) -> None:
    """Against a full pass of transformers over the whole vocabulary, in float64."""
    import torch

    _, made, tokenizer = model
    requests = [request(f"i{n}", WARM, message=f"What is {n} + 3?") for n in range(10)]
    requests = [dataclasses.replace(each, seed=n) for n, each in enumerate(requests)]
    for asked, completion in zip(requests, sample(*requests), strict=True):
        assert isinstance(completion, Completion)
        prompt = encode_prompt(tokenizer, render(tokenizer, asked.user_message), asked.prefill)
        ids = torch.tensor([prompt + (completion.token_ids or [])])
        with torch.no_grad():
            logits = made(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
        logprobs = torch.log_softmax(logits, -1)
        exact = -(logprobs.exp() * logprobs).sum(-1).numpy()
        sampled = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0].numpy()
        signals: TokenSignals | None = completion.signals
        assert signals is not None
        assert signals.upper is not None
        assert len(signals) == completion.n_tokens
        np.testing.assert_allclose(signals.sampled, sampled, atol=1e-3)
        assert (signals.lower <= exact + 1e-3).all()
        assert (exact <= signals.upper + 1e-3).all()


def test_the_kept_distributions_are_the_heads_of_the_models_own(sample: Any, model: tuple[Path, Any, Any]) -> None:
    """Those of the model and not of what was sampled from: temperature and top_p change nothing of them."""
    import torch

    _, made, tokenizer = model
    cold = dataclasses.replace(WARM, temperature=0.3, top_p=0.8, max_tokens=70, keep_distributions=True)
    asked = request("j", cold)
    [completion] = sample(asked)
    prompt = encode_prompt(tokenizer, render(tokenizer, asked.user_message), asked.prefill)
    ids = torch.tensor([prompt + completion.token_ids])
    with torch.no_grad():
        exact = torch.log_softmax(made(input_ids=ids).logits[0, len(prompt) - 1 : -1].double(), -1)
    rows = completion.signals.rows
    assert len(rows) == completion.n_tokens
    assert completion.n_tokens > 64  # more than one part of the stream
    for token in range(len(rows)):
        row = rows[token : token + 1]
        assert completion.token_ids[token] in row.ids
        assert 4 <= len(row.ids) <= 6
        np.testing.assert_allclose(row.logprobs, exact[token, row.ids.tolist()].numpy(), atol=1e-3)
        likeliest = exact[token].topk(5).values.numpy()
        np.testing.assert_allclose(row.logprobs[:5], likeliest[: len(row.ids)], atol=1e-3)


def test_an_engine_that_ctrl_c_ended_while_it_was_opened_is_no_error_of_vllm(
    model: tuple[Path, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal goes to its process too, and asyncio keeps ours until the next await."""
    from r1distill.generate import vllm_engine

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("Engine core initialization failed. See root cause above.")

    monkeypatch.setattr(vllm_engine.AsyncLLM, "from_engine_args", interrupted)

    async def opened() -> None:
        async with vllm_engine.VllmEngine(str(model[0]), None, {"max_model_len": CONTEXT}, logprobs=0):
            pass

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(opened())
