"""OpenAI-compatible servers (vLLM, SGLang, Ray Serve, hosted ones): several URLs at once, the least loaded first.

Faults are told apart: a request that the server refuses (4xx) fails that sample only, with the server's own words; what
can pass (429, 5xx, time-outs, broken or half responses) is tried again, on another server where there is one, with
exponential back-off; a server that is overloaded or gone, or fails again and again, is left alone until its pause, or
the one it asked for, is over. When no
server has answered a request after all its attempts, or one says that none can succeed (the key, the model, the
account), the run stops: nothing sampled so far is lost.
"""

import asyncio
import json
import os
import random
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx

from r1distill.errors import UserError
from r1distill.generate.backend import Begun, Completion, Request, SampleFailed, overlong
from r1distill.generate.chat import PassingFault, Streamed, completion_of, events, without_surrogates
from r1distill.prompting import of_system

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
SHORTEST_SECRET = 16  # characters; servers without accounts take `EMPTY` or `token-abc123`, which a text may have in it
CHAT_KEYS = ("model", "messages", "add_generation_prompt", "continue_final_message")  # what decides the prompt's tokens
PASSING_STATUS = {408, 409, 425, 429}
OVERLOADED_STATUS = {429, 502, 503, 504}
FAULTS_OF_THE_ILL = 5  # one after another, whatever they are, and the server is left alone for a while
STOPPING_STATUS = {301, 302, 303, 307, 308, 401, 402, 403, 404}  # no request of this run can succeed
TEMPLATE_TOKENS = (
    64  # of a chat template around a message, at most; the messages themselves have no more tokens than bytes
)


