"""The Hugging Face Hub on this machine, as far as `huggingface_hub` calls it for models: files, commits, Git LFS.

with HubServer() as hub:
    os.environ.update(HF_ENDPOINT=hub.url, HF_TOKEN=hub.token)

Large files go by Git LFS over HTTP, which the client takes where HF_HUB_DISABLE_XET is set; the Xet protocol is not
spoken. Status codes and X-Error-Code are those of https://huggingface.co, by which the client tells refusals apart.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.fakes.closing import Closing

LARGE = (".safetensors", ".png")
API = re.compile(r"/api/models/([^/]+/[^/]+)/(tree|preupload|commit)/([^/]+)")
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """Files of each commit, the newest last."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [("0" * 40, {})])

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def commit(self, files: dict[str, bytes]) -> str:
        """A new commit with these files alone; its id."""
        names = json.dumps([[name, hashlib.sha256(data).hexdigest()] for name, data in sorted(files.items())])
        oid = hashlib.sha1(f"{len(self.commits)} {names}".encode()).hexdigest()
        self.commits.append((oid, dict(files)))
        return oid

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a revision names."""
        return (
            self.commits[-1]
            if revision == "main"
            else dict((oid, (oid, files)) for oid, files in self.commits).get(revision)
        )


class HubServer(Closing):
    """One server, its repositories in memory; `user` may write below its own name, with `token`."""

    user, token = "me", "hf_of_this_test"

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        outer = self

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append(f"{self.command} {self.path}")
                _Exchange(outer, self).answer()

            do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Front)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.store = f"http://localhost:{self._server.server_port}"  # a host of its own, as the Hub's store is
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Exchange:
    """One request and its answer."""

    def __init__(self, hub: HubServer, http: BaseHTTPRequestHandler) -> None:
        self.hub, self.http = hub, http
        self.path = unquote(urlsplit(http.path).path)
        self.body = http.rfile.read(int(http.headers.get("Content-Length") or 0))
        given = http.headers.get("Authorization")
        self.known, self.wrong = given == f"Bearer {hub.token}", given is not None and given != f"Bearer {hub.token}"

    def answer(self) -> None:
        if self.wrong:
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        if self.path.startswith("/lfs/"):
            return self.large()
        if match := RESOLVE.fullmatch(self.path):
            return self.resolve(*match.groups())
        if match := API.fullmatch(self.path):
            return self.repository(*match.groups())
        value = json.loads(self.body or b"{}")
        if self.path == "/api/whoami-v2":
            return self.say({"name": self.hub.user}) if self.known else self.refuse(401, "", "who?")
        if self.path == "/api/validate-yaml":
            return self.say({"warnings": [], "errors": []})
        if self.path == "/api/repos/create":
            return self.create(value)
        if self.path.endswith(".git/info/lfs/objects/batch"):
            return self.say({"transfer": "basic", "objects": [self.upload(one) for one in value["objects"]]})
        return self.refuse(404, "", "no such route")

    def create(self, value: dict[str, Any]) -> None:
        name = f"{value['organization']}/{value['name']}"
        if value["organization"] != self.hub.user:
            return self.refuse(403, "", f"You don't have the rights to create a model under {value['organization']!r}")
        there = name in self.hub.repositories
        self.hub.repositories.setdefault(name, Repository(value.get("visibility") == "private"))
        return self.say({"url": f"{self.hub.url}/{name}"}, 409 if there else 200)

    def upload(self, one: dict[str, Any]) -> dict[str, Any]:
        there = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] in self.hub.objects:
            return there
        return {**there, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}

    def large(self) -> None:
        oid = self.path.removeprefix("/lfs/")
        if self.http.command == "PUT":
            assert hashlib.sha256(self.body).hexdigest() == oid
            self.hub.objects[oid] = self.body
            return self.say({})
        return self.send(200, self.hub.objects[oid], {"ETag": f'"{oid}"'})

    def seen(self, name: str) -> Repository | None:
        """The repository, if who asks may know of it; refused if not."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self.known):
            self.refuse(404 if self.known else 401, "RepoNotFound", "Repository not found")
            return None
        return repository

    def repository(self, name: str, verb: str, revision: str) -> None:
        repository = self.seen(name)
        if repository is None:
            return None
        if verb == "tree":
            return self.say([{"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
                             for path, data in repository.files.items()])  # fmt: skip
        if not self.known or not name.startswith(f"{self.hub.user}/"):
            return self.refuse(403, "", "you may not write here")
        if verb == "preupload":
            files = json.loads(self.body)["files"]
            return self.say({"files": [{"path": one["path"], "shouldIgnore": False,
                                        "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular"}
                                       for one in files]})  # fmt: skip
        files = dict(repository.files)
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(files)
        return self.say({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.seen(name)
        if repository is None:
            return None
        commit = repository.at(revision)
        if commit is None:
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        oid, files = commit
        if path not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": oid})
        data, etag = files[path], _oid(files[path])
        headers = {"X-Repo-Commit": oid, "ETag": f'"{etag}"'}
        if not path.endswith(LARGE):
            return self.send(200, data, headers)
        key = hashlib.sha256(data).hexdigest()
        self.hub.objects[key] = data
        linked = {
            "X-Linked-ETag": f'"{key}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{self.hub.store}/lfs/{key}",
        }
        return self.send(302, b"", headers | linked)

    def say(self, value: Any, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        said = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        self.send(
            status, body, {**said, "X-Error-Message": message, "Content-Type": "application/json", **(headers or {})}
        )

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.http.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.http.send_header(name, value)
        self.http.end_headers()
        if self.http.command != "HEAD":
            self.http.wfile.write(data)


def _oid(data: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
