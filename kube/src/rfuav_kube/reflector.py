"""List-and-watch of one resource into a Cache, for resources whose events are too many for kopf.

A list is read in pages and compared with the cache; the watch continues from its resourceVersion, with bookmarks. An
expired version (410), errors inside the stream, refusals, silence and the end of a watch all lead to a retry; retries
without success are spaced by a back-off. Objects are decoded one by one, as their page arrives: an unreadable one is
marked as such, and the others are stored as usual.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from http import HTTPStatus
from typing import Any, Generic, Literal, Protocol, TypeVar

import aiohttp
import msgspec
import structlog

from rfuav_kube import backoff, clock
from rfuav_kube.cache import Cache, Part
from rfuav_kube.connection import Connection, NotSent, retry_after
from rfuav_kube.objects import Meta, leniently, version, words

log = structlog.get_logger()

PAGE = 200  # objects; of each most is thrown away, as annotations of up to 256 KiB
WATCH_SECONDS = 300
FIRST_BACKOFF, LAST_BACKOFF = 0.2, 30.0  # seconds
LASTING = 1.0  # seconds of a watch that did not end as soon as it had begun
REFRESH_RETRY = 1.0  # seconds
_SHOWN = 200  # bytes of an object that cannot be read


class _HasMeta(Protocol):
    @property
    def metadata(self) -> Meta: ...


class _MayBeUnreadable(Protocol):
    @property
    def unreadable(self) -> str: ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=_MayBeUnreadable)
R = TypeVar("R", bound=_HasMeta)


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None  # an empty list may arrive as null


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


def _event_of(read: type[Any]) -> type[Any]:
    """An event with its object, both read in one pass."""
    return msgspec.defstruct("Event", [("type", Literal["ADDED", "MODIFIED", "DELETED"]), ("object", read)])


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""


class _BookmarkMeta(msgspec.Struct, rename="camel"):
    resource_version: str


class _Bookmark(msgspec.Struct):
    metadata: _BookmarkMeta


class TooOld(Exception):  # noqa: N818  a state of the watch, not a fault
    """The resourceVersion is no longer watched: list again."""


class Refused(Exception):  # noqa: N818  an answer, not a fault
    """The API server did not serve the request.

    Args:
        retry_after: seconds that it asked to wait, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


_EXPECTED = (Refused, NotSent, aiohttp.ClientError, TimeoutError, OSError)  # of a server, and of the way to it


