"""A local stand-in for the Hugging Face hub: a real HTTP server with the routes that `huggingface_hub` calls.

Repositories are folders of bytes in memory: (kind, name) -> revision -> path -> content. What was asked is recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

Files = dict[str, bytes]


@dataclass
class Hub:
    """What the hub holds, and where it listens."""

    repositories: dict[tuple[str, str], dict[str, Files]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""
    page: int = 2
    """Files per page of a listing: small, so that listings have several."""

    def add(self, name: str, files: Files, *, kind: str = "dataset", revision: str = "main") -> str:
        """Put a repository up; returns the commit of the revision."""
        self.repositories.setdefault((f"{kind}s", name), {})[revision] = files
        return commit_of(files)

    def find(self, kind: str, name: str, revision: str) -> Files | None:
        """The files at a branch or a commit; None if there is no such revision."""
        revisions = self.repositories[kind, name]
        return next((files for branch, files in revisions.items() if revision in (branch, commit_of(files))), None)


def commit_of(files: Files) -> str:
    """The name of a commit: 40 hexadecimal digits of its content."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.hub.requests.append(f"{self.command} {unquote(url.path)}")
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[0] == "api" and parts[1] not in ("datasets", "models"):
            self._send(404, b"", {})
        elif parts[0] == "api":
            what, revision = parts[4:6] or ("revision", "main")
            self._api(parts[1], "/".join(parts[2:4]), what, revision, parse_qs(url.query))
        elif parts[0] == "datasets":
            self._file("datasets", "/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        else:
            self._file("models", "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _found(self, kind: str, name: str, revision: str) -> Files | None:
        if name in self.hub.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask first"})
        elif (kind, name) not in self.hub.repositories:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif (files := self.hub.find(kind, name, revision)) is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return files
        return None

    def _api(self, kind: str, name: str, what: str, revision: str, query: dict[str, list[str]]) -> None:
        files = self._found(kind, name, revision)
        if files is None:
            return
        if what == "revision":
            self._send_json({"id": name, "sha": commit_of(files), "siblings": [], "tags": [], "private": False})
            return
        assert what == "tree", what
        assert query["recursive"] in (["True"], ["true"]), query
        names, start = sorted(files), int(query.get("cursor", ["0"])[0])
        tree = [
            {"type": "file", "path": path, "size": len(files[path]), "oid": hashlib.sha1(files[path]).hexdigest()}
            for path in names[start : start + self.hub.page]
        ]
        headers = {}
        if start + self.hub.page < len(names):
            again = f"{self.hub.endpoint}{self.path.split('?')[0]}?recursive=True&cursor={start + self.hub.page}"
            headers["Link"] = f'<{again}>; rel="next"'
        self._send_json(tree, headers)

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        files = self._found(kind, name, revision)
        if files is None:
            return
        headers = {"X-Repo-Commit": commit_of(files)}
        if path not in files:
            self._send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha1(files[path]).hexdigest()
        self._send(200, files[path], headers | {"ETag": f'"{etag}"', "Content-Type": "application/octet-stream"})

    def _send_json(self, content: object, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on 127.0.0.1, until the end of the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point `huggingface_hub`, which reads its environment once at import, at this hub and at an empty cache."""
    from huggingface_hub import constants

    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
