"""As much of a model hub's HTTP API as an upload and a download need, on the loopback address."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "1" * 40


class Hub(ThreadingHTTPServer):
    """Repositories by id, each file by its path; an upload without the token is refused."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.token = token
        self.repositories: dict[str, dict[str, bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Request(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._answer(401, {"error": "Invalid credentials in Authorization header"})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.repositories[name] = {}
            self._answer(200, {"url": f"{self.server.url}/{name}"})
        elif "/preupload/" in self.path:
            kinds = {"uploadMode": "regular", "shouldIgnore": False}
            files = [{"path": f["path"], **kinds} for f in json.loads(body)["files"]]
            self._answer(200, {"files": files})
        else:
            self._commit(body)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            repository = "/".join(self.path.split("/")[3:5])
            files = [{"rfilename": name} for name in self.server.repositories[repository]]
            self._answer(200, {"id": repository, "sha": COMMIT, "siblings": files})
            return
        content = self._file_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def _file_headers(self) -> bytes:
        """Begin the answer for /ORG/NAME/resolve/COMMIT/FILE; the file's content."""
        organization, name, _, _, path = self.path[1:].split("/", 4)
        content = self.server.repositories[f"{organization}/{name}"][path]
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def _commit(self, body: bytes) -> None:
        repository = self.path.removeprefix("/api/models/").split("/commit/")[0]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.repositories[repository][line["value"]["path"]] = content
        self._answer(200, {"commitUrl": f"{self.server.url}/{repository}", "commitOid": COMMIT})

    def _answer(self, code: int, value: dict) -> None:
        payload = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(token: str) -> Iterator[Hub]:
    with Hub(token) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