class Reflector(Generic[K, V, R]):
    """Keeps `cache` equal to what the API server holds under `path`.

    Args:
        read: the partial struct of one object.
        key: its key in the cache.
        value: what is held of it; the second argument says why something of the object was left out. None: nothing.
        selector: labels of the objects that are read; empty: all.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        cache: Cache[K, V] | Part[K, V],
        *,
        read: type[R],
        key: Callable[[R], K],
        value: Callable[[R, str], V | None],
        selector: str = "",
        idle_seconds: float = WATCH_SECONDS + 30,
    ) -> None:
        self._connection = connection
        self.path = path
        self._cache = cache
        self._key = key
        self._value = value
        self._chosen = {"labelSelector": selector} if selector else {}
        self._idle = idle_seconds
        self._kind = read
        self._list_decoder = msgspec.json.Decoder(_List)
        self._event_decoder = msgspec.json.Decoder(_event_of(read))
        self._unusual_event_decoder = msgspec.json.Decoder(_Event)
        self._version = ""
        self._tries = 0  # in a row that came to nothing
        self.synced = asyncio.Event()
        self.heard_at = clock.monotonic()  # when the API server last said something about these objects

    @property
    def resource(self) -> str:
        """The plural of what is watched."""
        return self.path.partition("?")[0].rpartition("/")[2]

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            watching = float("inf")
            problem: Exception | None = None
            try:
                if not self._version:
                    await self.relist()
                watching = clock.monotonic()
                await self._watch()
            except TooOld:
                self._version = ""
            except _EXPECTED as error:
                problem = error
            except Exception as error:  # noqa: BLE001  whatever is in an answer ends neither this watch nor the others
                self._version, problem = "", error
            self._tries = 1 if clock.monotonic() - watching > LASTING else self._tries + 1
            await asyncio.sleep(await self._pause(problem))

    async def _pause(self, problem: Exception | None) -> float:
        """Seconds before the next try; none after the first that ended well as soon as it had begun."""
        if isinstance(problem, _EXPECTED):
            away = await self._connection.reachable()
            self._tries = 1 if away else self._tries
        wait = backoff.jittered(backoff.grown(self._tries, first=FIRST_BACKOFF, most=LAST_BACKOFF))
        if problem is None:
            return wait if self._tries > 1 else 0.0
        wait = getattr(problem, "retry_after", None) or wait
        if not isinstance(problem, _EXPECTED):
            log.error("watch failed", path=self.path, wait=round(wait, 2), exc_info=problem)
        elif not away:
            log.warning("watch interrupted", path=self.path, error=words(problem), wait=round(wait, 2))
        return wait

    async def refresh(self) -> None:
        """Read everything once more, trying until it succeeds: the watch may be behind."""
        while True:
            try:
                return await self.relist()
            except (Refused, NotSent) as error:
                away = await self._connection.reachable()
                if not away:
                    log.warning("not read yet", path=self.path, error=str(error))
                wait = getattr(error, "retry_after", None) or (FIRST_BACKOFF if away else REFRESH_RETRY)
                await asyncio.sleep(wait)
            except Exception:  # whatever is in an answer, the next one may be another
                log.exception("not read yet", path=self.path)
                await asyncio.sleep(REFRESH_RETRY)

    async def relist(self) -> None:
        """Read everything in pages and drop deleted objects."""
        listed: list[K] = []
        named, after = True, ""  # one without a name may be any of those that are held
        while True:
            params = {"limit": str(PAGE)} | self._chosen | ({"continue": after} if after else {})
            status, body, asked = await self._connection.get_bytes(self.path, params)
            if status != HTTPStatus.OK:  # 410 too: the pages' snapshot has expired
                raise Refused(f"list answered {status}: {body[:300].decode(errors='replace')}", asked)
            page = self._list_decoder.decode(body)
            for item in page.items or ():
                read = self._take_in(item)
                if read is None:
                    named = False
                else:
                    listed.append(read[0])
            after = page.metadata.continue_
            if not after:
                break
        self._version = page.metadata.resource_version
        if named:
            self._cache.retain(listed, int(self._version))
        self.heard_at = clock.monotonic()
        self.synced.set()

    async def _watch(self) -> None:
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(WATCH_SECONDS),
            **self._chosen,
        }
        async with self._connection.stream(self.path, params, idle=self._idle) as response:
            if response.status == HTTPStatus.GONE:
                raise TooOld
            if response.status != HTTPStatus.OK:
                raise Refused(f"watch answered {response.status}", retry_after(response))
            async for line in _lines(response.content):
                self.heard_at = clock.monotonic()
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            event = self._event_decoder.decode(line)
        except (ValueError, RecursionError):
            self._take_unusual(line)
            return
        read = self._hold(event.object, "", line, deleted=event.type == "DELETED")
        if read is not None:
            self._version = read[1]

    def _take_unusual(self, line: bytes) -> None:
        """Take in an error, a bookmark, or an object of which something cannot be read."""
        event = self._unusual_event_decoder.decode(line)
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=_Status)
            if status.code == HTTPStatus.GONE:
                raise TooOld
            # What the stream said before may be incomplete: after an error only a list is sure.
            self._version = ""
            raise Refused(f"error {status.code} in the watch: {status.message}")
        if event.type == "BOOKMARK":
            self._version = msgspec.json.decode(event.object, type=_Bookmark).metadata.resource_version
            return
        read = self._take_in(event.object, deleted=event.type == "DELETED")
        if read is not None:
            self._version = read[1]

    def _take_in(self, data: msgspec.Raw, *, deleted: bool = False) -> tuple[K, str] | None:
        """Take in one object: its key and version; None if not even these can be read."""
        try:
            item, why = leniently(data, self._kind)
        except Exception as error:  # noqa: BLE001  of this object; the others come in as ever
            self._say_unreadable(data, error)
            return None
        return self._hold(item, why, data, deleted=deleted)

    def _hold(self, item: R, why: str, data: bytes | msgspec.Raw, *, deleted: bool) -> tuple[K, str] | None:
        """The same of an object that was decoded from `data`; `why` something of it was left out."""
        try:
            key, at = self._key(item), version(item.metadata)
            if not deleted and self._cache.knows(key, at):  # by the answer to a write, or an earlier list
                return key, item.metadata.resource_version
            value = None if deleted else self._value(item, why)
        except Exception as error:  # noqa: BLE001  of this object; the others come in as ever
            self._say_unreadable(data, error)
            return None
        try:
            news = self._cache.remove(key, at) if value is None else self._cache.put(key, at, value)
        except Exception:  # what follows from it is at fault, not the object
            log.exception("object could not be processed", path=self.path, key=key)
            news = False
        if news and value is not None and value.unreadable:
            log.warning("object set aside", path=self.path, key=key, version=at, error=value.unreadable)
        return key, item.metadata.resource_version

    def _say_unreadable(self, data: bytes | msgspec.Raw, error: Exception) -> None:
        log.warning("object cannot be read", path=self.path, data=_start_of(data), error=words(error))


def _start_of(data: bytes | msgspec.Raw) -> str:
    """The beginning of the body."""
    return bytes(data)[:_SHOWN].decode(errors="replace")


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # StreamReader.readline is bounded to 64 KiB; an object may be larger.
    rest = bytearray()
    async for chunk in stream.iter_any():
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            rest += chunk[start:end]
            if rest:
                yield bytes(rest)
            rest.clear()
            start = end + 1
        rest += chunk[start:]
