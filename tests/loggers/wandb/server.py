"""A small W&B server on this machine, which answers wandb-core and records what was sent."""

import base64
import gzip
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

ENTITY = "someone"
KEY = "f" * 40

# Options of ``lnsgd fit`` for a run that is sent.
LOGGER = ["--trainer.logger", "lnsgd.loggers.WandbLogger"]


@dataclass
class SentRun:
    """A run on the server.

    Attributes:
        about: Properties of the run: displayName, groupName, jobType, config and so on.
        lines: Rows of its history, in the order in which they came, as W&B numbers them.
        summary: The last value of everything.
        starts: How often it was started.
        finished: Whether the client has ended the run.
    """

    about: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    starts: int = 0
    finished: bool = False

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(self.lines[number]) for number in sorted(self.lines)]


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about clients that have disconnected."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class WandbServer:
    """Answers wandb-core's requests.

    Attributes:
        url: For ``WANDB_BASE_URL``.
        runs: What was sent, by the id of the run.
        artifacts: Inputs of ``createArtifact``, in their order.
        uploads: Files, by the path that they were sent to.
        twist: Changes the answer to a GraphQL operation, given the operation's name.
        dead: Whether every connection is dropped.
        revoked: Whether the key is refused.
    """

    def __init__(self) -> None:
        self.runs: dict[str, SentRun] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.twist: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda _, answer: answer
        self.dead = self.revoked = False
        self.lock = Lock()
        self._http = _QuietServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def only_run(self) -> SentRun:
        """The only run that was sent."""
        (run,) = self.runs.values()
        return run

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """Return the data of a GraphQL operation."""
        name = query.split("(")[0].split("{")[0].split()[1]
        self.asked.append(name)
        return self.twist(name, getattr(self, f"_{name}", lambda _: {})(given))

    def _Viewer(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802  (W&B's name)
        return {
            "viewer": {"id": "VQ==", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": None}
        }

    def _ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs.get(given["name"])
        model = {"id": "UA==", "name": given["project"], "entity": {"id": "RQ==", "name": ENTITY}, "bucket": None}
        if run is None:
            return {"model": model}
        bucket = {
            **self._bucket(given["name"], given["project"]),
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "historyLineCount": len(run.lines),
            "eventsLineCount": 0,
            "historyTail": json.dumps([run.lines[max(run.lines)]] if run.lines else []),
            "eventsTail": "[]",
            "tags": [],
            "notes": "",
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"model": {**model, "bucket": bucket}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = given.get("name") or base64.b64decode(given["id"]).decode()
        inserted = name not in self.runs
        run = self.runs.setdefault(name, SentRun())
        run.starts += given.get("state") == "running" or not given.get("id")
        run.about.update({key: value for key, value in given.items() if value is not None})
        project = run.about.get("project") or "uncategorized"
        return {"upsertBucket": {"bucket": self._bucket(name, project), "inserted": inserted}}

    def _bucket(self, name: str, project: str) -> dict[str, Any]:
        run = self.runs[name]
        return {
            "id": base64.b64encode(name.encode()).decode(),
            "name": name,
            "displayName": run.about.get("displayName") or name,
            "description": "",
            "config": run.about.get("config") or "{}",
            "sweepName": None,
            "project": {"id": "UA==", "name": project, "entity": {"id": "RQ==", "name": ENTITY}},
            "historyLineCount": len(run.lines),
        }

    def _ArtifactType(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802  (the type always exists)
        return {"project": None}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": file, "uploadUrl": f"{self.url}/upload/{given['run']}/{file}"} for file in given["files"]]
        return {"createRunFiles": {"runID": "", "uploadHeaders": [], "files": files}}

    def _MarkRunFilesUploaded(self, _: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"markRunFilesUploaded": {"success": True}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.artifacts.append(given["input"])
        made = {
            "id": f"A{len(self.artifacts)}",
            "state": "PENDING",
            "artifactSequence": {"id": "S", "latestArtifact": None},
        }
        return {"createArtifact": {"artifact": made}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"createArtifactManifest": self._manifest(given["artifactID"])}

    def _UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"updateArtifactManifest": self._manifest(given["artifactManifestID"])}

    def _manifest(self, artifact: str) -> dict[str, Any]:
        file = {"id": "F", "uploadUrl": f"{self.url}/upload/manifests/{artifact}", "uploadHeaders": []}
        return {"artifactManifest": {"id": artifact, "file": file}}

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        nodes = [self._artifact_file(spec) for spec in given["input"]["artifactFiles"]]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _artifact_file(self, spec: dict[str, Any]) -> dict[str, Any]:
        path = f"{spec['artifactID']}/{spec['name']}"
        return {
            "storagePath": path,
            "uploadUrl": f"{self.url}/upload/artifacts/{path}",
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": spec["artifactID"]},
        }

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """Receive a part of a run's files: rows of its history, and its summary."""
        run = self.runs[name]
        files = sent.get("files") or {}
        if history := files.get("wandb-history.jsonl"):
            for number, line in enumerate(history["content"], history["offset"]):
                run.lines[number] = line
        if summary := files.get("wandb-summary.json"):
            run.summary = json.loads(summary["content"][-1])
        run.finished = run.finished or bool(sent.get("complete"))


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self._content()
            if content is None:
                return
            with server.lock:
                if self.path == "/graphql":
                    asked = json.loads(content)
                    self._reply({"data": server.answer(asked["query"], asked.get("variables") or {})})
                    return
                if self.path.endswith("/file_stream"):  # other requests are W&B's own telemetry
                    server.stream(self.path.split("/")[-2], json.loads(content))
                self._reply({})

        def do_PUT(self) -> None:
            content = self._content()
            if content is not None:
                server.uploads[urlsplit(self.path).path.removeprefix("/upload/")] = content
                self._reply({})

        def do_GET(self) -> None:
            if self._content() is not None:
                self._reply({})

        def _content(self) -> bytes | None:
            if server.dead:
                self.close_connection = True
                return None
            chunked = self.headers.get("Transfer-Encoding") == "chunked"
            content = self._chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                content = gzip.decompress(content)
            if server.revoked:
                self._reply({"errors": [{"message": "user is not logged in"}]}, 401)
                return None
            return content

        def _chunks(self) -> bytes:
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def _reply(self, answer: dict[str, Any], status: int = 200) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Print nothing."""

    return Handler


@contextmanager
def serving(patch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Start a server, and set the environment variables with its address and a key."""
    server = WandbServer()
    patch.setenv("WANDB_BASE_URL", server.url)
    patch.setenv("WANDB_API_KEY", KEY)
    try:
        yield server
    finally:
        server.close()
