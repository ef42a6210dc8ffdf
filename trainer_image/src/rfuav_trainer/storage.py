"""Folders in object stores (s3://, hf://) as folders on this machine: all names at once, the bytes when first read.

In: a URI. Out: a local path that can be searched like any other; whoever reads a file below it opens it with `opened`.
Until then it is an empty file, so that reading past `opened` fails loudly. Credentials come from the environment alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from rfuav_crds import parse_quantity
from rfuav_trainer import runtime
from rfuav_trainer.errors import (
    DiskFullError,
    InputError,
    InvalidConfigurationError,
    JobError,
    StorageError,
    UnreadableFileError,
    disk_full,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

log = structlog.get_logger()

REMOTE = ("s3", "hf")
MANIFESTS = (".jsonl", ".parquet")
CACHE_FOLDER = "TRAINER_CACHE"
CACHE_BYTES = "TRAINER_CACHE_BYTES"
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
FREE_SHARE = 0.5
"""Share of the cache volume's free space that is used when TRAINER_CACHE_BYTES does not say."""
S3_PROVIDERS = {"env", "assume-role-with-web-identity", "container-role"}
"""Where botocore may look for credentials: variables, and the tokens that a cluster names in variables; in no file of
the home folder, and not at the machine, whose role is not the job's."""
PATIENCE_SECONDS = 1
"""How long the end of a process waits for objects on their way."""
READERS = 16
"""Objects fetched side by side: they wait for the network, not for this machine."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL where it is not Amazon's)",
    "hf": "HF_TOKEN (and HF_ENDPOINT for a mirror)",
}


@dataclass
class _Object:
    """One object: where it is, how large, and whether its bytes are here."""

    store: Any
    scheme: str
    remote: str
    size: int
    here: bool = False
    users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Cache:
    """What has been fetched, at most `limit` bytes of it: what was not read for longest goes first.

    Args:
        folder: where; it is this process' own and removed with it.
        limit: bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.used = 0
        self._kept = 0  # bytes that stay to the end
        self._objects: dict[Path, _Object] = {}
        self._here: OrderedDict[Path, _Object] = OrderedDict()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="fetch")
        self._ahead: set[Future[None]] = set()

    def path(self, uri: str, where: str) -> Path:
        """The local path of a remote folder or object. An object is fetched at once, and stays.

        Raises:
            InputError: there is nothing, or it may not be read.
            StorageError: the store does not answer.
        """
        scheme, _, rest = uri.rstrip("/").partition("://")
        if rest.endswith(MANIFESTS):
            return self.path(uri.rpartition("/")[0], where) / rest.rpartition("/")[2]
        store = _store(scheme)
        try:
            listed = _ask(lambda: store.find(rest, detail=True), f"{where}: {uri}", scheme)
        except FileNotFoundError:  # also what a private repository answers to strangers
            listed = {}
        local = self.folder / scheme / rest
        if not listed:
            raise InputError(f"{where}: {uri} does not exist, is empty, or is not shown to these credentials")
        for name, details in listed.items():
            inside = str(name)[len(rest) :].removeprefix("/")
            self._register(_Object(store, scheme, str(name), int(details.get("size") or 0)), local, inside)
        log.info("listed", uri=uri, objects=len(listed), bytes=sum(int(d.get("size") or 0) for d in listed.values()))
        if local in self._objects:
            self._hold(local, self._objects[local])
            with self._changed:
                self._kept += self._objects[local].size
        return local

    def _register(self, found: _Object, root: Path, inside: str) -> None:
        """Let an empty file stand for an object; one whose name cannot be a file's here is left out."""
        path = root / inside if inside else root
        if found.remote.endswith("/") or path in self._objects:
            return
        if inside and not {"", ".", ".."}.isdisjoint(inside.split("/")):
            log.warning("object left out: its name cannot be a path", object=found.remote)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except (OSError, ValueError) as error:  # too long, or `a` is an object and a folder
            if disk_full(error):
                raise
            log.warning("object left out: its name cannot be a path", object=found.remote, problem=str(error))
            return
        self._objects[path] = found

    def size(self, path: Path) -> int | None:
        """Bytes of the object that the empty file at `path` stands for; None for everybody else's files."""
        found = self._objects.get(path)
        return None if found is None else found.size

    @contextmanager
    def opened(self, path: Path) -> Iterator[Path]:
        """`path` with its bytes, which stay while the context lasts."""
        found = self._objects.get(path)
        if found is None:
            yield path
            return
        self._hold(path, found)
        try:
            yield path
        finally:
            with self._changed:
                found.users -= 1
                self._changed.notify_all()

    def fetch_ahead(self, paths: Iterable[Path]) -> None:
        """Begin to fetch what will be read soon."""
        for path in paths:
            found = self._objects.get(path)
            if found is not None and not found.here:
                coming = self._pool.submit(self._fetch_quietly, path)
                self._ahead.add(coming)
                coming.add_done_callback(self._ahead.discard)

    def _fetch_quietly(self, path: Path) -> None:
        try:
            with self.opened(path):
                pass
        except JobError:
            log.debug("not fetched ahead", file=str(path))  # who reads it will be told why

    def _hold(self, path: Path, found: _Object) -> None:
        with found.lock:
            with self._changed:
                if found.here:
                    found.users += 1
                    self._here.move_to_end(path)
                    return
                self._make_room(path, found.size)
                self.used += found.size
                found.users += 1
            try:
                self._fetch(path, found)
            except BaseException:
                with self._changed:
                    self.used -= found.size
                    found.users -= 1
                    self._changed.notify_all()
                raise
            with self._changed:
                found.here = True
                self._here[path] = found

    def _make_room(self, path: Path, size: int) -> None:
        """Let go of what was not read for longest, waiting for others to be through with it; `_changed` is held."""
        if size > self.limit - self._kept:
            raise InputError(
                f"{path.name} has {size} bytes, the cache in {self.folder} may hold {self.limit - self._kept}: raise "
                f"{CACHE_BYTES}, or name a larger volume in {CACHE_FOLDER} (podTemplate.env)",
                reason="CacheTooSmall",
            )
        while self.used + size > self.limit:
            idle = next((p for p, o in self._here.items() if not o.users), None)
            if idle is None:
                self._changed.wait()
                continue
            gone = self._here.pop(idle)
            gone.here = False
            self.used -= gone.size
            empty = _beside(idle, "empty")
            empty.touch()
            empty.replace(idle)  # never truncated: somebody may have the old bytes mapped

    def _fetch(self, path: Path, found: _Object) -> None:
        temporary = _beside(path, "fetched")
        try:
            _ask(lambda: found.store.get_file(found.remote, str(temporary)), found.remote, found.scheme)
            size = temporary.stat().st_size
            if size != found.size:
                raise UnreadableFileError(f"has {size} bytes, had {found.size} when it was listed: it was replaced")
            temporary.replace(path)
        except FileNotFoundError as error:
            raise UnreadableFileError("was removed after it had been listed") from error
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> bool:
        """Remove all of it; what is on its way is waited for, but not for long. Returns whether nothing is any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        _, coming = wait(list(self._ahead), timeout=PATIENCE_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)
        return not coming


_cache: list[Cache] = []
_starting = threading.Lock()


def path(uri: str, where: str) -> Path:
    """The local path of the remote folder or object `uri`; see `Cache.path`. `where` is the field's name."""
    with _starting:
        if not _cache:
            _cache.append(_new_cache(volume(), os.environ.get(CACHE_BYTES)))
    return _cache[0].path(uri, where)


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """`path`, with its bytes fetched if it is a remote file's. One at a time in a thread: others may wait for room.

    Raises:
        UnreadableFileError: it was removed or replaced since it was listed.
        StorageError: the store does not answer.
    """
    if not _cache:
        yield path
        return
    with _cache[0].opened(path) as here:
        yield here


