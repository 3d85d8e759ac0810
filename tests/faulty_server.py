"""An OpenAI-compatible server as a process of its own, with a reply that follows from the request and faults from a seed.

    python tests/faulty_server.py PORT LOG [--faults SHARE] [--delay_s S] [--characters N]

What it says, and whether it is right, depends on the request's seed alone, as with a model. A request is met with a
fault by chance, at most FAULTS_A_REQUEST times; then it is answered. The seed of every answer that was sent whole is
appended to LOG. Faults: see FAULTS.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
from collections import Counter
from typing import Any

FAULTS_A_REQUEST = 3
FAULTS = (
    "500", "503", "429", "hang", "reset", "cut_json", "no_choices", "not_json", "error_in_stream", "cut_stream", "drip",
)  # fmt: skip
HANG_S = 30.0  # longer than the client waits


class App:
    def __init__(self, log: str, share: float, delay_s: float, characters: int) -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.share, self.delay_s, self.characters = share, delay_s, characters
        self.met: Counter[int] = Counter()
        self.chance = random.Random(os.getpid())

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/v1/models":
            return await whole(send, 200, {"data": [{"id": "teacher"}]})
        request = json.loads(body)
        seed = request["seed"]
        await asyncio.sleep(self.delay_s * self.chance.uniform(0.2, 1.8))
        fault = ""
        if self.met[seed] < FAULTS_A_REQUEST and self.chance.random() < self.share:
            self.met[seed] += 1
            fault = self.chance.choice(FAULTS)
        await self.answer(send, request, fault)
        if fault in ("", "drip"):
            os.write(self.log, f"{seed}\n".encode())

    async def answer(self, send: Any, request: dict[str, Any], fault: str) -> None:
        text = text_of(request, self.characters)
        usage = {"prompt_tokens": 11, "completion_tokens": len(text) // 4}
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        reply: dict[str, Any] = {"id": "always the same", "choices": [choice], "usage": usage}
        if fault in ("500", "503"):
            return await whole(send, int(fault), {"error": {"message": "a fault of the script"}})
        if fault == "429":
            return await whole(send, 429, {"error": {"message": "too many"}}, [(b"retry-after", b"0.2")])
        if fault == "hang":
            await asyncio.sleep(HANG_S)
        if fault == "reset":
            return await cut(send, b'{"choices": [{"message"', b"application/json")
        if fault == "cut_json":
            return await whole(send, 200, b'{"choices": [{"message": {"content": "half a rep')
        if fault == "no_choices":
            return await whole(send, 200, {**reply, "choices": []})
        if fault == "not_json":
            return await whole(send, 200, b"<html>Bad gateway</html>")
        if not request.get("stream"):
            return await whole(send, 200, reply)
        events = [
            {"choices": [{"delta": {"content": text[i : i + 400]}, "finish_reason": None}]}
            for i in range(0, len(text), 400)
        ]
        events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
        if fault == "error_in_stream":
            events = [*events[:1], {"error": {"message": "the engine died"}}]
        pieces = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]
        if fault == "cut_stream":
            return await cut(send, pieces[0], b"text/event-stream")
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        await send(start)
        for piece in pieces if fault == "drip" else [b"".join(pieces)]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0.05 if fault == "drip" else 0)
        await send({"type": "http.response.body", "body": b""})


def text_of(request: dict[str, Any], characters: int) -> str:
    """Right for two seeds of five."""
    seed = request["seed"]
    found = re.search(r"What is (\d+) \+ (\d+)", request["messages"][0]["content"])
    assert found is not None
    answer = int(found[1]) + int(found[2]) + (0 if seed % 5 < 2 else 1)
    digits = hashlib.shake_128(str(seed).encode()).hexdigest(characters // 2)
    return f"{digits}</think>\n\n\\boxed{{{answer}}}"


async def whole(send: Any, status: int, body: Any, headers: Any = ()) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})


async def cut(send: Any, data: bytes, kind: bytes) -> None:
    """Some bytes of more that were promised; uvicorn then closes the connection."""
    head = [(b"content-type", kind), (b"content-length", str(len(data) + 100).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": data, "more_body": True})
    raise ConnectionResetError


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("log")
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--delay_s", type=float, default=0.02)
    parser.add_argument("--characters", type=int, default=200)
    options = parser.parse_args()
    app = App(options.log, options.faults, options.delay_s, options.characters)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="critical", access_log=False, timeout_keep_alive=60)


if __name__ == "__main__":
    main()
