"""The server backend against a scripted server: real sockets, and every fault that a server has shown."""

import asyncio
import dataclasses
import itertools
import json
import math
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Reply, ScriptedServer, chat, fault, stream

from r1distill.errors import UserError
from r1distill.generate import server as module
from r1distill.generate.backend import Begun, Completion, Request, SampleFailed, Sampling
from r1distill.generate.journal import Journal
from r1distill.generate.plan import Plan
from r1distill.generate.sampler import Work, sample_all
from r1distill.generate.server import Server, ServerBackend
from r1distill.prompting import Prompt
from r1distill.records import Problem, Trace

SAMPLING = Sampling(temperature=0.6, top_p=0.95, top_k=0, max_tokens=100, logprobs=0)
REQUEST = Request("p-0", "What is 2 + 2?", "", SAMPLING, seed=17)
KEY = "sk-very-secret-0123456789"
FIRST_PAUSE_S = 0.02


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", FIRST_PAUSE_S)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.5)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("TEST_KEY", raising=False)


def backend_of(*servers: ScriptedServer | str, retries: int = 3, timeout_s: float = 5.0) -> ServerBackend:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return ServerBackend("teacher", urls, api_key_env="TEST_KEY", timeout_s=timeout_s, retries=retries)


def ask(backend: ServerBackend, *requests: Request) -> list[Completion | BaseException]:
    """The requests all at once. Exceptions of single requests are among the results."""

    async def main() -> list[Completion | BaseException]:
        async with backend:
            return await asyncio.gather(*map(backend.sample, requests), return_exceptions=True)

    return asyncio.run(main())


def ask_one(*servers: ScriptedServer | str, request: Request = REQUEST, **settings: Any) -> Completion:
    [result] = ask(backend_of(*servers, **settings), request)
    if isinstance(result, BaseException):
        raise result
    return result


