"""OpenAI-compatible servers (vLLM, SGLang, Ray Serve, hosted ones): several URLs at once, the least loaded first.

Faults are told apart: a request that the server refuses (4xx) fails that sample only, with the server's own words; what
can pass (429, 5xx, time-outs, broken or half responses) is tried again, on another server where there is one, with
exponential back-off; the server that failed is left alone until its pause, or the one it asked for, is over. When no
server has answered a request after all its attempts, or one says that none can succeed (the key, the model, the
account), the run stops: nothing sampled so far is lost.
"""

import asyncio
import json
import os
import random
import re
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np

from r1distill.errors import UserError
from r1distill.generate.backend import Completion, Request, SampleFailed
from r1distill.generate.signals import Signals, summarise
from r1distill.records import FinishReason

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
SHORTEST_SECRET = 16  # characters; servers without accounts take `EMPTY` or `token-abc123`, which a text may have in it
PASSING_STATUS = {408, 409, 425, 429}
STOPPING_STATUS = {301, 302, 303, 307, 308, 401, 402, 403, 404}  # no request of this run can succeed
FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "repetition": "repetition"}
BROKEN_OFF = {None, "abort", "error", "insufficient_system_resource"}


@dataclass(slots=True, eq=False)
class Server:
    url: str
    in_flight: int = 0
    rests_until: float = 0.0  # the loop's time, in seconds


