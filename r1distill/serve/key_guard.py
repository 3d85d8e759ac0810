"""A key for servers that know of none, such as Ray Serve LLM."""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any


class KeyGuard:
    """ASGI middleware that answers 401 to requests without the key.

    It knows only the key's SHA-256: Ray sends the guard to the nodes, and with it what may end in its logs.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], digest: bytes) -> None:
        self.app, self.digest = app, digest

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Callable[..., Awaitable[None]]) -> None:
        if scope["type"] == "http" and not self.is_known(dict(scope["headers"]).get(b"authorization", b"")):
            body = json.dumps({"error": {"message": "the key is missing or wrong", "code": 401}}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await self.app(scope, receive, send)

    def is_known(self, header: bytes) -> bool:
        scheme, _, key = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(digest_of(key), self.digest)


def digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