def free_url() -> str:
    """Where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


# ---------------------------------------------------------------- an ordinary request


def test_a_reply_becomes_a_completion():
    with ScriptedServer() as server:
        assert ask_one(server) == Completion("four", "stop", n_prompt_tokens=11, n_tokens=5)


def test_the_request_says_all_that_decides_the_text():
    request = Request("p-0", "What?", "<think>\n", Sampling(0.7, 0.9, 40, 123, 5), seed=99)
    with ScriptedServer() as server:
        ask_one(server, request=request)
        [received] = server.received
    assert received.body == {
        "model": "teacher",
        "messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "<think>\n"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 123,
        "seed": 99,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 5,
        "add_generation_prompt": False,
        "continue_final_message": True,
    }


def test_what_is_not_asked_for_is_not_sent():
    with ScriptedServer() as server:
        ask_one(server)
        [received] = server.received
    sampling = {"temperature", "top_p", "max_tokens", "seed"}
    assert received.body.keys() == {"model", "messages", "stream", "stream_options"} | sampling
    assert [message["role"] for message in received.body["messages"]] == ["user"]
    assert "authorization" not in received.headers


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_that_a_server_splits_off_is_found_under_both_names(name):
    with ScriptedServer(Reply(body=chat("4", **{name: "two and two"}))) as server:
        completion = ask_one(server)
    assert (completion.text, completion.thinking) == ("4", "two and two")


def test_a_reply_cut_off_while_thinking_has_null_content():
    with ScriptedServer(Reply(body=chat(None, finish_reason="length", reasoning_content="two and"))) as server:
        completion = ask_one(server)
    assert (completion.text, completion.thinking, completion.finish_reason) == ("", "two and", "length")


def test_logprobs_become_signals():
    half = {"token": "4", "logprob": math.log(0.5)}
    content = [{**half, "top_logprobs": [half, {**half, "token": "5"}]}] * 3
    body = chat()
    body["choices"][0]["logprobs"] = {"content": content}
    del body["usage"]
    with ScriptedServer(Reply(body=body)) as server:
        completion = ask_one(server)
    assert completion.signals is not None
    signals = completion.signals.summary()
    assert signals is not None
    assert signals.logprobs == 2
    assert signals.mean_logprob == pytest.approx(math.log(0.5))
    assert signals.mean_entropy_nats == pytest.approx(math.log(2))
    assert signals.mean_entropy_upper_nats is None
    assert completion.n_tokens == 3


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}, {"total_tokens": 3}])
def test_a_server_that_does_not_count_tokens_gives_zeros(usage):
    with ScriptedServer(Reply(body={**chat(), "usage": usage})) as server:
        completion = ask_one(server)
    assert (completion.n_prompt_tokens, completion.n_tokens) == (0, 0)


def test_half_a_character_in_a_reply_can_be_kept_in_a_journal(tmp_path):
    body = rb'{"choices": [{"message": {"content": "a\ud800b \ud83d\ude42"}, "finish_reason": "stop"}]}'
    with ScriptedServer(Reply(body=body)) as server, Journal(tmp_path) as journal:
        completion = ask_one(server)
        assert completion.text == "a\ufffdb 🙂"
        journal.append(Trace("p", 0, "m", "sha", 1, completion.text, None, "", "stop"), None)


# ---------------------------------------------------------------- faults that can pass


PASSING = {
    "429": fault(429),
    "500": fault(500),
    "502 with HTML": Reply(502, b"<html>Bad gateway</html>"),
    "503": fault(503),
    "408": fault(408),
    "time-out": Reply(body=chat(), delay_s=1.0),
    "cut off in the body": Reply(body=chat(), cut=True),
    "half of the JSON": Reply(body=json.dumps(chat()).encode()[:-20]),
    "no JSON": Reply(body=b"all is well"),
    "no UTF-8": Reply(body=b'{"choices": "\xff\xfe\xfa"}'),
    "JSON without end": Reply(body=b"[" * 100_000),
    "empty": Reply(body=b""),
    "null": Reply(body=None),
    "a list": Reply(body=[]),
    "an error in a 200": Reply(body={"error": {"message": "upstream is busy", "code": 502}}),
    "no choices": Reply(body={"choices": []}),
    "choices null": Reply(body={"choices": None}),
    "message null": Reply(body={"choices": [{"message": None, "finish_reason": "stop"}]}),
    "content in parts": Reply(body=chat([{"type": "text", "text": "4"}])),  # type: ignore[arg-type]
    "no finish_reason": Reply(body={"choices": [{"message": {"content": "4"}}]}),
    "finish_reason null": Reply(body=chat(finish_reason=None)),
    "finish_reason abort": Reply(body=chat(finish_reason="abort")),
    "usage in words": Reply(body={**chat(), "usage": {"completion_tokens": "many"}}),
    "Retry-After nan": fault(429, retry_after="nan"),
    "Retry-After negative": fault(429, retry_after="-5"),
    "Retry-After a date": fault(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"),
}


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING.keys())
def test_what_can_pass_is_tried_again(reply):
    with ScriptedServer(reply, reply) as server:
        assert ask_one(server, timeout_s=0.5 if reply.delay_s else 5.0).text == "four"
        assert len(server.received) == 3


@pytest.mark.parametrize("reply", [fault(429), fault(500), Reply(body=chat(), cut=True), Reply(body=b"{")])
def test_what_can_pass_is_tried_again_on_another_server(reply):
    with ScriptedServer(always=reply) as bad, ScriptedServer() as good:
        assert ask_one(bad, good).text == "four"
        assert (len(bad.received), len(good.received)) == (1, 1)


def test_a_request_that_failed_on_one_server_goes_to_another_even_if_the_first_is_awake_again():
    async def main(backend: ServerBackend) -> Server:
        async with backend:
            first, second = backend.servers
            second.in_flight = 100
            assert backend.least_loaded([]) is first
            return backend.least_loaded([first])

    with ScriptedServer() as one, ScriptedServer() as two:
        assert asyncio.run(main(backend_of(one, two))).url == two.url


def test_a_connection_refused_is_tried_again_on_another_server():
    with ScriptedServer() as good:
        results = ask(backend_of(free_url(), good), *[REQUEST] * 8)
    assert [result.text for result in results if isinstance(result, Completion)] == ["four"] * 8


def test_pauses_grow():
    with ScriptedServer(*[fault(500)] * 4) as server:
        ask_one(server, retries=4)
        at = [received.at for received in server.received]
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    for attempt, pause in enumerate(pauses):
        assert pause >= 0.5 * FIRST_PAUSE_S * 2**attempt


def test_the_pause_that_a_server_asks_for_is_kept_by_all_requests():
    async def main(backend: ServerBackend) -> None:
        async with backend:
            first = asyncio.create_task(backend.sample(REQUEST))
            while not backend.servers[0].rests_until:
                await asyncio.sleep(0.005)
            await asyncio.gather(first, *(backend.sample(REQUEST) for _ in range(3)))

    with ScriptedServer(fault(429, retry_after="0.3")) as server:
        asyncio.run(main(backend_of(server)))
        refused, *others = [received.at for received in server.received]
    assert len(others) == 4
    assert min(others) - refused >= 0.29


def test_while_a_server_rests_the_others_go_on_at_once(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 10.0)
    started = time.monotonic()
    with ScriptedServer(fault(429, retry_after="10")) as busy, ScriptedServer() as free:
        results = ask(backend_of(busy, free), *[REQUEST] * 6)
        assert all(isinstance(result, Completion) for result in results)
        assert time.monotonic() - started < 5
        assert len(free.received) >= 4


def test_a_shorter_pause_does_not_end_a_longer_one():
    async def main() -> float:
        async with backend_of(server) as backend:
            backend.rest(backend.servers[0], 10.0)
            backend.rest(backend.servers[0], 0.1)
            return backend.servers[0].rests_until - asyncio.get_running_loop().time()

    with ScriptedServer() as server:
        assert asyncio.run(main()) > 9


def test_no_server_waits_longer_than_the_longest_pause():
    with ScriptedServer(fault(429, retry_after="86400")) as server:
        started = time.monotonic()
        ask_one(server)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (fault(503, "the engine is\n  dead"), "status 503: the engine is dead"),
        (Reply(body=chat(), cut=True), "RemoteProtocolError"),
        (Reply(body={"error": {"message": "upstream is busy"}}), "not a chat completion: upstream is busy"),
        (Reply(body=chat(finish_reason=None)), "finish_reason None"),
    ],
)
def test_when_all_attempts_fail_the_run_stops_with_the_reason(reply, words):
    with ScriptedServer(always=reply) as server:
        with pytest.raises(UserError) as error:
            ask_one(server, retries=2)
        assert len(server.received) == 3
    assert words in str(error.value)
    assert server.url in str(error.value)
    assert "attempt 3 of 3" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_time_out_is_named():
    with (
        ScriptedServer(always=Reply(body=chat(), delay_s=0.4)) as server,
        pytest.raises(UserError, match="ReadTimeout"),
    ):
        ask_one(server, retries=0, timeout_s=0.1)


# ---------------------------------------------------------------- faults that stay


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_fails_that_sample_only_with_the_servers_words(status):
    with ScriptedServer(fault(status, "maximum context length is 8192")) as server:
        [refused] = ask(backend_of(server), REQUEST)
        assert isinstance(refused, SampleFailed)
        assert str(refused) == f"{server.url}: status {status}: maximum context length is 8192"
        assert len(server.received) == 1
        assert ask_one(server).text == "four"


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls", "function_call"])
def test_a_reply_that_ends_for_another_reason_fails_that_sample_only(reason):
    with ScriptedServer(Reply(body=chat(finish_reason=reason))) as server:
        with pytest.raises(SampleFailed, match=reason):
            ask_one(server)
        assert len(server.received) == 1


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(400, {"error": {"message": "too long"}}), "too long"),
        (Reply(400, {"error": "too long"}), "too long"),
        (Reply(400, {"message": "too long", "code": 3}), "too long"),
        (Reply(400, {"detail": "too long"}), '{"detail": "too long"}'),
        (Reply(400, "too long"), "too long"),
        (Reply(400, b"too\n\nlong"), "too long"),
        (Reply(400, b"x" * 10_000), "x" * 300),
        (Reply(400, b""), "Bad Request"),
        (Reply(400, b'{"error": "half \\ud800"}'), "half \ufffd"),
    ],
)
def test_the_servers_words_are_found_in_every_form_and_put_in_one_line(reply, words):
    with ScriptedServer(reply) as server, pytest.raises(SampleFailed) as error:
        ask_one(server)
    assert str(error.value) == f"{server.url}: status 400: {words}"


@pytest.mark.parametrize("status", [401, 402, 403, 404, 307])
def test_what_no_request_can_pass_stops_the_run_at_once(status):
    with ScriptedServer(always=fault(status, "not for you", location="/elsewhere")) as server:
        with pytest.raises(UserError, match=f"{server.url}: status {status}: not for you"):
            ask_one(server)
        assert len(server.received) == 1


# ---------------------------------------------------------------- the start


def test_no_server_at_the_start_gives_a_user_error():
    one, two = free_url(), free_url()
    with pytest.raises(UserError) as error:
        ask(backend_of(one, two))
    assert f"{one}: ConnectError" in str(error.value)
    assert f"{two}: ConnectError" in str(error.value)
    assert "vllm serve teacher" in str(error.value)


def test_a_wrong_model_name_is_known_at_the_start_with_the_right_ones():
    with ScriptedServer(models=("other", "another")) as server:
        with pytest.raises(UserError, match=r"does not serve teacher; it serves other, another: set teacher\.model"):
            ask(backend_of(server), REQUEST)
        assert server.received == []


def test_a_wrong_key_is_known_at_the_start():
    with (
        ScriptedServer(models=Reply(401, {"error": "no"})) as server,
        pytest.raises(UserError, match=r"401, a valid key is needed in the variable that teacher\.api_key_env names"),
    ):
        ask(backend_of(server), REQUEST)


@pytest.mark.parametrize(
    "models",
    [fault(404), fault(500), Reply(body=b"?"), Reply(body={"data": None}), Reply(body=[]), Reply(body={"data": []})],
)
def test_a_server_that_does_not_tell_its_models_is_used_all_the_same(models):
    with ScriptedServer(models=models) as server:
        assert ask_one(server).text == "four"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "http://HOST:PORT/v1", "http:///v1", "ftp://a/v1", "http://[::1/v1", ""]
)
def test_what_is_not_a_url_is_said_before_anything_starts(url):
    with pytest.raises(UserError, match="is not a URL; write it as http://HOST:PORT/v1"):
        backend_of(url)


def test_no_url_is_said_before_anything_starts():
    with pytest.raises(UserError, match=r"needs teacher\.urls"):
        backend_of()


def test_a_slash_at_the_end_of_a_url_does_no_harm():
    with ScriptedServer() as server:
        assert ask_one(server.url + "/").text == "four"


# ---------------------------------------------------------------- several servers


def test_requests_are_shared_evenly_between_equal_servers():
    slow = Reply(body=chat(), delay_s=0.1)
    with ScriptedServer(always=slow) as one, ScriptedServer(always=slow) as two:
        ask(backend_of(one, two), *[REQUEST] * 20)
        assert (len(one.received), len(two.received)) == (10, 10)


def test_a_faster_server_gets_more():
    async def main(backend: ServerBackend) -> None:
        async def worker() -> None:
            for _ in range(5):
                await backend.sample(REQUEST)

        async with backend:
            await asyncio.gather(*(worker() for _ in range(4)))

    with (
        ScriptedServer(always=Reply(body=chat(), delay_s=0.3)) as slow,
        ScriptedServer(always=Reply(body=chat(), delay_s=0.01)) as fast,
    ):
        asyncio.run(main(backend_of(slow, fast)))
        assert len(slow.received) + len(fast.received) == 20
        assert len(fast.received) > len(slow.received)


def test_a_server_that_was_dead_at_the_start_is_left_alone_while_it_rests(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 5.0)
    started = time.monotonic()
    with ScriptedServer() as alive:
        results = ask(backend_of(free_url(), alive), *[REQUEST] * 8)
    assert all(isinstance(result, Completion) for result in results)
    assert time.monotonic() - started < 2


def test_a_cancelled_request_is_no_longer_counted():
    async def main(backend: ServerBackend) -> list[int]:
        async with backend:
            tasks = [asyncio.create_task(backend.sample(REQUEST)) for _ in range(3)]
            while backend.servers[0].in_flight < 3:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return [server.in_flight for server in backend.servers]

    with ScriptedServer(always=Reply(body=chat(), delay_s=0.3)) as server:
        assert asyncio.run(main(backend_of(server))) == [0]


# ---------------------------------------------------------------- the key


@pytest.mark.parametrize("around", ["", "\n", " "])
def test_the_key_is_sent_in_the_header(monkeypatch, around):
    monkeypatch.setenv("TEST_KEY", KEY + around)
    with ScriptedServer() as server:
        ask_one(server)
        [received] = server.received
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(received.body)


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_the_key_is_in_no_message_even_if_the_server_repeats_it(monkeypatch, status):
    monkeypatch.setenv("TEST_KEY", KEY)
    with ScriptedServer(always=fault(status, f"Incorrect API key provided: {KEY}.")) as server:
        [error] = ask(backend_of(server, retries=1), REQUEST)
    assert isinstance(error, UserError | SampleFailed)
    assert "Incorrect API key provided: [key]." in str(error)


@pytest.mark.parametrize("broken", [f"{KEY}\nsk-another", f"{KEY}é", f"{KEY}\x07"])
def test_a_key_that_no_header_can_hold_is_named_by_its_variable_only(monkeypatch, broken):
    monkeypatch.setenv("TEST_KEY", broken)
    with pytest.raises(UserError, match="TEST_KEY") as error:
        backend_of("http://127.0.0.1:1/v1")
    assert "sk-" not in str(error.value)


# ---------------------------------------------------------------- all together


def test_a_run_against_bad_servers_ends_whole(tmp_path: Path):
    """Every kind of fault at once, two servers, the scheduler and the journal: each sample is there once."""
    faults = [
        fault(429, retry_after="0.02"),
        fault(500),
        Reply(body=chat(), cut=True),
        Reply(body=b"{"),
        Reply(body=chat()),
    ]
    problems = [Problem(f"{number}?", answer="4") for number in range(15)]
    plan = Plan("teacher", "", Prompt("p", "{problem}", "<think>\n"), SAMPLING, 0, 2, 0)

    async def main(*servers: ScriptedServer) -> Counter[str]:
        reasons: Counter[str] = Counter()
        with Journal(tmp_path) as journal:
            async with backend_of(*servers, retries=8) as backend:
                async for taken in sample_all([Work(plan, problems, journal)], backend, concurrency=8):
                    reasons[taken.trace.finish_reason] += 1
        return reasons

    with ScriptedServer(*faults * 2) as one, ScriptedServer(fault(400, "no"), *faults) as two:
        assert asyncio.run(main(one, two)) == {"stop": 29, "error": 1}
        assert asyncio.run(main(one, two)) == {"stop": 1}
        assert asyncio.run(main(one, two)) == {}
    with Journal(tmp_path) as journal:
        assert len(journal.finished()) == 30


def test_a_server_that_dies_in_the_middle_loses_nothing(tmp_path: Path):
    problems = [Problem(f"{number}?", answer="4") for number in range(20)]
    plan = Plan("teacher", "", Prompt("p", "{problem}", ""), SAMPLING, 0, 1, 0)

    async def main(server: ScriptedServer, stop_after: int | None) -> int:
        taken = 0
        with Journal(tmp_path) as journal:
            async with backend_of(server, retries=1) as backend:
                async for _ in sample_all([Work(plan, problems, journal)], backend, concurrency=4):
                    taken += 1
                    if taken == stop_after:
                        await asyncio.to_thread(server.__exit__)
                        server.always = Reply(body=b"", cut=True)
        return taken

    with pytest.raises(UserError, match="what was sampled is kept"), ScriptedServer() as server:
        asyncio.run(main(server, 7))
    with Journal(tmp_path) as journal:
        kept = len(journal.finished())
    assert 7 <= kept < 20
    with ScriptedServer() as server:
        assert asyncio.run(main(server, None)) == 20 - kept
        assert len(server.received) == 20 - kept


# ---------------------------------------------------------------- streams


def with_sampling(**changes: Any) -> Request:
    return dataclasses.replace(REQUEST, sampling=dataclasses.replace(SAMPLING, **changes))


def test_a_streamed_reply_is_put_together():
    with ScriptedServer(stream("fo", "ur", prompt_tokens=11, completion_tokens=2)) as server:
        completion = ask_one(server)
    assert (completion.text, completion.finish_reason) == ("four", "stop")
    assert (completion.n_prompt_tokens, completion.n_tokens) == (11, 2)


def test_streamed_thinking_and_logprobs_are_put_together():
    def event(**choice: Any) -> bytes:
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    def token(text: str) -> dict[str, Any]:
        return {"token": text, "logprob": math.log(0.5), "top_logprobs": [{"logprob": math.log(0.5)}] * 2}

    pieces = [
        event(delta={"reasoning": "ab"}, logprobs={"content": [token("a"), token("b")]}, finish_reason=None),
        event(delta={"content": "c"}, logprobs={"content": [token("c")]}, finish_reason="stop"),
        b": a comment\n\ndata: [DONE]\n\n",
    ]
    with ScriptedServer(Reply(headers={"content-type": "text/event-stream"}, pieces=pieces)) as server:
        completion = ask_one(server)
    assert (completion.thinking, completion.text, completion.n_tokens) == ("ab", "c", 3)
    assert completion.signals is not None
    assert len(completion.signals) == 3


@pytest.mark.parametrize(
    "broken",
    [
        stream("half", finish_reason=None),
        stream("half", finish_reason=None, done=False),
        Reply(headers={"content-type": "text/event-stream"}, pieces=[b"data: {"]),
        Reply(headers={"content-type": "text/event-stream"}, pieces=[b"data: [1]\n\n"]),
        Reply(
            headers={"content-type": "text/event-stream"}, pieces=[b'data: {"error": {"message": "out of memory"}}\n\n']
        ),
        Reply(
            headers={"content-type": "text/event-stream"},
            pieces=[b'data: {"choices": [{"delta": {"content": 1}}]}\n\n'],
        ),
        Reply(headers={"content-type": "text/event-stream"}, pieces=[b""]),
        dataclasses.replace(stream("a" * 100, "b"), cut=True),
    ],
)
def test_a_broken_stream_is_tried_again(broken):
    with ScriptedServer(broken, stream("four")) as server:
        assert ask_one(server).text == "four"
        assert len(server.received) == 2


def test_a_stream_that_drips_for_ever_meets_the_time_limit():
    with ScriptedServer(stream(*"abcdefghij", drip_s=0.1), stream("four")) as server:
        assert ask_one(server, timeout_s=0.4).text == "four"


def test_a_loop_is_ended_while_it_streams_and_the_server_told_by_the_closed_connection():
    round_ = "and then once more the same thing; "
    with ScriptedServer(stream(*[round_] * 3000, drip_s=0.0005)) as server:
        completion = ask_one(server, request=with_sampling(stop_repetition=64))
        assert completion.finish_reason == "repetition"
        assert len(completion.text) < 1000 * len(round_)
        deadline = time.monotonic() + 5
        while not server.cut_short and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.cut_short == 1


def test_without_stop_repetition_a_loop_goes_on():
    with ScriptedServer(stream(*["again "] * 1500)) as server:
        assert len(ask_one(server).text) == 6 * 1500


def test_a_reply_that_was_begun_is_continued_behind_what_is_there():
    request = dataclasses.replace(REQUEST, prefill="<think>\n", begun=Begun("2 + 2 is", None, 7))
    with ScriptedServer(stream(" four", completion_tokens=1, prompt_tokens=9)) as server:
        completion = ask_one(server, request=request)
        [received] = server.received
    assert received.body["messages"][-1] == {"role": "assistant", "content": "<think>\n2 + 2 is"}
    assert (received.body["max_tokens"], received.body["continue_final_message"]) == (93, True)
    assert (completion.text, completion.n_tokens) == ("2 + 2 is four", 8)


# ---------------------------------------------------------------- the context


def with_context(server: ScriptedServer, length: int, counted: int | None) -> ScriptedServer:
    server.models = Reply(body={"data": [{"id": "teacher", "max_model_len": length}]})
    server.tokenize = fault(404) if counted is None else Reply(body={"count": counted})
    return server


def test_a_reply_gets_no_more_room_than_the_context_has_left():
    with with_context(ScriptedServer(), 120, 50) as server:
        ask_one(server)
        assert server.received[0].body["max_tokens"] == 70


def test_an_overlong_prompt_is_a_named_outcome_and_is_never_sent():
    with with_context(ScriptedServer(), 40, 50) as server:
        with pytest.raises(SampleFailed, match="overlong prompt: 50 tokens, and the model has 40"):
            ask_one(server)
        assert server.received == []


def test_a_short_prompt_is_not_counted_and_a_server_that_cannot_count_is_asked_as_it_is():
    with with_context(ScriptedServer(), 4000, 0) as server:
        ask_one(server)
        assert server.received[0].body["max_tokens"] == 100
    with with_context(ScriptedServer(), 50, None) as server:
        ask_one(server)
        assert server.received[0].body["max_tokens"] == 100


def test_a_reply_that_has_come_to_the_end_of_the_context_stays_as_it_is():
    request = dataclasses.replace(REQUEST, begun=Begun("so far", None, 7))
    with with_context(ScriptedServer(), 50, 50) as server:
        completion = ask_one(server, request=request)
        assert (completion.text, completion.finish_reason, completion.n_tokens) == ("so far", "length", 7)
        assert server.received == []