def size(path: Path) -> int:
    """Bytes of a file, remote or not, without fetching it."""
    known = _cache[0].size(path) if _cache else None
    return path.stat().st_size if known is None else known


def fetch_ahead(paths: Iterable[Path]) -> None:
    """Begin to fetch what will be read soon; nothing to do for local files."""
    if _cache:
        _cache[0].fetch_ahead(paths)


def leave(code: int) -> NoReturn:
    """End the process with this exit code, with nothing left of what was fetched."""
    ended = [_cache.pop().close() for _ in range(len(_cache))]
    sys.stdout.flush()
    sys.stderr.flush()
    if not all(ended):
        os._exit(code)  # else Python waits for the threads that fetch, longer than a pod has to end
    raise SystemExit(code)


def volume() -> Path:
    """The scratch folder of this machine or pod."""
    return Path(os.environ.get(CACHE_FOLDER) or tempfile.gettempdir())


def _new_cache(base: Path, limit: str | None) -> Cache:
    try:
        base.mkdir(parents=True, exist_ok=True)
        most = int(parse_quantity(limit)) if limit else _share_of(base)
        own = Path(tempfile.mkdtemp(prefix="rfuav-cache-", dir=base))
    except ValueError as error:
        raise InvalidConfigurationError(f"{CACHE_BYTES} is {limit!r}: write bytes, as in 20Gi") from error
    except OSError as error:
        raise InvalidConfigurationError(f"{CACHE_FOLDER} {base} cannot be written ({error.strerror})") from error
    return Cache(own, most)


