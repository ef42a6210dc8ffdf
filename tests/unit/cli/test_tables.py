"""Tables on terminals of several widths, and the columns that a pipe gets."""

import io
from datetime import timedelta

import pytest
from rich.console import Console
from unit.cli.bodies import NOW, job, pool, quota, running, waiting

from rfuav_cli import rows, tables
from rfuav_cli.tables import Column, Table

SOON = (NOW + timedelta(minutes=40)).isoformat()


def drawn(table: Table, width: int, *, wide: bool = False) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False, markup=False, highlight=False).print(
        tables.rich(table, width, wide=wide)
    )
    return [line.rstrip() for line in out.getvalue().splitlines()]


def queue(*bodies, plain: bool = False) -> list[Table]:
    found = rows.waiting(bodies, {"rfuav-training": 1000}, NOW)
    return rows.queue_tables(found, {name: rows.pool_line(rows.of_pool(pool(name))) for name in found}, plain=plain)


def test_the_queue_on_a_wide_terminal():
    (table,) = queue(waiting("second", 2), waiting("first", 1, starts=SOON))
    assert drawn(table, 150) == [
        "Pool default: 2 GPUs, 5 of 8 slots free, 3 jobs have room, 3 wait",
        "Place   Job         Namespace   Priority   GPUs   Waits   Starts   Reason               Why",
        "    1   tj/first    team-a          1000      1     30m   in 40m   WaitingForCapacity   needs 1 GPU; pool default has 0 of 2 training slots free on 1",
        "                                                                                        node",
        "    2   tj/second   team-a          1000      1     30m            WaitingForCapacity   needs 1 GPU; pool default has 0 of 2 training slots free on 1",
        "                                                                                        node",
    ]  # fmt: skip


def test_the_queue_on_a_narrow_terminal_leaves_out_what_it_can_and_no_sentence():
    (table,) = queue(waiting("second", 2), waiting("first", 1, starts=SOON))
    assert drawn(table, 80) == [
        "Pool default: 2 GPUs, 5 of 8 slots free, 3 jobs have room, 3 wait",
        "Place   Job         Namespace   Priority   GPUs   Waits   Starts",
        "    1   tj/first    team-a          1000      1     30m   in 40m",
        "    needs 1 GPU; pool default has 0 of 2 training slots free on 1 node",
        "    2   tj/second   team-a          1000      1     30m",
        "    needs 1 GPU; pool default has 0 of 2 training slots free on 1 node",
    ]
    assert drawn(table, 50)[2:4] == [
        "Place   Job         GPUs   Waits   Starts",
        "    1   tj/first       1     30m   in 40m",
    ]


def test_the_queue_in_a_pipe_is_one_table_with_the_pool_in_front():
    (table,) = queue(waiting("first", 1, starts=SOON), waiting("late", None, spec={"pool": "other"}), plain=True)
    assert tables.plain(table).splitlines() == [
        "POOL      PLACE   JOB        NAMESPACE   PRIORITY   GPUS   WAITS   STARTS   REASON               WHY",
        "default   1       tj/first   team-a      1000       1      30m     in 40m   WaitingForCapacity   needs 1 GPU; pool default has 0 of 2 training slots free on 1 node",
        "other     -       tj/late    team-a      1000       1      30m     -        WaitingForCapacity   needs 1 GPU; pool default has 0 of 2 training slots free on 1 node",
    ]  # fmt: skip
    assert tables.plain(table, headers=False).splitlines()[0].startswith("default   1")
    assert "CLASS   ATTEMPTS   MODEL" in tables.plain(table, wide=True)


def test_columns_do_not_move_with_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch):
    (table,) = queue(waiting("first", 1), plain=True)
    monkeypatch.setenv("COLUMNS", "20")
    assert max(map(len, tables.plain(table).splitlines())) > 100


def test_text_from_the_cluster_controls_no_terminal():
    table = Table((Column("A"), Column("B", long=True)), [["x\x1b[31m", "one\ntwo\x07 [bold]three[/bold]"]])
    assert tables.plain(table, headers=False) == "x\ufffd[31m   one two\ufffd [bold]three[/bold]\n"
    assert "[bold]three[/bold]" in drawn(table, 80)[-1]


def test_the_order_of_the_queue():
    found = rows.waiting(
        [
            waiting("b", 2),
            waiting("new", None),
            waiting("a", 1),
            running("r"),
            job("done", phase="Succeeded"),
            job("fresh"),
        ],
        {},
        NOW,
    )
    assert [one["job"] for one in found["default"]] == ["tj/a", "tj/b", "tj/fresh", "tj/new"]
    assert found["default"][2]["reason"] == "New"


def test_gpus_of_all_pods_that_run_at_a_time():
    assert rows.slots_asked(job("a", spec={"resources": {"gpus": 2}, "nodes": 3})) == 6
    assert rows.slots_asked(job("a", "InferenceJob", spec={"shards": 8, "parallelism": 4})) == 4
    assert rows.slots_asked(job("a", spec={"resources": {"gpus": 0}})) == 0


def test_pools_teams_and_holders():
    held = rows.holders([running("a", gpus=2), running("b", namespace="team-b"), waiting("w", 1)], NOW)
    teams = rows.teams([quota()], held)
    assert tables.plain(rows.pools_table([rows.of_pool(pool())])).splitlines() == [
        "POOL      READY   GPUS   SLOTS   FREE   TRAIN   INFER   OTHERS   RUNNING   WAITING",
        "default   yes     2      8       5      2       1       0        3         3",
    ]
    assert tables.plain(rows.teams_table(teams)).splitlines() == [
        "NAMESPACE   POOL      SLOTS   OWN   MOST   BORROWED   TRAIN   INFER   WAITING",
        "team-a      default   2       1     4      1          2       0       1",
        "team-b      default   1       -     -      -          1       0       -",
    ]
    assert tables.plain(rows.holders_table(held)).splitlines() == [
        "JOB    NAMESPACE   POOL      SLOTS   PHASE     FOR   PROGRESS   LEFT   NODES",
        "tj/a   team-a      default   2       Running   10m   40%        15m    gpu-1",
        "tj/b   team-b      default   1       Running   10m   40%        15m    gpu-1",
    ]


def test_a_pool_that_is_not_ready_says_why():
    hold = {"type": "Ready", "status": "False", "reason": "OnHold", "message": "stopPolicy is Hold"}
    found = rows.of_pool(pool(conditions=[hold]))
    assert rows.pool_line(found).endswith("3 wait. Not ready: stopPolicy is Hold")
    assert rows.pools_table([found]).rows[0][1] == "no"


def test_pods_of_many_shards_share_an_assignment():
    many = job(
        "m", "InferenceJob", phase="Running", assignments=[{"pod": "m-", "node": "n", "gpus": 1, "shards": "0-3,7"}]
    )
    assert rows.holders([many], NOW)[0]["slots"] == 5


def test_a_status_of_another_version_breaks_no_table():
    odd = job("odd", phase="Queued", queue="first", progress=[1], queuedAt="yesterday")
    (found,) = rows.waiting([odd], {}, NOW)["default"]
    assert (found["position"], found["waitingSeconds"]) == (None, None)