class PassingFault(Exception):
    """Another attempt may succeed. `retry_after_s` is what the server asked for."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerBackend:
    """Samples `model` at `urls` (base URLs that end in /v1).

    The key is read from the environment variable `api_key_env` and goes nowhere but into the request's header.
    `section` of the recipe is where these settings stand; errors name it.
    """

    def __init__(
        self,
        model: str,
        urls: list[str],
        *,
        api_key_env: str,
        timeout_s: float,
        retries: int,
        section: str = "teacher",
    ) -> None:
        if not urls:
            raise UserError(f'a server needs {section}.urls, such as ["http://127.0.0.1:8000/v1"]')
        for url in urls:
            if not is_url(url):
                raise UserError(f"{section}.urls: {url} is not a URL; write it as http://HOST:PORT/v1")
        self.section = section
        self.model = model
        self.servers = [Server(url.rstrip("/")) for url in urls]
        self.attempts = retries + 1
        self.key = os.environ.get(api_key_env, "").strip()
        if not (self.key.isascii() and self.key.isprintable()):  # httpx would put the whole header into its error
            raise UserError(f"the variable {api_key_env} ({section}.api_key_env) holds characters that no key has")
        self.client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 30.0)),
            limits=httpx.Limits(max_connections=None),
        )

    async def __aenter__(self) -> "ServerBackend":
        """Ask every server for its models, so that a wrong URL or model is known before the work begins."""
        answers = await asyncio.gather(*(self.served_models(server) for server in self.servers))
        faults = [answer for answer in answers if isinstance(answer, str)]
        if len(faults) == len(self.servers):
            await self.client.aclose()
            raise UserError(
                f"no server answers: {'; '.join(faults)}; start one (vllm serve {self.model}) "
                f"or correct {self.section}.urls"
            )
        for server, answer in zip(self.servers, answers, strict=True):
            if isinstance(answer, list) and answer and self.model not in answer:
                await self.client.aclose()
                raise UserError(
                    f"{server.url} does not serve {self.model}; it serves {', '.join(answer[:20])}: "
                    f"set {self.section}.model"
                )
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.client.aclose()

    async def served_models(self, server: Server) -> list[str] | str:
        """The models' names ([] where the server does not tell), or the fault in words."""
        try:
            response = await self.client.get(f"{server.url}/models", timeout=30.0)
        except httpx.HTTPError as error:
            self.rest(server, FIRST_PAUSE_S)
            return f"{server.url}: {describe(error)}"
        if response.status_code in (401, 403):
            variable = f"the variable that {self.section}.api_key_env names"
            return f"{server.url}: {response.status_code}, a valid key is needed in {variable}"
        try:
            return [entry["id"] for entry in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return []

    async def sample(self, request: Request) -> Completion:
        pause = FIRST_PAUSE_S
        failed: list[Server] = []  # one entry for each attempt of this request
        for attempt in range(1, self.attempts + 1):
            server = self.least_loaded(failed)
            if (rest := server.rests_until - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(rest * random.uniform(1.0, 1.1))  # not all at the same moment
            try:
                return await self.ask(server, request)
            except PassingFault as fault:
                if attempt == self.attempts:
                    raise UserError(
                        f"{server.url}: {fault} (attempt {attempt} of {self.attempts}); "
                        "see to the server and run again: what was sampled is kept"
                    ) from fault
                failed.append(server)
                self.rest(server, max(fault.retry_after_s, FIRST_PAUSE_S))
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE_S)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def least_loaded(self, failed: list[Server]) -> Server:
        """Of the servers that do not rest, one that has `failed` least, with the fewest requests; else the first to wake."""
        now = asyncio.get_running_loop().time()
        awake = [server for server in self.servers if server.rests_until <= now]
        if awake:
            return min(awake, key=lambda server: (failed.count(server), server.in_flight))
        return min(self.servers, key=lambda server: server.rests_until)

    def rest(self, server: Server, seconds: float) -> None:
        server.rests_until = max(server.rests_until, asyncio.get_running_loop().time() + seconds)

    async def ask(self, server: Server, request: Request) -> Completion:
        server.in_flight += 1
        try:
            response = await self.client.post(f"{server.url}/chat/completions", json=self.body(request))
        except httpx.HTTPError as error:
            raise PassingFault(describe(error)) from error
        finally:
            server.in_flight -= 1
        status = response.status_code
        words = f"status {status}: {self.words_of(response)}" if status != 200 else ""
        if status in PASSING_STATUS or status >= 500:
            raise PassingFault(words, retry_after(response))
        if status in STOPPING_STATUS:
            raise UserError(f"{server.url}: {words}; check the key, the account, the URL and {self.section}.model")
        if status != 200:
            raise SampleFailed(f"{server.url}: {words}")
        try:
            return self.without_key(completion_of(response.json()))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise PassingFault(f"a reply that is not a chat completion: {self.words_of(response)}") from error

    def without_key(self, completion: Completion) -> Completion:
        """A proxy that repeats what it was sent must not bring a secret into the journal. `EMPTY` is none."""
        if len(self.key) < SHORTEST_SECRET:
            return completion
        thinking = completion.thinking and completion.thinking.replace(self.key, "[key]")
        return replace(completion, text=completion.text.replace(self.key, "[key]"), thinking=thinking)

    def words_of(self, response: httpx.Response) -> str:
        """The server's own words, in one line of at most 300 characters. Some servers repeat the key in theirs."""
        try:
            error = response.json()
            text = error.get("error", error) if isinstance(error, dict) else error
            message = text.get("message", text) if isinstance(text, dict) else text
            words = message if isinstance(message, str) else json.dumps(message)
        except (ValueError, RecursionError):
            words = response.text
        words = without_surrogates(words.replace(self.key, "[key]") if self.key else words)
        return " ".join(words.split())[:300] or response.reason_phrase

    def body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": request.user_message}],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request.seed,
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        if request.prefill:
            # the forced start is an unfinished assistant message, which vLLM and SGLang continue
            body["messages"].append({"role": "assistant", "content": request.prefill})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return body


def completion_of(reply: dict[str, Any]) -> Completion:
    choice = reply["choices"][0]
    message = choice["message"]
    reason = choice["finish_reason"]
    if reason in BROKEN_OFF:
        raise PassingFault(f"the reply was broken off: finish_reason {reason}")
    if reason not in FINISH_REASONS:  # content_filter, tool_calls, …
        raise SampleFailed(f"finish_reason {reason}")
    usage = reply.get("usage") or {}
    content = (choice.get("logprobs") or {}).get("content") or []
    # servers with a reasoning parser split the thinking off, under one of two names
    thinking = message.get("reasoning_content") or message.get("reasoning")
    return Completion(
        text=without_surrogates(message.get("content") or ""),
        finish_reason=FINISH_REASONS[reason],
        n_prompt_tokens=int(usage.get("prompt_tokens") or 0),
        n_tokens=int(usage.get("completion_tokens") or len(content)),
        thinking=without_surrogates(thinking) if thinking else None,
        signals=signals_of(content),
    )


def signals_of(content: list[dict[str, Any]]) -> Signals | None:
    """From OpenAI's form: for each token its logprob and those of the likeliest ones, whose number may vary.

    vLLM lists a sampled token that is not among the top k in place of the k-th. The tail may then hold likelier tokens
    than the last of the list, so one that is the sampled token is left out.
    """
    content = [token for token in content if token.get("top_logprobs")]
    if not content:
        return None
    sampled = np.array([token["logprob"] for token in content], dtype=np.float64)
    top = np.full((len(content), max(len(token["top_logprobs"]) for token in content)), -np.inf)
    for row, token in zip(top, content, strict=True):
        logprobs = sorted((float(entry["logprob"]) for entry in token["top_logprobs"]), reverse=True)
        if len(logprobs) > 1 and logprobs[-1] == token["logprob"]:
            logprobs.pop()
        row[: len(logprobs)] = logprobs
    return summarise(sampled, top, vocabulary=None)


def describe(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def retry_after(response: httpx.Response) -> float:
    try:
        seconds = float(response.headers.get("retry-after", 0))
    except ValueError:  # a date: the usual pause has to do
        return 0.0
    return min(seconds, LONGEST_PAUSE_S) if seconds > 0 else 0.0


def is_url(text: str) -> bool:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def without_surrogates(text: str) -> str:
    """JSON may hold half a character (`"\\ud800"`), which neither a journal nor Parquet can."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