def _share_of(volume: Path) -> int:
    """Bytes for this process when nobody said: every process of the pod has a cache there."""
    return int(shutil.disk_usage(volume).free * FREE_SHARE) // runtime.processes()


def _beside(path: Path, what: str) -> Path:
    """A name in the same folder that is no longer than a name may be, however long that of `path` is."""
    return path.with_name(f".{hashlib.sha256(path.name.encode()).hexdigest()}.{what}")


def _store(scheme: str) -> Any:
    """A client of the store, configured by the environment; nothing is read from files in the home folder for hf."""
    if scheme == "s3":
        from aiobotocore.session import AioSession  # type: ignore[import-untyped]  # noqa: PLC0415  (seconds to import)
        from s3fs import S3FileSystem  # noqa: PLC0415

        session = AioSession()
        resolver = session.get_component("credential_provider")
        for method in [provider.METHOD for provider in resolver.providers if provider.METHOD not in S3_PROVIDERS]:
            resolver.remove(method)
        return S3FileSystem(session=session, skip_instance_cache=True)
    from huggingface_hub import HfFileSystem  # noqa: PLC0415  (seconds to import)
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    token = os.environ.get("HF_TOKEN") or False
    return HfFileSystem(endpoint=os.environ.get("HF_ENDPOINT"), token=token, skip_instance_cache=True)


def _ask(question: Callable[[], Any], what: str, scheme: str) -> Any:
    """The answer of a store. Its client has retried what is worth it."""
    try:
        return question()
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise _denied(what, scheme, error) from None
    except Exception as error:  # noqa: BLE001  (the clients' errors share no base; their texts may quote signatures)
        kind = type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", None)
        if disk_full(error):
            raise DiskFullError(
                f"no space left in the cache while fetching {what}: lower {CACHE_BYTES}, or name a larger volume in "
                f"{CACHE_FOLDER} (podTemplate.env)"
            ) from None
        if status in {401, 403} or kind in {"NoCredentialsError", "PartialCredentialsError"}:
            raise _denied(what, scheme, error) from None
        raise StorageError(f"{what} cannot be read now: {kind}: {without_secrets(error)}") from None


def _denied(what: str, scheme: str, error: Exception) -> InputError:
    return InputError(
        f"{what} may not be read ({without_secrets(error)}): put {CREDENTIALS[scheme]} into a Secret and name it "
        "in podTemplate.envFrom, or into the environment on a laptop",
        reason="AccessDenied",
    )


def without_secrets(error: Exception) -> str:
    """The error's first line without credentials of the environment, and without the query of any address: it signs."""
    text = (str(error).splitlines() or [""])[0]
    for name in SECRETS:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, f"${name}")
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1?...", text)
