"""The files of the page, read once and held: what is not among them does not exist, whatever a path says.

Each has an ETag of its content, and a compressed form if that is smaller. Files below `vendor/` carry their version in
their path and never change.
"""

import gzip
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from fastapi import Response

FOLDER = Path(__file__).parent.parent / "page"
INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
_PLAIN = "text/plain; charset=utf-8"  # licences
_IMPORT_MAP = re.compile(r"<script\b[^>]*\btype=[\"']?importmap[\"']?[^>]*>(.*?)</script>", re.DOTALL)
_CHANGES, _NEVER_CHANGES = "no-cache", "public, max-age=31536000, immutable"


class File(NamedTuple):
    """One file of the page."""

    content: bytes
    compressed: bytes | None
    media_type: str
    etag: str
    cache_control: str


def files(folder: Path = FOLDER) -> dict[str, File]:
    """The files of a folder, by their path below it; hidden ones are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith((".", "__")) for part in name.split("/")):
            found[name] = _file(name, path.read_bytes())
    return found


def _file(name: str, content: bytes) -> File:
    compressed = gzip.compress(content, 9, mtime=0)
    return File(
        content=content,
        compressed=compressed if len(compressed) < len(content) else None,
        media_type=_TYPES.get(Path(name).suffix, _PLAIN),
        etag=f'"{sha256(content).hexdigest()[:32]}"',
        cache_control=_NEVER_CHANGES if name.startswith("vendor/") else _CHANGES,
    )


def policy(index: bytes) -> str:
    """The Content-Security-Policy of the page: it loads and asks nothing but its own origin.

    Inline scripts are forbidden; the import map of the page, which has to be inline, is allowed by its hash.
    """
    maps = _IMPORT_MAP.findall(index.decode())
    hashes = "".join(f" 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in maps)
    return (
        f"default-src 'none'; script-src 'self'{hashes}; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def answer(file: File, headers: Mapping[str, str], policy: str) -> Response:
    """The file, or 304 if the client has it.

    Args:
        file: which.
        headers: of the request.
        policy: the Content-Security-Policy.
    """
    packed = file.compressed is not None and "gzip" in headers.get("accept-encoding", "")
    etag = file.etag if not packed else f'{file.etag[:-1]}-gzip"'
    sent = {
        "ETag": etag,
        "Cache-Control": file.cache_control,
        "Vary": "Accept, Accept-Encoding",
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    known = {one.strip().removeprefix("W/") for one in headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=sent)
    if packed:
        sent["Content-Encoding"] = "gzip"
    return Response(file.compressed if packed else file.content, media_type=file.media_type, headers=sent)
