"""Where a path of the model service is now: a URI below one of the configured roots.

Paths are compared as text; nothing is looked up. Inside the pod the mounted volume is the boundary, links included.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rfuav_gateway.tasks.words import Problem, RefusedError, Said, said

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
SCHEMES = ("pvc", "s3", "hf", "file")
"""URIs with these are passed on as they are; the schema of the job says which of them it may read or write."""
_LONGEST_NAME = 200  # bytes
_SHOWN = 20  # roots in a message


@dataclass(frozen=True)
class Places:
    """The folders that clients may name."""

    roots: Mapping[str, str] = field(default_factory=dict)
    """URIs by absolute path: {"/data": "pvc://captures"}."""
    base: str = ""
    """Absolute path below which relative paths lie; empty: there are none."""

    def resolve(self, text: str, name: str) -> str:
        """The URI of the path or URI that a request has in its field `name`.

        Raises:
            RefusedError: the path leaves the roots; the message lists them.
        """
        scheme = _SCHEME.match(text)
        if scheme is not None:
            if scheme[1] not in SCHEMES:
                raise _refused(name, said("unknown_scheme", path=text))
            return text
        if not text.strip():
            raise _refused(name, said("no_path", roots=self._shown()))
        if not self.roots:
            raise _refused(name, said("no_roots", path=text))
        path = text
        if not text.startswith("/"):
            if not self.base:
                raise _refused(name, said("no_relative_paths", path=text, roots=self._shown()))
            path = posixpath.join(self.base, text)
            if not _below(_normal(path), _normal(self.base)):
                raise _refused(name, said("leaves_base", path=text, base=self.base))
        path = _normal(path)
        fitting = [(_normal(root), uri) for root, uri in self.roots.items() if _below(path, _normal(root))]
        if not fitting:
            raise _refused(name, said("outside_roots", path=text, roots=self._shown()))
        root, uri = max(fitting, key=lambda one: len(one[0]))
        rest, uri = path[len(root) :].strip("/"), uri.rstrip("/")
        return f"{uri}/{rest}" if rest else uri

    def _shown(self) -> str:
        listed = sorted(self.roots)
        return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "") or "-"


def below(uri: str, folder: str, name: str) -> str:
    """The URI of the folder below `uri`; `folder` is one step, from the field `name` of the request.

    Raises:
        RefusedError: it is not the name of one folder.
    """
    steps = folder.encode(errors="replace")
    bad = any(letter in "/\\" or letter < " " or letter == "\x7f" for letter in folder)
    if bad or folder in ("", ".", "..") or len(steps) > _LONGEST_NAME:
        raise _refused(name, said("one_folder", name=folder))
    return f"{uri.rstrip('/')}/{folder}"


def beside(uri: str) -> str | None:
    """The URI of the folder for results beside a file or folder; None: nothing is beside it, or it is read-only."""
    scheme, _, path = uri.rstrip("/").partition("://")
    if scheme == "hf" or not path.strip("/"):
        return None
    is_volume_or_bucket = scheme != "file" and "/" not in path
    return None if is_volume_or_bucket else f"{scheme}://{path}_results"


def _normal(path: str) -> str:
    """The absolute path without `.`, `..` and repeated slashes."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _refused(name: str, what: Said) -> RefusedError:
    return RefusedError(Problem(name, what))
