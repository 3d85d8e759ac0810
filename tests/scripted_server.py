"""A small OpenAI-compatible server whose replies, and faults, a test writes down beforehand. Real sockets, real HTTP."""

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One answer. `body` is sent as it is if it is bytes, else as JSON; `cut` closes the connection halfway through.

    A body in `pieces` is sent one after another, `drip_s` apart.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False
    pieces: list[bytes] = field(default_factory=list)
    drip_s: float = 0.0


@dataclass
class Received:
    headers: dict[str, str]
    body: dict[str, Any]
    at: float


def chat(content: str | None = "four", *, finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    """The body of an ordinary chat completion. `message` adds to its message."""
    return {
        "choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5},
    }


def stream(
    *parts: str, finish_reason: str | None = "stop", drip_s: float = 0.0, done: bool = True, **usage: int
) -> Reply:
    """A streamed chat completion, a part of the text an event."""
    choices: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    choices += [{"delta": {"content": part}, "finish_reason": None} for part in parts]
    choices += [{"delta": {}, "finish_reason": finish_reason}] if finish_reason else []
    events: list[Any] = [{"choices": [choice]} for choice in choices]
    if usage:
        events.append({"choices": [], "usage": usage})
    pieces = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [b"data: [DONE]\n\n"] * done
    return Reply(headers={"content-type": "text/event-stream"}, pieces=pieces, drip_s=drip_s)


def fault(status: int, message: str = "a fault of the script", **headers: str) -> Reply:
    return Reply(
        status, {"error": {"message": message}}, {name.replace("_", "-"): text for name, text in headers.items()}
    )


class ScriptedServer:
    """Gives the scripted replies in turn, and `always` when there are no more. Use it as a context manager."""

    def __init__(self, *script: Reply, models: Any = ("teacher",), always: Reply | None = None) -> None:
        self.script = deque(script)
        self.always = always or Reply(body=chat())
        models = models if isinstance(models, Reply) else Reply(body={"data": [{"id": name} for name in models]})
        self.models = models
        self.received: list[Received] = []
        self.tokenize: Reply = fault(404)
        self.cut_short = 0  # replies that the client did not read to their end
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self) -> "ScriptedServer":
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def reply_to(self, received: Received) -> Reply:
        with self.lock:
            self.received.append(received)
            return self.script.popleft() if self.script else self.always


def handler_of(owner: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept open, as real servers do
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.send(owner.models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): text for name, text in self.headers.items()}
            if self.path == "/tokenize":
                return self.send(owner.tokenize)
            if self.path != "/v1/chat/completions":
                return self.send(fault(404, f"no such path: {self.path}"))
            self.send(owner.reply_to(Received(headers, body, time.monotonic())))

        def send(self, reply: Reply) -> None:
            time.sleep(reply.delay_s)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            pieces = reply.pieces or [body]
            body = b"".join(pieces)
            try:
                self.send_response(reply.status)
                for name, text in reply.headers.items():
                    self.send_header(name, text)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                for piece in [body[: len(body) // 2]] if reply.cut else pieces:
                    self.wfile.write(piece)
                    time.sleep(reply.drip_s)
                self.close_connection = self.close_connection or reply.cut
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client lost its patience
                owner.cut_short += 1

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
