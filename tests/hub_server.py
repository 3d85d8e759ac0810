"""A Hub for one machine: what huggingface_hub asks of it to publish, over real HTTP, and what it holds afterwards."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: int = 0


class HubServer:
    """Use as a context manager. A request whose path holds `refused` is answered with 403, and changes nothing."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, Repository] = {}  # by "datasets/org/name" or "models/org/name"
        self.objects: dict[str, bytes] = {}
        self.refused = ""
        self.asked: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, body: bytes, authorization: str | None) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if self.refused and self.refused in path:
            return 403, {"error": "refused by the script"}
        if path.startswith("/lfs/"):  # what S3 is to the Hub: it asks for no token
            self.objects[path.removeprefix("/lfs/")] = body
            return 200, {}
        if authorization != f"Bearer {self.token}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}
        if found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return 200, {"transfer": "basic", "objects": [self.to_upload(each) for each in json.loads(body)["objects"]]}
        found = re.fullmatch(r"/api/((?:datasets|models)/[^/]+/[^/]+)(?:/(\w+)/([^/]+))?", path)
        if found is None or found[1] not in self.repositories:
            return 404, {"error": f"no {path}"}
        repository, what, revision = self.repositories[found[1]], found[2], unquote(found[3] or "main")
        if what == "branch":
            new = revision not in repository.branches
            repository.branches.setdefault(revision, dict(repository.branches["main"]))
            return (200, {}) if new else (409, {"error": "exists"})
        if revision not in repository.branches:
            return 404, {"error": f"no branch {revision}"}
        files = repository.branches[revision]
        if what is None:
            return 200, {
                "id": found[1].partition("/")[2],
                "private": repository.private,
                "sha": "0" * 40,
                "siblings": [],
            }
        if what == "tree":
            return 200, [{"type": "file", "path": name, "oid": "0", "size": len(data)} for name, data in files.items()]
        if what == "preupload":
            return 200, {"files": [mode_of(each["path"]) for each in json.loads(body)["files"]]}
        if what == "commit":
            repository.commits += 1
            self.commit(files, [json.loads(line) for line in body.splitlines()])
            return 200, {
                "success": True,
                "commitOid": "1" * 40,
                "commitUrl": f"{self.url}/{found[1]}/commit/{'1' * 40}",
            }
        return 404, {"error": f"no {path}"}

    def create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted.get('type') or 'model'}s/{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.url}/{name}"}
        if name in self.repositories:
            return 409, url
        self.repositories[name] = Repository(wanted.get("visibility") == "private" or bool(wanted.get("private")))
        return 200, url

    def to_upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return {**wanted, "actions": {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}"}}}

    def commit(self, files: dict[str, bytes], lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self.objects[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                files[value["path"]] = data
            elif line["key"] == "deletedFile":
                del files[value["path"]]


def mode_of(path: str) -> dict[str, Any]:
    large = path.endswith((".parquet", ".safetensors"))
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}


def handler_of(owner: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            if self.headers.get("transfer-encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                body = b"".join(parts)
            else:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, reply = owner.answer(
                self.command, urlsplit(self.path).path, body, self.headers.get("authorization")
            )
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
