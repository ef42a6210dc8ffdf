"""The way to the API server: through kubectl, as the user.

`kubectl proxy` serves it on a socket, in a folder that only the user may enter, and ends with this process. Contexts,
credential plugins, certificates and HTTP proxies are kubectl's business, and behave as in kubectl; a client library
would take ten times as long to import as kubectl takes to start.
"""

import contextlib
import email.utils
import http.client
import json
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from rfuav_cli.failures import FAILED, NO_CLUSTER, NOT_THERE, USAGE, Failure, Refused

JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"
PAGE = 500  # objects of a list at a time
START_SECONDS, ANSWER_SECONDS = 30.0, 60.0
_SHOWN = 300  # characters of an answer that is no object of the API
# Ends kubectl when this process does, however it ends: its end of the pipe closes, and `read` returns. The shell keeps
# no end of kubectl's own pipes, so that they close with kubectl.
_GUARD = 'exec 3<&0; "$@" </dev/null 3<&- & exec >&- 2>&-; read -r _ <&3; kill $! '
_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class _Socket(http.client.HTTPConnection):
    """HTTP on the socket of a file."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Session:
    """Requests to the API server, as the user of kubectl.

    Args:
        flags: of kubectl, as in `--context=lab`.
        namespace: the one that was named; empty: that of the context.
    """

    def __init__(self, flags: Iterable[str] = (), namespace: str = "") -> None:
        self._flags = list(flags)
        self._named = namespace
        self._exit = contextlib.ExitStack()
        self._socket = ""
        self._starting = threading.Lock()
        self._view: subprocess.Popen[str] | None = None
        self._behind = 0.0  # seconds of our clock behind that of the API server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._exit.close()

    def _start(self) -> None:
        """Start kubectl, when something is asked for the first time: some commands ask nothing.

        Raises:
            Failure: it does not start.
        """
        with self._starting:
            if self._socket:
                return
            kubectl = shutil.which("kubectl")
            if kubectl is None:
                raise Failure("kubectl is not in PATH: install it, or put its folder into PATH", NO_CLUSTER)
            with contextlib.ExitStack() as undo:
                folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="rfuav-"))  # mode 0700
                at = f"{folder}/api"
                if not self._named:  # meanwhile
                    shown = ["config", "view", "--minify", "--output=jsonpath={.contexts[0].context.namespace}"]
                    self._view = undo.enter_context(_program([kubectl, *shown, *self._flags]))
                _serving(undo.enter_context(_guarded([kubectl, "proxy", f"--unix-socket={at}", *self._flags])))
                self._exit, self._socket = undo.pop_all(), at

    @cached_property
    def namespace(self) -> str:
        """The namespace that was named, else that of kubectl's context."""
        if self._named:
            return self._named
        self._start()
        if self._view is None:
            return "default"
        found = self._view.communicate()[0].strip()
        if found:
            return found
        return _IN_POD.read_text() if _IN_POD.is_file() else "default"

    @property
    def now(self) -> datetime:
        """The API server's time, as far as an answer has shown it."""
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + self._behind, UTC)

    def get(self, path: str, **params: str) -> dict[str, Any]:
        """An object.

        Raises:
            Refused: it is not there, or the user may not see it.
        """
        return self.send("GET", path, **params)

    def items(self, path: str, **params: str) -> list[dict[str, Any]]:
        """All objects of a list.

        Raises:
            Refused: the user may not see it.
        """
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.get(path, limit=str(PAGE), **params, **({"continue": after} if after else {}))
            found += page.get("items") or []
            after = (page.get("metadata") or {}).get("continue") or ""
            if not after:
                return found

    def lists(self, paths: Iterable[str]) -> list[list[dict[str, Any]] | Refused]:
        """Several lists at once; of what is refused, the refusal."""
        return self._at_once(self.items, paths)

    def gets(self, paths: Iterable[str]) -> list[dict[str, Any] | Refused]:
        """Several objects at once; of what is refused, the refusal."""
        return self._at_once(self.get, paths)

    @staticmethod
    def _at_once(ask: Any, paths: Iterable[str]) -> list[Any]:
        def answer(path: str) -> Any:
            try:
                return ask(path)
            except Refused as refused:
                if refused.status == HTTPStatus.UNAUTHORIZED or refused.code == NO_CLUSTER:
                    raise
                return refused

        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(answer, paths))

    def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = JSON, **params: str
    ) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            Refused: the API server did not fulfil it.
        """
        with self._asked(method, path, params, body=body, content_type=content_type) as answer:
            data = _read(answer)
        found = json.loads(data) if data else {}
        return found if isinstance(found, dict) else {}

    @contextlib.contextmanager
    def lines(self, path: str, params: Mapping[str, str], *, idle: float | None = None) -> Iterator[Iterator[bytes]]:
        """The lines of a long answer as they come: of a watch, or of a log.

        Args:
            path: what is asked for.
            params: the query.
            idle: the longest silence, in seconds; None: any. The lines end with it.

        Raises:
            Refused: the API server did not fulfil it.
        """
        with self._asked("GET", path, params, idle=idle) as answer:
            yield _lines(answer)

    @contextlib.contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        *,
        body: Any = None,
        content_type: str = JSON,
        idle: float | None = ANSWER_SECONDS,
    ) -> Iterator[http.client.HTTPResponse]:
        self._start()
        connection = _Socket(self._socket, idle)
        query = f"{'&' if '?' in path else '?'}{urllib.parse.urlencode(params)}" if params else ""
        headers = {"Accept": JSON, "User-Agent": "kubectl-rfuav"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body), content_type
        try:
            try:
                connection.request(method, path + query, data, headers)
                answer = connection.getresponse()
            except TimeoutError as error:
                raise Failure(f"the cluster does not answer within {idle:.0f} s: try again", NO_CLUSTER) from error
            except (OSError, http.client.HTTPException) as error:
                raise Failure(f"kubectl proxy ended ({error}): try again", NO_CLUSTER) from error
            self._hear(answer.headers.get("Date"))
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise _refusal(answer.status, _read(answer), method, path)
            yield answer
        finally:
            connection.close()

    def _hear(self, date: str | None) -> None:
        with contextlib.suppress(ValueError, TypeError):
            ahead = email.utils.parsedate_to_datetime(str(date)).timestamp() - datetime.now(UTC).timestamp()
            self._behind = ahead if abs(ahead) > 1 else 0.0  # the header has whole seconds


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"the cluster's answer broke off ({error}): try again", NO_CLUSTER) from error


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            line = answer.readline()
        except (OSError, http.client.HTTPException, ValueError):  # it broke off: who reads on asks again
            return
        if not line:
            return
        yield line


@contextlib.contextmanager
def _program(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@contextlib.contextmanager
def _guarded(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is ours: what is under way is ended first
    ) as process:
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait()


def _serving(proxy: subprocess.Popen[str]) -> None:
    """Wait until the proxy serves.

    Raises:
        Failure: it did not start.
    """
    said = proxy.stdout.readline() if proxy.stdout else ""
    if said.startswith("Starting to serve"):
        return
    words = (proxy.stderr.read() if proxy.stderr else "").strip().splitlines()
    why = words[-1].removeprefix("error: ") if words else "kubectl proxy did not start"
    raise Failure(f"{why}: check --context and --kubeconfig with `kubectl config get-contexts`", NO_CLUSTER)


def _refusal(status: int, body: bytes, method: str, path: str) -> Refused:
    """What is said of an answer that is not what was asked for."""
    try:
        found = json.loads(body)
        reason, message = str(found.get("reason") or ""), str(found.get("message") or "")
    except (ValueError, AttributeError):
        text = " ".join(body.decode(errors="replace").split())[:_SHOWN]
        if status == HTTPStatus.NOT_FOUND and path.startswith("/apis/rfuav.io"):
            text = "this cluster does not know rfuav.io: install RFUAV Operator in it, or choose another --context"
            return Refused(status, "", text, NO_CLUSTER)
        return Refused(status, "", f"kubectl cannot reach the cluster: {_because(text)}", NO_CLUSTER)
    if status == HTTPStatus.UNAUTHORIZED:
        text = "the cluster does not accept your credentials: log in again, or choose another --context"
        return Refused(status, reason, text, NOT_THERE)
    if status == HTTPStatus.FORBIDDEN:
        return Refused(status, reason, _forbidden(method, path, message), NOT_THERE)
    if status == HTTPStatus.NOT_FOUND:
        return Refused(status, reason, message, NOT_THERE)
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        return Refused(status, reason, message, USAGE)
    return Refused(status, reason, message or f"the cluster answered {status}", FAILED)


_IN_NAMESPACE = re.compile(r"/namespaces/(?P<namespace>[^/]+)/(?P<what>[^/?]+)")
_VERBS = {"GET": "read", "POST": "create", "PATCH": "change", "DELETE": "delete"}


def _forbidden(method: str, path: str, message: str) -> str:
    if "is forbidden: User" not in message:  # not a right that lacks: a policy, a quota
        return message
    found, verb = _IN_NAMESPACE.search(path), _VERBS[method]
    if found is not None:
        what, namespace = found["what"], found["namespace"]
        return f"you may not {verb} {what} in namespace {namespace}: name another with -n, or ask for a role"
    what = path.partition("?")[0].rpartition("/")[2]
    return f"you may not {verb} {what} in the whole cluster: leave -A out, or name a namespace with -n"


def _because(text: str) -> str:
    """The cause in a chain of Go errors: `a: b: connection refused`, the end of it."""
    return text.rpartition("dial tcp ")[2] if "dial tcp " in text else text or "it gave no reason"
