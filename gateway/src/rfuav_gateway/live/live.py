"""The streams of all readers: a first picture, then what changes, as far as each may see it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import chain

from rfuav_gateway.cluster.tasks import Key, Tasks
from rfuav_gateway.cluster.whole import Whole
from rfuav_gateway.live import events
from rfuav_gateway.live.board import Boards
from rfuav_gateway.live.hub import Hub
from rfuav_gateway.live.pace import Pace
from rfuav_gateway.tasks import boards, rows
from rfuav_gateway.tasks.sight import Sight
from rfuav_kube import clock

CONTENT_TYPE = "text/event-stream"
Look = Callable[[], Awaitable[Sight | None]]
"""What a reader may see now; None: nothing any more, because their credentials do not hold."""


class TooManyStreams(Exception):  # noqa: N818  a state, not a fault
    """As many as are allowed are being read."""


class Live:
    """The streams.

    Args:
        tasks: the jobs.
        whole: the cluster.
        pace: the limits.
    """

    def __init__(self, tasks: Tasks, whole: Whole, pace: Pace | None = None) -> None:
        self._tasks = tasks
        self._pace = pace or Pace()
        self._hub = Hub(tasks, self._pace, priority=whole.priority)
        self._boards = Boards(whole, self._pace, changed=self._hub.ring_soon)
        self._closed = False

    @property
    def readers(self) -> int:
        """How many there are."""
        return self._hub.readers

    def close(self) -> None:
        """End all streams; their readers are told to come back."""
        self._closed = True
        self._hub.ring()

    async def picture(self, sight: Sight) -> bytes:
        """What a stream begins with, as one JSON object."""
        found: list[bytes] = []
        self._hub.enter()
        try:
            keys = self._hub.picture(sight)
            for at in range(0, len(keys), self._pace.chunk):
                found += [row for key in keys[at : at + self._pace.chunk] if (row := self._hub.row(key)) is not None]
                await asyncio.sleep(0)  # others get their turn
        finally:
            self._hub.leave()
        board = await self._boards.now()
        parts = [b'"now":%b' % events.json(clock.now()), b'"scope":%b' % events.json(self._scope(sight))]
        parts += [
            b'"rows":[%b]' % b",".join(found),
            boards.pools(board, sight)[1:-1],
            boards.quotas(board, sight)[1:-1],
        ]
        return b"{%b}" % b",".join(parts)

    @asynccontextmanager
    async def follow(self, look: Look, *, packed: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """The events for one reader, until the context is left.

        Args:
            look: asked first, and then at least every minute.
            packed: whether the stream is compressed.

        Raises:
            TooManyStreams: try again later.
        """
        if self.readers >= self._pace.streams:
            raise TooManyStreams
        self._hub.enter()
        self._boards.enter()
        try:
            sight = await look()
            plain = self._events(sight, look)
            yield _packed(plain) if packed else plain
        finally:
            self._boards.leave()
            self._hub.leave()

    async def _events(self, sight: Sight | None, look: Look) -> AsyncGenerator[bytes, None]:
        hub, pace = self._hub, self._pace
        number, told, looked, restart = hub.number, _Told(), clock.monotonic(), True
        spoke = looked
        yield events.HELLO
        while sight is not None and not self._closed:
            bell = hub.bell
            pieces: list[Iterable[bytes]] = []
            if clock.monotonic() - looked >= pace.recheck:
                seen, looked = await look(), clock.monotonic()
                if seen is None:
                    break
                if seen != sight and not restart:
                    pieces.append(self._moved(sight, seen, number))
                sight = seen
            changed = hub.since(number)
            if restart or changed is None:  # it has nothing yet, or is too far behind
                pieces.append([events.event("start", hub.number, {"now": clock.now(), "scope": self._scope(sight)})])
                pieces.append(self._rows(hub.picture(sight), hub.number, always=True))
            else:
                pieces.append(self._rows([key for key in changed if sight.sees(*key[:2])], hub.number))
            pieces.append(told.news(self._boards.views(sight), hub.number))
            number, restart = hub.number, False
            for piece in chain.from_iterable(pieces):
                if clock.monotonic() - looked >= pace.recheck:  # it reads slowly: what may it see by now?
                    seen, looked = await look(), clock.monotonic()
                    if seen != sight:
                        sight, restart = seen, True
                        break
                spoke = clock.monotonic()
                yield piece
            if restart:
                continue
            if clock.monotonic() - spoke >= pace.keep_alive:
                spoke = clock.monotonic()
                yield events.KEEP_ALIVE
            due = min(spoke + pace.keep_alive, looked + pace.recheck)
            await hub.rung(bell, due - clock.monotonic())
        why = "stopping" if self._closed else "signed-out"
        yield events.event("bye", number, {"why": why})

    def _rows(self, keys: list[Key], number: int, *, always: bool = False) -> Iterator[bytes]:
        """Events with these jobs as they are when each event is made; `always`: one even without any."""
        size = self._pace.chunk
        for at in range(0, max(len(keys), int(always)), size):
            found = {key: self._hub.row(key) for key in keys[at : at + size]}
            yield events.jobs(
                number,
                (row for row in found.values() if row is not None),
                [rows.key(*key) for key, row in found.items() if row is None],
                more=at + size < len(keys),
            )

    def _moved(self, old: Sight, new: Sight, number: int) -> Iterator[bytes]:
        """What a reader is told who sees something else now: the scope, jobs that vanish, and jobs that appear."""
        hub, size = self._hub, self._pace.chunk
        yield events.event("scope", hub.number, {"scope": self._scope(new)})
        changed = (key for key in hub.since(number) or () if old.sees(*key[:2]) and not new.sees(*key[:2]))
        lost = [rows.key(*key) for key in {*hub.all_of(old, new), *changed}]
        for at in range(0, len(lost), size):
            yield events.jobs(hub.number, (), lost[at : at + size], more=False)
        yield from self._rows([key for key in hub.picture(new) if not old.sees(*key[:2])], hub.number)

    def _scope(self, sight: Sight) -> list[str] | str:
        return "all" if sight.is_whole else sight.namespaces()


class _Told:
    """What a reader was last told of pools and quotas."""

    def __init__(self) -> None:
        self._views: dict[str, bytes] = {}

    def news(self, views: Mapping[str, bytes], number: int) -> Iterator[bytes]:
        """Events with those that are different now."""
        for name, view in views.items():
            if self._views.get(name) != view:
                self._views[name] = view
                yield events.encoded(name, number, view)


async def _packed(plain: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    gzip = events.Gzip()
    async for piece in plain:
        yield gzip.packed(piece)
    yield gzip.end()
