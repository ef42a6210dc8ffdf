"""Logs of tasks whose pods are gone, from outputs that the gateway can read: of their namespace, and nothing beside them."""

import asyncio
import json
import os
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gateway.logs.kubelet import Task, cluster
from gateway.logs.reading import Reader

from rfuav_gateway.logs import kept as module
from rfuav_gateway.logs.kept import MOST_BYTES, Kept, Output
from rfuav_gateway.logs.logs import Gone, Logs
from rfuav_gateway.logs.places import parsed
from rfuav_gateway.logs.source import End, KeptFile

UID = "uid-1"
URI = "pvc://captures/models/first/log.jsonl"
DONE = End("completed", "all 3 epochs are done")


def line(second: int, event: str, **more: object) -> str:
    return json.dumps({"event": event, "level": "info", "time": f"2027-01-15T08:00:{second:02}.5Z", **more})


def write(path: Path, *lines: str, uid: str = UID) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"event": "log", "level": "info", "job": "first", "uid": uid})
    path.write_text("".join(f"{one}\n" for one in (head, *lines)))
    return path


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """The mounted claim, with the log of a training of two attempts."""
    made = tmp_path / "captures"
    write(
        made / "models/first/log.jsonl",
        line(1, "training", epoch=0, epochs=3, attempt=1),
        line(2, "epoch", epoch=1, epochs=3, valLoss=0.5, attempt=1),
        line(9, "epoch", epoch=2, epochs=3, valLoss=0.25, attempt=2),
        line(9, "done", attempt=2),
    )
    return made


def reads(volume: Path, uri: str = "pvc://captures", namespace: str = "team-a") -> Kept:
    return Kept([Output(uri, namespace, str(volume))])


def task(*files: KeptFile, uri: str = URI) -> Task:
    made = Task(end=DONE, key=UID)
    made.kept = files or (KeptFile(uri),)
    return made


@pytest.fixture
async def opened(tmp_path: Path):
    """Makes gateways that read this."""
    async with cluster(tmp_path) as (_, connection), AsyncExitStack() as stack:

        def logs(kept: Kept) -> Logs:
            made = Logs(connection, kept)
            stack.push_async_callback(made.close)
            return made

        yield logs


async def test_a_list_has_the_lines_of_all_attempts(opened, volume):
    logs = opened(reads(volume))
    found = json.loads(await logs.history(task()))
    assert [(one["message"].split(" ")[0], one["attempt"]) for one in found] == [
        ("training", 1),
        ("epoch", 1),
        ("epoch", 2),
        ("done", 2),
    ]
    assert found[1]["timestamp"] == "2027-01-15T08:00:02.500000"
    assert (found[1]["stage"], found[1]["metrics"]["val_loss"]) == ("epoch_end", 0.5)
    assert len(json.loads(await logs.history(task(), tail=2))) == 2
    assert len(json.loads(await logs.history(task(), since=datetime(2027, 1, 15, 8, 0, 5, tzinfo=UTC)))) == 2


async def test_a_stream_has_them_and_the_end_and_goes_on_after_an_event(opened, volume):
    logs = opened(reads(volume))
    async with logs.follow(task()) as chunks:
        events = await Reader(chunks).read()
    assert [event.type for event in events] == ["message"] * 5
    assert events[-1].data == {"status": "completed", "message": DONE.message}
    assert parsed(events[2].id) is not None
    async with logs.follow(task(), after=events[2].id) as chunks:
        assert (await Reader(chunks).read())[0].data == events[3].data


async def test_the_shards_of_an_inference_are_merged_by_time(opened, volume):
    folder = volume / "models/first"
    write(folder / "log-0.jsonl", line(1, "a"), line(5, "c"))
    write(folder / "log-2.jsonl", line(3, "b"))
    files = [KeptFile(f"pvc://captures/models/first/log-{shard}.jsonl", shard) for shard in range(3)]
    found = json.loads(await opened(reads(volume)).history(task(*files)))
    assert [(one["message"], one["shard"]) for one in found] == [("a", 0), ("b", 2), ("c", 0)]


# --- what is not read


def link(volume: Path) -> str:
    """A link in place of the file, to one outside of the volume."""
    write(volume.parent / "secret.jsonl", line(1, "secret"))
    (volume / "models/link").mkdir()
    (volume / "models/link/log.jsonl").symlink_to(volume.parent / "secret.jsonl")
    return "pvc://captures/models/link/log.jsonl"


def linked_folder(volume: Path) -> str:
    """A link in place of a folder."""
    write(volume.parent / "outside/log.jsonl", line(1, "secret"))
    (volume / "models/link").symlink_to(volume.parent / "outside")
    return "pvc://captures/models/link/log.jsonl"


def link_inside(volume: Path) -> str:
    """A link that stays inside: it may point elsewhere a moment later."""
    (volume / "models/link").symlink_to("first")
    return "pvc://captures/models/link/log.jsonl"