@dataclass(slots=True, eq=False)
class Server:
    url: str
    in_flight: int = 0
    rests_until: float = 0.0  # the loop's time, in seconds
    faults_in_a_row: int = 0
    context: int | None = None  # tokens of prompt and reply together, where the server tells
    version: str | None = None  # of vLLM's server


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
        self.timeout_s = timeout_s
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
        answering = [server for server, answer in zip(self.servers, answers, strict=True) if isinstance(answer, list)]
        await asyncio.gather(*map(self.ask_version, answering))
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.client.aclose()

    async def ask_version(self, server: Server) -> None:
        """vLLM's server tells its own; others may not know the question."""
        with suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            response = await self.client.get(f"{server.url.removesuffix('/v1')}/version", timeout=30.0)
            server.version = str(response.json()["version"])[:50]

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
            entries = response.json()["data"]
            lengths = {entry["id"]: entry.get("max_model_len") for entry in entries}
            if isinstance(length := lengths.get(self.model), int):
                server.context = length
            return list(lengths)
        except (ValueError, KeyError, TypeError, AttributeError):
            return []

    def facts(self) -> dict[str, Any]:
        return {
            "name": "server",
            "model": self.model,
            "versions": sorted({each.version or "unknown" for each in self.servers}),
        }

    async def sample(self, request: Request) -> Completion:
        pause = FIRST_PAUSE_S
        failed: list[Server] = []  # one entry for each attempt of this request
        for attempt in range(1, self.attempts + 1):
            server = self.least_loaded(failed)
            if (rest := server.rests_until - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(rest * random.uniform(1.0, 1.1))  # not all at the same moment
            try:
                completion = await self.ask(server, request)
                server.faults_in_a_row = 0
                return with_beginning(completion, request)
            except PassingFault as fault:
                if attempt == self.attempts:
                    raise UserError(
                        f"{server.url}: {fault} (attempt {attempt} of {self.attempts}); "
                        "see to the server and run again: what was sampled is kept"
                    ) from fault
                failed.append(server)
                server.faults_in_a_row += 1
                if fault.for_all or fault.retry_after_s or server.faults_in_a_row >= FAULTS_OF_THE_ILL:
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
            async with asyncio.timeout(self.timeout_s):  # httpx's is for one read, and a stream may drip for ever
                body = self.body(request)
                body["max_tokens"] = await self.room(server, body, request)
                if body["max_tokens"] <= 0 and request.begun:  # it has come to the end of the context
                    return Completion("", "length", 0, 0)
                async with self.client.stream("POST", f"{server.url}/chat/completions", json=body) as response:
                    return await self.read(server, response, request)
        except TimeoutError as error:
            raise PassingFault(f"ReadTimeout: no reply within {self.timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise PassingFault(
                describe(error), for_all=isinstance(error, httpx.ConnectError | httpx.PoolTimeout)
            ) from error
        finally:
            server.in_flight -= 1

    async def read(self, server: Server, response: httpx.Response, request: Request) -> Completion:
        """The completion of a response, whole or streamed. Leaving a stream makes the server end the request."""
        status = response.status_code
        if status != 200:
            await response.aread()
            words = f"status {status}: {self.words_of(response)}"
            if status in PASSING_STATUS or status >= 500:
                raise PassingFault(words, retry_after(response), for_all=status in OVERLOADED_STATUS)
            if status in STOPPING_STATUS:
                raise UserError(f"{server.url}: {words}; check the key, the account, the URL and {self.section}.model")
            raise SampleFailed(f"{server.url}: {words}")
        streamed = Streamed()
        is_whole = not response.headers.get("content-type", "").startswith("text/event-stream")
        try:
            if is_whole:
                await response.aread()
                return self.without_key(completion_of(response.json(), request.sampling.keep_distributions))
            async for event in events(response):
                streamed.add(event, self.words_in)
                if streamed.is_degenerate(request.sampling.stop_repetition):
                    streamed.reason = "repetition"
                    break
            return self.without_key(streamed.completion(request.sampling.keep_distributions))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            words = self.words_of(response) if response.is_stream_consumed and is_whole else str(error)
            raise PassingFault(f"a reply that is not a chat completion: {words}") from error

    async def room(self, server: Server, body: dict[str, Any], request: Request) -> int:
        """How many tokens the reply may have. Raises SampleFailed for a prompt that leaves none.

        The server is asked to count the prompt only where its length in bytes does not settle it.
        """
        wanted = request.sampling.max_tokens - (request.begun.n_tokens if request.begun else 0)
        n_bytes = sum(len(message["content"].encode()) for message in body["messages"])
        if server.context is None or n_bytes + TEMPLATE_TOKENS * len(body["messages"]) + wanted <= server.context:
            return wanted
        question = {key: body[key] for key in CHAT_KEYS if key in body}
        try:
            response = await self.client.post(f"{server.url.removesuffix('/v1')}/tokenize", json=question)
            n_prompt_tokens = int(response.json()["count"])
        except (
            httpx.HTTPError,
            ValueError,
            KeyError,
            TypeError,
        ):  # it does not count: it will say so if it is too long
            return wanted
        left = server.context - n_prompt_tokens
        if left <= 0 and not request.begun:
            raise SampleFailed(overlong(n_prompt_tokens, server.context))
        return min(wanted, left)

    def without_key(self, completion: Completion) -> Completion:
        """A proxy that repeats what it was sent must not bring a secret into the journal. `EMPTY` is none."""
        if len(self.key) < SHORTEST_SECRET:
            return completion
        if self.key not in completion.text and self.key not in (completion.thinking or ""):
            return completion
        thinking = completion.thinking and completion.thinking.replace(self.key, "[key]")
        return replace(completion, text=completion.text.replace(self.key, "[key]"), thinking=thinking, token_ids=None)

    def words_of(self, response: httpx.Response) -> str:
        """The server's own words, in one line of at most 300 characters."""
        try:
            return self.words_in(response.json()) or response.reason_phrase
        except (ValueError, RecursionError):
            return self.words_in(response.text) or response.reason_phrase

    def words_in(self, error: Any) -> str:
        """What an error says. Some servers repeat the key in theirs."""
        try:
            text = error.get("error", error) if isinstance(error, dict) else error
            message = text.get("message", text) if isinstance(text, dict) else text
            words = message if isinstance(message, str) else json.dumps(message)
        except RecursionError:
            words = str(error)
        words = without_surrogates(words.replace(self.key, "[key]") if self.key else words)
        return " ".join(words.split())[:300]

    def body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [*of_system(request.system), {"role": "user", "content": request.user_message}],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        if sampling.keep_distributions:
            body["return_tokens_as_token_ids"] = True
        if begun := request.prefill + so_far(request.begun):
            # the forced start is an unfinished assistant message, which vLLM and SGLang continue
            body["messages"].append({"role": "assistant", "content": begun})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        return body


def with_beginning(completion: Completion, request: Request) -> Completion:
    """With what was there of the reply before. Some servers give it back, most do not."""
    if request.begun is None:
        return completion
    begun = so_far(request.begun)
    text = completion.text.removeprefix(request.prefill + begun)
    token_ids = None
    if completion.token_ids is not None and request.begun.token_ids is not None and not request.begun.forced:
        token_ids = request.begun.token_ids + completion.token_ids
    n_tokens = request.begun.n_tokens + completion.n_tokens
    return replace(completion, text=begun + text, n_tokens=n_tokens, token_ids=token_ids)


def so_far(begun: Begun | None) -> str:
    return begun.text + begun.forced if begun else ""


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
