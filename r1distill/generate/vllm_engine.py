"""vLLM's asynchronous engine in this process: any engine argument, one request a sample, prefix caching on."""

import asyncio
import dataclasses
import difflib
import os
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from transformers import AutoTokenizer
from vllm import SamplingParams
from vllm import __version__ as vllm_version
from vllm.config.lora import MaxLoRARanks
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.logprobs import FlatLogprobs
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from r1distill.errors import UserError
from r1distill.generate.backend import Completion, Request, SampleFailed, overlong
from r1distill.generate.distributions import SparseRows, sparse_rows
from r1distill.generate.engine_arguments import engine_arguments, prepare_for_cpu
from r1distill.generate.repetition import is_degenerate
from r1distill.generate.signals import TokenSignals, joined, measure
from r1distill.process import children_die_with_me
from r1distill.prompting import THINK_END, encode, encode_prompt, render, template_sha256
from r1distill.records import FinishReason
from r1distill.store import read_json

DEAD = "vLLM's engine died; see the run's logs/ for why, then run again: nothing is lost"
SHUTDOWN_S = 1.0
STREAM_INTERVAL = 64  # tokens of a request after which it is looked at; each look costs the engine's client a little


class VllmEngine:
    """One model, loaded when the context is entered. Raises UserError for arguments that vLLM does not know.

    `adapter`: the folder of a LoRA adapter that is put over it, with the tokenizer in there where it has one.
    """

    def __init__(
        self, model: str, revision: str | None, engine: dict[str, Any], logprobs: int, adapter: Path | None = None
    ) -> None:
        check_engine_arguments("engine", engine)
        self.arguments = {"model": model, "revision": revision, **engine_arguments(engine, logprobs)}
        self.adapter = None
        if adapter is not None:
            self.adapter = LoRARequest(adapter.name, 1, str(adapter))
            rank = read_json(adapter / "adapter_config.json")["r"]
            self.arguments = {"enable_lora": True, "max_lora_rank": least_rank(rank), **self.arguments}
            if (adapter / "tokenizer_config.json").is_file():
                self.arguments = {"tokenizer": str(adapter), **self.arguments}

    async def __aenter__(self) -> "VllmEngine":
        children_die_with_me()
        if current_platform.is_cpu():
            prepare_for_cpu(self.arguments)
        try:
            self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**self.arguments))
        except (ValueError, OSError, RuntimeError) as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from error  # Ctrl-C: asyncio keeps it for later, and it ended the engine's process
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"vLLM could not open {self.arguments['model']}: {reason}; its log is in the run's logs/"
            ) from error
        self.tokenizer = AutoTokenizer.from_pretrained(
            self.arguments.get("tokenizer") or self.arguments["model"],
            revision=None if self.arguments.get("tokenizer") else self.arguments["revision"],
            trust_remote_code=self.arguments.get("trust_remote_code", False),
        )
        self.vocabulary = self.engine.model_config.get_vocab_size()
        self.context = self.engine.model_config.max_model_len
        self.think_end = encode(self.tokenizer, THINK_END)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        # on Ctrl-C nobody waits for it to finish its step: what was sampled is in the journal
        self.engine.shutdown(timeout=None if exception[0] is None else SHUTDOWN_S)
        del self.engine  # its __del__ would run when the interpreter is half gone, and say so on the terminal

    def facts(self) -> dict[str, Any]:
        config = self.engine.vllm_config
        parallel, model = config.parallel_config, config.model_config
        return {
            "name": "vllm",
            "version": vllm_version,
            "dtype": str(model.dtype).removeprefix("torch."),
            "quantization": model.quantization,
            "max_model_len": model.max_model_len,
            "tensor_parallel_size": parallel.tensor_parallel_size,
            "pipeline_parallel_size": parallel.pipeline_parallel_size,
            "data_parallel_size": parallel.data_parallel_size,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "enforce_eager": model.enforce_eager,
            "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1",
            "chat_template_sha256": template_sha256(self.tokenizer),
            "adapter": self.adapter.lora_path if self.adapter else None,
        }

    async def sample(self, request: Request) -> Completion:
        if request.raw:  # with the tokens that this tokenizer puts around a text, such as its beginning
            prompt = [*self.tokenizer(request.user_message)["input_ids"], *encode(self.tokenizer, request.prefill)]
        else:
            rendered = render(self.tokenizer, request.user_message, request.system)
            prompt = encode_prompt(self.tokenizer, rendered, request.prefill)
        begun: list[int] = []
        if request.begun:
            begun = [*(request.begun.token_ids or []), *encode(self.tokenizer, request.begun.forced)]
        reply = Reply(ids=list(begun))
        room = min(request.sampling.max_tokens - len(begun), self.context - len(prompt) - len(begun))
        if room > 0:
            await self.stream([*prompt, *begun], room, request, reply)
        elif not begun:
            raise SampleFailed(overlong(len(prompt), self.context))
        text = "".join(reply.text)
        if begun:  # the cut may have gone through a character; half of one at the end is left out, as the engine does
            text = self.tokenizer.decode(reply.ids, skip_special_tokens=False).rstrip("\ufffd")
        return Completion(
            text=self.text_of(reply.ids, text),
            finish_reason=reply.finish_reason,
            n_prompt_tokens=len(prompt),
            n_tokens=len(reply.ids),
            token_ids=reply.ids,
            signals=joined(reply.signals),
            n_thinking_tokens=after_last(reply.ids, self.think_end),
        )

    async def stream(self, prompt: list[int], max_tokens: int, request: Request, reply: "Reply") -> None:
        """Fill `reply`, and abort the request where it falls into a loop."""
        sampling = request.sampling
        parameters = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=max_tokens,
            seed=request.seed,
            logprobs=sampling.logprobs or None,
            flat_logprobs=True,
            output_kind=RequestOutputKind.DELTA,
            stream_interval=STREAM_INTERVAL,
            # `</think>` is a special token in some vocabularies; the end token is left out of the text either way
            skip_special_tokens=False,
        )
        reason = None
        try:
            async with aclosing(
                self.engine.generate({"prompt_token_ids": prompt}, parameters, request.name, lora_request=self.adapter)
            ) as outputs:
                async for output in outputs:
                    [part] = output.outputs
                    measured = signals_of(part.logprobs, self.vocabulary, sampling.keep_distributions)
                    reply.add(part.text, part.token_ids, measured)
                    reason = part.finish_reason
                    if (
                        reason is None
                        and sampling.stop_repetition
                        and is_degenerate(reply.ids, sampling.stop_repetition)
                    ):
                        reason = "repetition"
                        break  # which aborts the request
        except EngineDeadError as error:
            raise UserError(DEAD) from error
        except ValueError as error:  # a parameter is out of range for the model
            raise SampleFailed(str(error)) from error
        if reason not in ("stop", "length", "repetition"):
            raise SampleFailed(f"vLLM ended the request with {reason}")
        reply.finish_reason = reason

    async def score(self, name: str, prompt: list[int], reply: list[int], k: int) -> SparseRows:
        """The distributions that predict the tokens of `reply` behind `prompt`, of the model's k likeliest tokens each.

        Raises SampleFailed where the context has no room for both, and for the one token that vLLM then insists on.
        """
        ids = [*prompt, *reply]
        if len(ids) >= self.context:
            raise SampleFailed(overlong(len(ids), self.context))
        parameters = SamplingParams(
            temperature=0.0, max_tokens=1, prompt_logprobs=k, flat_logprobs=True, detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip
        try:
            async with aclosing(self.engine.generate({"prompt_token_ids": ids}, parameters, name)) as outputs:
                [found] = [output.prompt_logprobs async for output in outputs]
        except EngineDeadError as error:
            raise UserError(DEAD) from error
        assert isinstance(found, FlatLogprobs)
        # of the first token there are none; of each other its own, then those of the top k by rank
        first = found.start_indices[-len(reply)]
        top_ids = np.asarray(found.token_ids[first:]).reshape(len(reply), -1)
        logprobs = np.asarray(found.logprobs[first:], dtype=np.float32).reshape(top_ids.shape)
        return sparse_rows(top_ids[:, 1:], logprobs[:, 1:], top_ids[:, 0], logprobs[:, 0])

    def text_of(self, ids: list[int], text: str) -> str:
        """The reply without the token that ended it, which `skip_special_tokens = False` may leave at its end."""
        for token in self.tokenizer.convert_ids_to_tokens(ids[-1:]):
            if ids[-1] in self.tokenizer.all_special_ids and text.endswith(token):
                return text.removesuffix(token)
        return text


def least_rank(rank: int) -> int:
    """The least of vLLM's ranks that has room for this one."""
    ranks = get_args(MaxLoRARanks)
    fitting = [each for each in ranks if each >= rank]
    if not fitting:
        raise UserError(f"the adapter has rank {rank}, and vLLM takes at most {max(ranks)}; merge it into its model")
    return min(fitting)


@dataclass
class Reply:
    """What has come of one request so far."""

    ids: list[int]
    text: list[str] = field(default_factory=list)
    signals: list[TokenSignals] = field(default_factory=list)
    finish_reason: FinishReason = "length"

    def add(self, text: str, ids: Sequence[int], signals: TokenSignals | None) -> None:
        self.text.append(text)
        self.ids.extend(ids)
        if signals is not None:
            self.signals.append(signals)


def after_last(ids: list[int], part: list[int]) -> int | None:
    """How many ids there are up to the end of the last `part` in them."""
    for end in range(len(ids), len(part) - 1, -1):
        if ids[end - 1] == part[-1] and ids[end - len(part) : end] == part:
            return end
    return None


def check_engine_arguments(section: str, engine: dict[str, Any]) -> None:
    """Raise UserError for the first option of a section of the recipe that vLLM does not have."""
    known = [field.name for field in dataclasses.fields(AsyncEngineArgs)]
    for key in engine:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else "; see vLLM's engine arguments"
            raise UserError(f"{section}.{key}: vLLM has no such engine argument{hint}")


def signals_of(logprobs: Any, vocabulary: int, keep_rows: bool) -> TokenSignals | None:
    """The signals of a part of a reply. At each position vLLM gives the sampled token's logprob, then the top k by rank."""
    if not isinstance(logprobs, FlatLogprobs) or not logprobs.start_indices:
        return None
    table = np.asarray(logprobs.logprobs, dtype=np.float32).reshape(len(logprobs.start_indices), -1)
    if not keep_rows:
        return measure(table[:, 0], table[:, 1:], vocabulary)
    ids = np.asarray(logprobs.token_ids).reshape(table.shape)
    return measure(table[:, 0], table[:, 1:], vocabulary, (ids[:, 0], ids[:, 1:]))
