"""Streams of logs against an API server that speaks the log endpoint, with its interruptions."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from datetime import datetime

import pytest
from gateway.logs.kubelet import BASE, FakeCluster, Task, cluster
from gateway.logs.reading import Reader
from unit.kube.fake_api import until

from rfuav_gateway.logs import entries, stream
from rfuav_gateway.logs.logs import Gone, Logs, Over, TooManyStreams, Unanswered
from rfuav_gateway.logs.pace import Pace
from rfuav_gateway.logs.places import instant
from rfuav_gateway.logs.source import End, Pod
from rfuav_kube.connection import Connection

QUICK = Pace(batch=0.001, first_pause=0.01, longest_pause=0.02, linger=0.01, last_lines=2.0, patience=5.0)
DONE = End("completed", "all 3 epochs are done")
SECOND = 10**9


@pytest.fixture
async def api(tmp_path):
    async with cluster(tmp_path) as made:
        yield made


@pytest.fixture
def kubelet(api: tuple[FakeCluster, Connection]) -> FakeCluster:
    return api[0]


class Desk:
    """Readers that are closed at the end of the test."""

    def __init__(self, connection: Connection, stack: AsyncExitStack) -> None:
        self._connection, self._stack = connection, stack
        self.logs = self.another()

    def another(self, **pace: float) -> Logs:
        """The logs of another gateway, which knows nothing."""
        made = Logs(self._connection, pace=QUICK._replace(**pace))
        self._stack.push_async_callback(made.close)
        return made

    async def reader(self, task: Task, logs: Logs | None = None, **options) -> Reader:
        return Reader(await self._stack.enter_async_context((logs or self.logs).follow(task, **options)))


@pytest.fixture
async def desk(api: tuple[FakeCluster, Connection]):
    async with AsyncExitStack() as stack:
        yield Desk(api[1], stack)


def numbered(count: int, first: int = 0, every: int = SECOND // 10) -> list[tuple[int, str]]:
    return [(number * every, f"line {number}") for number in range(first, first + count)]


def names(count: int, first: int = 0) -> list[str]:
    return [f"line {number}" for number in range(first, first + count)]


# --- what a reader gets


async def test_what_there_is_then_what_comes_then_the_end(kubelet, desk):
    pod, task = kubelet.pod("train-1", *numbered(3)), Task(Pod("train-1"))
    reader = await desk.reader(task)
    assert await reader.messages(3) == names(3)
    await pod.log(*numbered(2, first=3))
    assert await reader.messages(5) == names(5)
    await pod.log((SECOND, "last words"))
    await pod.become("ended")
    task.become(Pod("train-1", finished=True), end=DONE)
    events = await reader.read()
    assert [event.message for event in events[5:]] == ["last words", DONE.message]
    assert events[-1].data == {"status": "completed", "message": DONE.message}


async def test_a_reader_after_the_end_gets_it_all_and_then_is_told_not_to_come_back(kubelet, desk):
    kubelet.pod("train-1", *numbered(3), state="ended")
    task = Task(Pod("train-1", finished=True), end=DONE)
    events = await (await desk.reader(task)).read()
    assert [event.message for event in events] == [*names(3), DONE.message]
    with pytest.raises(Over):
        await desk.reader(task, after=events[-1].id)


async def test_a_line_without_an_end_is_a_line_once_the_container_has_ended(kubelet, desk):
    kubelet.pod("train-1", *numbered(1), state="ended").torn = b"2027-01-15T08:00:09Z killed while wri"
    events = await (await desk.reader(Task(Pod("train-1", finished=True), end=DONE))).read()
    assert [event.message for event in events] == ["line 0", "killed while wri", DONE.message]


async def test_tail_and_since(kubelet, desk):
    kubelet.pod("train-1", *numbered(50))
    task = Task(Pod("train-1"))
    assert await (await desk.reader(task, tail=2)).messages(2) == names(2, first=48)
    since = instant(BASE * SECOND + 4_550_000_000)
    assert await (await desk.reader(task, since=since)).messages(4) == names(4, first=46)
    assert json.loads(await desk.logs.history(task, tail=1))[0]["message"] == "line 49"
    assert [entry["message"] for entry in json.loads(await desk.logs.history(task, since=since))] == names(4, first=46)


@pytest.mark.parametrize(
    ("since", "count"),
    [
        ("0001-01-01T00:00:00+14:00", 3),
        ("9999-12-31T23:59:59-12:00", 0),
        ("2027-01-15T08:00:00.100000", 2),  # no zone: UTC, wherever the gateway runs
        ("2027-01-15T10:00:00.100001+02:00", 1),
    ],
)
async def test_any_time_is_understood(kubelet, desk, monkeypatch, since, count):
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    kubelet.pod("train-1", *numbered(3))
    found = json.loads(await desk.logs.history(Task(Pod("train-1")), since=datetime.fromisoformat(since)))
    monkeypatch.undo()
    time.tzset()
    assert len(found) == count


async def test_no_tail_is_new_lines_alone(kubelet, desk):
    pod = kubelet.pod("train-1", *numbered(3))
    reader = await desk.reader(Task(Pod("train-1")), tail=0)
    await reader.read(lambda: bool(reader.chunks))
    await pod.log(*numbered(1, first=3))
    assert await reader.messages(1) == ["line 3"]


async def test_a_log_longer_than_what_is_kept_begins_with_a_marker(kubelet, desk):
    kubelet.pod("train-1", *numbered(50))
    logs = desk.another(lines=20)
    reader = await desk.reader(Task(Pod("train-1")), logs)
    await reader.messages(21)
    assert (reader.events[0].type, reader.events[0].data["missed"]) == ("missed", None)
    assert [event.message for event in reader.events[1:]] == names(20, first=30)
    assert (await desk.reader(Task(Pod("train-1")), logs, tail=5)).events == []


# --- upstream


async def test_all_readers_share_one_stream_and_the_pod_is_left_after_the_last(kubelet, desk):
    pod, task = kubelet.pod("train-1", *numbered(3)), Task(Pod("train-1"))
    async with AsyncExitStack() as stack:
        readers = [Reader(await stack.enter_async_context(desk.logs.follow(task))) for _ in range(50)]
        await until(lambda: kubelet.followed == 1)
        await pod.log(*numbered(1, first=3))
        for reader in readers:
            assert await reader.messages(4) == names(4)
        assert desk.logs.readers == 50
        assert task.loads == 1
        assert [bool(ask.get("follow")) for ask in kubelet.asked] == [False, True]
    await until(lambda: kubelet.followed == 0)
    assert desk.logs.readers == 0


async def test_a_reader_that_comes_back_soon_finds_the_stream(kubelet, desk):
    kubelet.pod("train-1", *numbered(3))
    logs, task = desk.another(linger=60), Task(Pod("train-1"))
    for _ in range(5):
        assert len(json.loads(await logs.history(task))) == 3
    await until(lambda: kubelet.followed == 1)
    assert len(kubelet.asked) == 2


@pytest.mark.parametrize("how", ["drop", "end_connections"])
async def test_a_lost_connection_loses_and_doubles_no_line(kubelet, desk, how):
    same = [(7 * SECOND + 5, f"twin {number}") for number in range(6)]
    pod = kubelet.pod("train-1", *numbered(70), *same[:3])
    reader = await desk.reader(Task(Pod("train-1")))
    await reader.messages(73)
    for number in range(3, 6):
        await until(lambda: kubelet.followed == 1)
        await getattr(pod, how)(torn=b"2027-01-15T08:00:07.000000005Z tw")
        await pod.log(same[number])
        await reader.messages(71 + number)
    assert [event.message for event in reader.events] == [*names(70), *(text for _, text in same)]
    assert [event.id.rpartition(":")[2] for event in reader.events[70:]] == list("012345")
    assert kubelet.asked[-1]["sinceTime"] == "2027-01-15T08:00:07Z"


async def test_a_pod_is_awaited(kubelet, desk):
    task = Task()
    reader = await desk.reader(task)
    task.become(Pod("train-1", started=False))
    await asyncio.sleep(0)
    assert kubelet.asked == []
    task.become(Pod("train-1"))
    await until(lambda: len(kubelet.asked) >= 2)
    pod = kubelet.pod("train-1", state="waiting")
    asked = len(kubelet.asked)
    await until(lambda: len(kubelet.asked) >= asked + 2)
    await pod.become("running")
    await pod.log(*numbered(2))
    assert await reader.messages(2) == names(2)


@pytest.mark.parametrize("status", ["404", "410"])
async def test_a_pod_that_vanishes_ends_with_the_task(kubelet, desk, status):
    pod, task = kubelet.pod("train-1", *numbered(2)), Task(Pod("train-1"))
    reader = await desk.reader(task)
    await reader.messages(2)
    await pod.become(status)
    task.become(end=End("cancelled", "stopped by its owner"))
    assert [event.message for event in await reader.read()] == [*names(2), "stopped by its owner"]


async def test_a_kubelet_that_does_not_answer_is_told_once_and_tried_again(kubelet, desk):
    pod = kubelet.pod("train-1", *numbered(2), state="502")
    reader = await desk.reader(Task(Pod("train-1")))
    await reader.messages(1)
    asked = len(kubelet.asked)
    await until(lambda: len(kubelet.asked) > asked + 2)
    await pod.become("running")
    await reader.messages(3)
    assert reader.events[0].data["level"] == "WARNING"
    assert "connection refused" in reader.events[0].message
    assert reader.events[0].message.isprintable()
    assert reader.events[0].id == ""
    assert [event.message for event in reader.events[1:]] == names(2)


async def test_the_end_does_not_wait_for_a_kubelet_that_is_gone(kubelet, desk):
    kubelet.pod("train-1", state="502")
    task = Task(Pod("train-1"))
    reader = await desk.reader(task, desk.another(last_lines=0.01))
    task.become(Pod("train-1"), end=DONE)
    assert (await reader.read())[-1].data["status"] == "completed"


async def test_a_line_of_ten_megabytes_is_cut_and_the_next_one_comes(kubelet, desk):
    pod = kubelet.pod("train-1", (0, b"x" * 10_000_000), (1, b"\xff\xfe caf\xc3\xa9 \x1b[2J"), (2, b""))
    reader = await desk.reader(Task(Pod("train-1")))
    first, second, third = await reader.messages(3)
    assert len(first) < 20_000
    assert first.endswith(" more)")
    assert second.isprintable()
    assert "café" in second
    assert third == ""
    await pod.log((3, "after"))
    assert (await reader.messages(4))[-1] == "after"


async def test_a_pod_that_floods_its_log_is_read_slowly_and_completely(kubelet, desk):
    pod = kubelet.pod("train-1")
    reader = await desk.reader(Task(Pod("train-1")), desk.another(lines_per_second=400))
    await until(lambda: kubelet.followed == 1)
    began = asyncio.get_running_loop().time()
    await pod.log(*numbered(500))
    assert await reader.messages(500) == names(500)
    assert asyncio.get_running_loop().time() - began > 0.7  # four pauses of a quarter of a second


async def test_lines_that_come_one_by_one_all_arrive(kubelet, desk):
    pod = kubelet.pod("train-1")
    reader = await desk.reader(Task(Pod("train-1")))
    await until(lambda: kubelet.followed == 1)

    async def write() -> None:
        for number in range(1000):
            await pod.log(*numbered(1, first=number))
            if number % 3:
                await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        assert await reader.messages(1000) == names(1000)


async def test_a_line_that_breaks_the_gateway_is_left_out(kubelet, desk, monkeypatch):
    def entry_of(line, pod, now):
        if line.text == b"line 2":
            raise ValueError("never thought of that")
        return entries.entry_of(line, pod, now)

    monkeypatch.setattr(stream, "entry_of", entry_of)
    pod = kubelet.pod("train-1", *numbered(1))
    reader = await desk.reader(Task(Pod("train-1")))
    await until(lambda: kubelet.followed == 1)
    await pod.log(*numbered(4, first=1))
    assert await reader.messages(4) == ["line 0", "line 1", "line 3", "line 4"]


# --- several pods


async def test_the_stream_goes_on_with_the_next_attempt(kubelet, desk):
    first, task = kubelet.pod("train-1", *numbered(2)), Task(Pod("train-1"))
    reader = await desk.reader(task)
    await reader.messages(2)
    await first.become("ended")
    task.become(Pod("train-1", finished=True), Pod("train-2", attempt=2, started=False))
    second = kubelet.pod("train-2", (SECOND, "resumed"), state="waiting")
    task.become(Pod("train-1", finished=True), Pod("train-2", attempt=2))
    await second.become("running")
    await reader.messages(3)
    del kubelet.pods["train-1"]
    task.become(Pod("train-2", attempt=2))
    await second.log((2 * SECOND, "going on"))
    await reader.messages(4)
    await second.become("ended")
    task.become(Pod("train-2", attempt=2, finished=True), end=DONE)
    events = await reader.read()
    assert [event.message for event in events] == ["line 0", "line 1", "resumed", "going on", DONE.message]
    assert [event.data.get("attempt") for event in events] == [1, 1, 2, 2, None]


async def test_shards_come_together_in_the_order_of_time(kubelet, desk):
    for shard in range(3):
        kubelet.pod(f"infer-1-{shard}", *[(number * SECOND + shard, f"{number}") for number in range(3)])
    task = Task(*(Pod(f"infer-1-{shard}", shard=shard) for shard in range(3)))
    reader = await desk.reader(task)
    await reader.messages(9)
    assert [(event.message, event.data["shard"]) for event in reader.events] == [
        (f"{number}", shard) for number in range(3) for shard in range(3)
    ]
    await kubelet.pods["infer-1-2"].log((9 * SECOND, "news"))
    await reader.messages(10)
    assert reader.events[-1].data["shard"] == 2


async def test_of_very_many_pods_only_some_are_followed(kubelet, desk):
    for shard in range(10):
        kubelet.pod(f"infer-1-{shard}", (shard, f"{shard}"))
    pods = [Pod(f"infer-1-{shard}", shard=shard, finished=shard < 7) for shard in range(10)]
    reader = await desk.reader(Task(*pods), desk.another(pods=3))
    assert await reader.messages(3) == ["7", "8", "9"]


async def test_a_pod_that_was_read_to_its_end_is_not_read_again_when_there_is_room(kubelet, desk):
    first, second = kubelet.pod("infer-1-0", (1, "0")), kubelet.pod("infer-1-1", (2, "1"))
    zero, one = Pod("infer-1-0", shard=0), Pod("infer-1-1", shard=1)
    task = Task(zero)
    logs = desk.another(pods=1)
    reader = await desk.reader(task, logs)
    await reader.messages(1)
    await first.become("ended")
    task.become(zero._replace(finished=True), one)
    await reader.messages(2)
    followed = logs._streams[task.key]._running
    await until(followed["infer-1-0"].done)
    task.become(zero._replace(finished=True), one, Pod("infer-1-2", shard=2, started=False))
    await until(lambda: "infer-1-0" not in followed)
    await second.become("ended")
    await until(lambda: kubelet.followed == 0)
    task.become(zero._replace(finished=True), one._replace(finished=True))
    await asyncio.sleep(0)
    task.become(zero._replace(finished=True), one._replace(finished=True), end=DONE)
    assert [event.message for event in await reader.read()] == ["0", "1", DONE.message]


# --- coming back


async def test_another_gateway_goes_on_after_the_last_event(kubelet, desk):
    kubelet.pod("train-1", *numbered(5), (9 * SECOND, "twin 0"), (9 * SECOND, "twin 1"), state="ended")
    kubelet.pod("train-2", (20 * SECOND, "resumed"), (21 * SECOND, "trained"))
    task = Task(Pod("train-1", finished=True), Pod("train-2", attempt=2))
    before = await desk.reader(task)
    everything = await before.messages(9)
    for number, event in enumerate(before.events[:-1]):
        reader = await desk.reader(task, desk.another(), after=event.id)
        assert await reader.messages(8 - number) == everything[number + 1 :]
        assert [one.id for one in reader.events] == [one.id for one in before.events[number + 1 :]]


async def test_the_same_gateway_goes_on_exactly_where_shards_were_interleaved(kubelet, desk):
    one, other = kubelet.pod("infer-1-0", (5 * SECOND, "a")), kubelet.pod("infer-1-1")
    task = Task(Pod("infer-1-0", shard=0), Pod("infer-1-1", shard=1))
    before = await desk.reader(task)
    await before.messages(1)
    await until(lambda: kubelet.followed == 2)
    await other.log((2 * SECOND, "late"))  # its node's clock is behind
    await before.messages(2)
    await one.log((6 * SECOND, "b"))
    await before.messages(3)
    reader = await desk.reader(task, after=before.events[0].id)
    assert await reader.messages(2) == ["late", "b"]


async def test_an_odd_last_event_id_is_ignored(kubelet, desk):
    kubelet.pod("train-1", *numbered(2))
    assert await (await desk.reader(Task(Pod("train-1")), after="\0 42")).messages(2) == names(2)


async def test_a_reader_that_was_away_too_long_is_told(kubelet, desk):
    kubelet.pod("train-1", *numbered(50))
    logs = desk.another(lines=20)
    reader = await desk.reader(Task(Pod("train-1")), logs, after=f"train-1:{BASE * SECOND}:0")
    await reader.messages(21)
    assert reader.events[0].type == "missed"
    assert [event.message for event in reader.events[1:]] == names(20, first=30)


# --- many readers


async def test_a_slow_reader_is_told_what_it_missed_and_slows_nobody(kubelet, desk):
    pod, task = kubelet.pod("train-1", *numbered(1)), Task(Pod("train-1"))
    logs = desk.another(lines=100)
    slow, quick = await desk.reader(task, logs), await desk.reader(task, logs)
    await slow.messages(1)
    await until(lambda: kubelet.followed == 1)
    for number in range(50):
        await pod.log(*numbered(10, first=1 + 10 * number))
        await quick.messages(11 + 10 * number)
    assert [event.message for event in quick.events] == names(501)
    await slow.messages(102)
    marker = slow.events[1]
    assert (marker.type, marker.data["missed"], marker.data["level"]) == ("missed", 400, "WARNING")
    assert [event.message for event in slow.events[2:]] == names(100, first=401)


async def test_lines_that_come_together_are_one_delivery(kubelet, desk):
    pod = kubelet.pod("train-1")
    reader = await desk.reader(Task(Pod("train-1")), desk.another(batch=0.2))
    await until(lambda: kubelet.followed == 1)
    await reader.read(lambda: bool(reader.chunks))
    began, before = asyncio.get_running_loop().time(), reader.chunks
    for number in range(40):
        await pod.log(*numbered(1, first=number))
        await asyncio.sleep(0.01)
    await reader.messages(40)
    lasted = asyncio.get_running_loop().time() - began
    assert reader.chunks - before <= lasted / 0.2 + 2


async def test_silence_is_filled_with_comments(kubelet, desk):
    kubelet.pod("train-1")
    reader = await desk.reader(Task(Pod("train-1")), desk.another(keep_alive=0.02))
    await reader.read(lambda: len(reader.comments) >= 3)
    assert set(reader.comments) == {"keep-alive"}
    assert reader.events == []


async def test_a_reader_that_may_no_longer_read_is_sent_away(kubelet, desk):
    kubelet.pod("train-1", *numbered(1))
    asked = []

    async def recheck() -> bool:
        asked.append(1)
        return len(asked) < 3

    logs = desk.another(keep_alive=0.01, recheck=0.01)
    reader = await desk.reader(Task(Pod("train-1")), logs, recheck=recheck)
    events = await reader.read()
    assert [event.type for event in events] == ["message", "denied"]
    assert len(asked) == 3


async def test_readers_are_told_to_come_back_when_the_gateway_stops(kubelet, desk):
    kubelet.pod("train-1", *numbered(1))
    reader = await desk.reader(Task(Pod("train-1")))
    await reader.messages(1)
    await desk.logs.close()
    assert (await reader.read())[-1].type == "reconnect"
    assert kubelet.followed == 0


async def test_a_stream_that_is_opened_while_the_gateway_stops_is_told_to_come_back(kubelet, desk):
    kubelet.pod("train-1", *numbered(1))
    await desk.logs.close()
    reader = await desk.reader(Task(Pod("train-1")))
    assert [event.type for event in await reader.read()] == ["reconnect"]
    assert desk.logs.readers == kubelet.followed == 0


async def test_a_source_that_fails_ends_its_own_streams_alone(kubelet, desk):
    class Broken(Task):
        async def changed(self, seen):
            raise ValueError("the cache is broken")

    kubelet.pod("train-1", *numbered(1))
    broken, well = await desk.reader(Broken(Pod("train-1"), key="b")), await desk.reader(Task(Pod("train-1")))
    assert (await broken.read())[-1].type == "reconnect"
    assert await well.messages(1) == ["line 0"]


async def test_streams_are_bounded_and_idle_ones_make_room(kubelet, desk):
    for name in "abc":
        kubelet.pod(name, *numbered(1))
    logs = desk.another(streams=2, linger=60)
    await logs.history(Task(Pod("a"), key="a"))
    await desk.reader(Task(Pod("b"), key="b"), logs)
    await desk.reader(Task(Pod("c"), key="c"), logs)
    with pytest.raises(TooManyStreams):
        await desk.reader(Task(Pod("a"), key="a"), logs)


# --- lists


async def test_a_list_has_the_entries_of_the_stream(kubelet, desk):
    kubelet.pod("train-1", *numbered(3), state="ended")
    task = Task(Pod("train-1", finished=True), end=DONE)
    reader = await desk.reader(task)
    await reader.read()
    assert json.loads(await desk.logs.history(task)) == [event.data for event in reader.events[:-1]]


async def test_a_queued_task_and_an_empty_log_give_empty_lists(kubelet, desk):
    kubelet.pod("train-1", state="ended")
    assert await desk.logs.history(Task()) == b"[]"
    assert await desk.logs.history(Task(Pod("train-1", finished=True), end=DONE, key="uid-2")) == b"[]"


async def test_a_task_that_never_ran_has_an_empty_log_and_an_end(kubelet, desk):
    task = Task(end=End("cancelled", "cancelled by its owner"))
    task.where = ""
    assert await desk.logs.history(task) == b"[]"
    assert [event.data["status"] for event in await (await desk.reader(task)).read()] == ["cancelled"]


async def test_a_reader_does_not_wait_for_ever(kubelet, desk):
    class Silent(Task):
        async def load(self):
            await asyncio.Event().wait()

    with pytest.raises(Unanswered):
        await desk.logs.history(Silent(Pod("train-1")))
    assert desk.logs.readers == 0


@pytest.mark.parametrize("pods", [(), (Pod("train-1", finished=True),)])
async def test_the_log_of_a_pod_that_is_gone_names_the_output(kubelet, desk, pods):
    task = Task(*pods, end=DONE)
    with pytest.raises(Gone, match=r"s3://models/out/log\.jsonl") as gone:
        await desk.logs.history(task)
    assert gone.value.where == task.where
    with pytest.raises(Gone):
        await desk.reader(task)