def upwards(volume: Path) -> str:
    write(volume.parent / "outside/log.jsonl", line(1, "secret"))
    return "pvc://captures/models/../../outside/log.jsonl"


def beside(volume: Path) -> str:
    """A claim whose name only begins like that of the place."""
    return "pvc://captures2/models/first/log.jsonl"


def pipe(volume: Path) -> str:
    """Opening it would wait for a writer."""
    (volume / "models/pipe").mkdir()
    os.mkfifo(volume / "models/pipe/log.jsonl")
    return "pvc://captures/models/pipe/log.jsonl"


def folder(volume: Path) -> str:
    (volume / "models/folder/log.jsonl").mkdir(parents=True)
    return "pvc://captures/models/folder/log.jsonl"


def of_another(volume: Path) -> str:
    """The log of another job, which wrote there before or after."""
    write(volume / "models/other/log.jsonl", line(1, "secret"), uid="uid-2")
    return "pvc://captures/models/other/log.jsonl"


def no_log(volume: Path) -> str:
    (volume / "models/plain").mkdir()
    (volume / "models/plain/log.jsonl").write_text("root:x:0:0\n" * 1000)
    return "pvc://captures/models/plain/log.jsonl"


def missing(volume: Path) -> str:
    return "pvc://captures/models/none/log.jsonl"


def no_name(volume: Path) -> str:
    return "pvc://captures/models/a\0b/log.jsonl"


CASES = [link, linked_folder, link_inside, upwards, beside, pipe, folder, of_another, no_log, missing, no_name]


@pytest.mark.parametrize("make", CASES)
async def test_what_is_not_the_tasks_own_log_is_not_read(opened, volume, make):
    logs = opened(reads(volume))
    uri = make(volume)
    with pytest.raises(Gone):
        await logs.history(task(uri=uri))
    assert await reads(volume).read("team-a", UID, [KeptFile(uri)]) is None


@pytest.mark.parametrize(
    ("namespace", "uri"), [("team-b", "pvc://captures"), ("team-a", "pvc://captures/models/second")]
)
async def test_a_place_is_for_its_namespace_and_for_what_is_below_it(opened, volume, namespace, uri):
    with pytest.raises(Gone, match="the trainer keeps them in"):
        await opened(reads(volume, uri, namespace)).history(task())


async def test_the_same_claim_in_two_namespaces_is_two_volumes(volume, tmp_path):
    write(tmp_path / "theirs/models/first/log.jsonl", line(1, "theirs"))
    both = Kept([Output("pvc://captures", "team-b", str(tmp_path / "theirs")), *reads(volume)._outputs])
    ours, theirs = [await both.read(name, UID, [KeptFile(URI)]) for name in ("team-a", "team-b")]
    assert (len(ours.lines), [line.text for _, line in theirs.lines]) == (4, [line(1, "theirs").encode()])


# --- bounds


async def test_of_a_long_file_the_end_is_read_and_no_more(volume, monkeypatch):
    size, whole = [], os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: size.append(count) or whole(fd, count, at))
    path = volume / "models/first/log.jsonl"
    with path.open("a") as stream:
        for number in range(40_000):
            stream.write(line(10, f"line {number}") + "\n")
    assert path.stat().st_size > 2 * MOST_BYTES
    found = await reads(volume).read("team-a", UID, [KeptFile(URI)])
    assert found.cut
    assert sum(len(one.text) for _, one in found.lines) < MOST_BYTES
    assert found.lines[-1][1].text == line(10, "line 39999").encode()
    assert found.lines[0][1].text.startswith(b'{"event": "line ')  # whole lines
    assert sum(size) <= MOST_BYTES + 4096


async def test_a_reader_is_told_that_there_were_earlier_lines(opened, volume):
    path = volume / "models/first/log.jsonl"
    with path.open("a") as stream:
        stream.writelines(line(10, f"line {number}") + "\n" for number in range(5000))
    async with opened(reads(volume)).follow(task()) as chunks:
        events = await Reader(chunks).read()
    assert events[0].type == "missed"
    assert len(events) < 2100


async def test_lines_of_any_kind_are_shown(opened, volume):
    path = volume / "models/first/log.jsonl"
    with path.open("ab") as stream:
        stream.write(b"\xff\x00 no JSON\n" + b'{"time": 5}\n' + b"x" * 200_000 + b"\n" + b'{"event": "torn')
    found = json.loads(await opened(reads(volume)).history(task()))
    assert [one["message"][:9] for one in found[4:]] == ["\ufffd\ufffd no JSO", '{"time": ', "xxxxxxxxx", '{"event":']


async def test_a_file_system_that_hangs_is_waited_for_a_moment(opened, volume, monkeypatch):
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hangs(*_: object) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    monkeypatch.setattr(module, "SECONDS", 0.05)
    monkeypatch.setattr(module, "_end_of", hangs)
    with pytest.raises(Gone):
        await opened(reads(volume)).history(task())
    release.set()
