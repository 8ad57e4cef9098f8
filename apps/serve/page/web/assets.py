"""The page's own files, from memory, compressed once; their address changes when they do."""

import gzip
import hashlib
import html
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import JSONResponse, Response

from apps.serve.page.config import PageConfig
from apps.serve.page.render.code import stylesheet

_FOLDER = Path(__file__).with_name("static")
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_NAMED_BY_THE_PAGE = ("app.js", "scheme.js")
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    body: bytes
    gzipped: bytes
    media_type: str

    def response(self, accepts: str, cache: str) -> Response:
        headers = {"Cache-Control": cache, "Vary": "Accept-Encoding"}
        if "gzip" in accepts:
            headers["Content-Encoding"] = "gzip"
            return Response(self.gzipped, headers=headers, media_type=self.media_type)
        return Response(self.body, headers=headers, media_type=self.media_type)


class Assets:
    """All static files and the page's HTML."""

    def __init__(self, page: PageConfig) -> None:
        files = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir())}
        files["page.css"] += stylesheet().encode()
        index = files.pop("index.html").decode()
        digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
        self._digest = digest
        self._files = {
            name: _asset(body, _TYPES[Path(name).suffix]) for name, body in files.items()
        }
        self._index = (
            index.replace("{{modules}}", _preloaded(files))
            .replace("{{title}}", html.escape(page.title))
            .replace("{{static}}", f"static/{digest}")
        )

    def index(self, accepts: str, base: str = "") -> Response:
        """The page; `base` leads from its address to the page's root, such as "../"."""
        body = self._index.replace("{{base}}", base).encode()
        return _asset(body, "text/html").response(accepts, "no-cache")

    def static(self, digest: str, name: str, accepts: str) -> Response:
        """A page that was open before an update may still ask for its own version: it gets ours."""
        asset = self._files.get(name)
        if asset is None:
            return JSONResponse({"error": "There is nothing here."}, 404)
        return asset.response(accepts, _FOR_EVER if digest == self._digest else "no-cache")


def _preloaded(names: Iterable[str]) -> str:
    """A module names the next once it is there; told of all, a browser fetches them at once."""
    modules = (name for name in names if name.endswith(".js") and name not in _NAMED_BY_THE_PAGE)
    return "\n".join(
        f'<link rel="modulepreload" href="{{{{base}}}}{{{{static}}}}/{name}">' for name in modules
    )


def _asset(body: bytes, media_type: str) -> Asset:
    return Asset(body=body, gzipped=gzip.compress(body, 9, mtime=0), media_type=media_type)
