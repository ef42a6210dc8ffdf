"""Short scripts of bugs that histories found. Each holds now, and still bites with the old behaviour put back."""

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from simulation import olds
from simulation.play import play
from simulation.script import TIERS, Action, Script

SETUP: dict[str, Any] = {
    "nodes": [[1, 4, 12000, "a"]],
    "replicas": 1,
    "leaseSeconds": 15,
    "resyncSeconds": 20,
    "lag": 0.002,
    "urgent": 0,
    "page": 500,
    "retries": {"backoffBaseSeconds": 1, "backoffCapSeconds": 10, "nodeAvoidSeconds": 20, "uncountedLimit": 20},
    "pool": {
        "perGPU": [*TIERS],
        "perNodeCPU": {"training": 1, "inference": 2},
        "placement": "Pack",
        "queueing": "BestEffortFIFO",
        "scheduleTimeoutSeconds": 20,
        "startTimeoutSeconds": 30,
    },
}


NO_QUOTA: dict[str, Any] = dict.fromkeys(
    ("nominal", "borrowingLimit", "lendingLimit", "maxTrainingJobs", "maxInferenceJobs")
) | {"nominal": 8}


class Found(NamedTuple):
    """What broke which rule."""

    old: str
    rule: str
    script: Script


def training(job: str, at: float, **args: Any) -> Action:
    return Action(at, "create", {"job": job, "kind": "TrainingJob", "fates": [], "work": 30.0} | args)


def script(*actions: Action, seed: int = 1, **setup: Any) -> Script:
    return Script(seed, SETUP | setup, actions)


def do(at: float, name: str, **args: Any) -> Action:
    return Action(at, name, args)


FOUND = [
    Found(
        "pods_that_run_when_labels_come_are_not_judged",
        "nobody_stays_where_it_is_not_for",
        script(
            training("first", 3, gpus=2, backoff=9),
            nodes=[[0, 0, 0, "a"]],
            pool=SETUP["pool"] | {"scaleUp": {"maxJobs": 2, "timeoutSeconds": 60}},
        ),
    ),
    Found(
        "strangers_that_are_bound_late_hold_no_room",
        "room_is_free_when_it_is_taken",
        script(
            training("before", 1, work=20.0),
            do(
                2,
                "unbound_pod",
                node="n0",
                gpus=1,
                labels=0,
                why={"schedulerName": "other"},
                seconds=75.0,
                bound=True,
            ),
            training("after", 100),
        ),
    ),
    Found("pool_status_never_equals_what_is_stored", "statuses_follow_from_the_state", script()),
    Found(
        "held_back_pool_status_has_the_last_word",
        "statuses_follow_from_the_state",
        script(
            training("waits", 1, gpus=2),
            training("another", 100, gpus=2),
            do(101, "suspend_and_resume", job="another", seconds=0.5),
            lag=0.2,
        ),
    ),
    Found(
        "pool_made_anew_gets_no_status",
        "statuses_follow_from_the_state",
        script(do(100, "isolated", replica=0, seconds=6.0), do(102, "pool_recreated")),
    ),
    Found(
        "lease_is_released_over_a_write_under_way",
        "the_leader_alone_writes",
        script(
            do(99, "requests_fail", effect="slow", what="status", count=1, skip=0, seconds=9.0),
            training("late", 100),
            do(101, "restart", replica=0),
            do(101, "restart", replica=1),
            replicas=2,
        ),
    ),
    Found(
        "new_leader_decides_on_old_pods",
        "room_is_free_when_it_is_taken",
        script(
            training("again", 1, fates=["exit:1"], work=25.0),
            do(7, "isolated", replica=1, seconds=28.0),
            do(34, "restart", replica=0),
            replicas=2,
        ),
    ),
    Found(
        "refused_create_is_believed",
        "room_is_free_when_it_is_taken",
        script(
            do(0, "watch_slow", resource="pods", later=14.0, seconds=60.0),
            do(0.5, "quota", pods=1, seconds=60.0, lost=0),
            training("first", 1),
            training("second", 1.1),
        ),
    ),
    Found(
        "lost_create_is_tried_again_unseen",
        "within_the_limits",
        script(
            do(0, "requests_fail", effect="slow", what="creates", count=2, skip=0, seconds=12.0),
            training("first", 1),
            training("second", 2),
            do(15, "delete_pods", job="first", how="graceful"),
            lag=0.5,
        ),
    ),
    Found(
        "refused_delete_is_given_up",
        "statuses_follow_from_the_state",
        script(
            training("stuck", 1, fates=["image"], backoff=0),
            do(20, "requests_fail", effect="403", what="deletes", count=1, skip=0, seconds=1.0),
        ),
    ),
    Found(
        "unread_create_is_forgotten",
        "room_is_free_when_it_is_taken",
        script(
            do(0, "watch_slow", resource="pods", later=14.0, seconds=60.0),
            do(0, "unlucky_create", job="first", how="delete", effect="lost", answered=1.0, later=14.0, delay=0.3),
            training("first", 1),
            training("second", 1.5),
            do(1.6, "forbidden_to_read", seconds=10.0),
        ),
    ),
    Found(
        "refused_pool_status_is_given_up",
        "statuses_follow_from_the_state",
        script(
            training("waits", 1, gpus=2),
            do(99, "limits_refused", count=1),
            training("another", 100, gpus=2),
        ),
    ),
    Found(
        "gang_stops_others_in_vain",
        "every_job_ends",
        script(
            training("low", 1, work=60.0),
            training("gang", 20, nodes=3, gpus=2, priority="urgent"),
            training("another", 21, work=60.0),
            training("third", 22, work=60.0),
            nodes=[[2, 2, 80000, "a"]] * 3,
            urgent=5000,
            pool=SETUP["pool"] | {"preemption": {"withinPool": "LowerPriority", "minRuntimeSeconds": 5}},
        ),
    ),
    Found(
        "lost_lease_ends_the_process",
        "the operator broke",
        script(training("goes-on", 1, work=60.0), do(20, "outage", seconds=25.0)),
    ),
    Found(
        "who_led_leads_again_before_others_may",
        "requests_end_with_their_term",
        script(
            do(99, "requests_fail", effect="dropped", what="leases", count=5, skip=0, seconds=1.0),
            do(103, "requests_fail", effect="late", what="writes", count=1, skip=0, seconds=3.0),
            training("late", 104),
        ),
    ),
    Found(
        "requests_cut_short_by_the_lease_are_over",
        "recorded_before_created",
        script(
            do(99, "requests_fail", effect="late", what="creates", count=9, skip=0, seconds=9.0),
            *(training(f"j{second}", 100 + second, gpus=0) for second in range(5)),
            do(105.5, "pool_stop", policy="HoldAndDrain"),
            nodes=[[1, 4, 12000, name] for name in "abcde"],
        ),
    ),
    Found(
        "kopfs_end_ends_the_process",
        "the operator broke",
        script(do(20, "watch_cut", resource="trainingjobs", how="error", away=0.0, refusal="refused")),
    ),
    Found(
        "everybody_waits_out_its_own_backoff",
        "in_time",
        script(
            training("ends", 1, work=20.0),
            training("next", 2, work=300.0),
            do(10, "outage", seconds=25.0),
            do(38, "must_be_admitted", job="next", attempt=1),
            leaseSeconds=60,
        ),
    ),
    Found(
        "own_clock_is_believed",
        "every_job_ends",
        script(do(0, "clock_stepped", seconds=300.0), training("starts", 2, work=5.0)),
    ),
    Found(
        "releases_do_not_know_of_each_other",
        "room_is_free_when_it_is_taken",
        script(
            *(training(f"job-{i}", 2 + i / 100, work=20.0) for i in range(6)),
            do(60, "crash"),
            replicas=2,
            apart=True,
            lag=0.5,
        ),
    ),
    Found("standby_is_taken_for_stuck", "probes_spare_the_sound", script(training("long", 1, work=90.0), replicas=2)),
    Found(
        "gpus_without_labels_are_guessed",
        "room_is_free_when_it_is_taken",
        script(
            do(0.5, "labels_vanish", node="n0", seconds=20.0),
            *(training(f"t{i}", 1 + i, work=30.0) for i in range(4)),
            nodes=[[2, 8, 24000, "a"]],
        ),
    ),
    Found(
        "sick_gpus_count",
        "room_is_free_when_it_is_taken",
        script(
            do(0.5, "node_resized", node="n0", slots=4),
            *(training(f"t{i}", 1 + i, work=30.0) for i in range(4)),
            nodes=[[2, 8, 24000, "a"]],
        ),
    ),
    Found(
        "room_of_a_gone_job_goes_with_its_node",
        "within_the_quota",
        script(
            training("old1", 1, grace=20),
            do(20, "pool_lab", there=True),
            do(25, "delete", job="old1"),
            training("next1", 25.5),
            nodes=[[2, 2, 80000, "b"], [2, 2, 80000, "a"]],
            quotas={"lab": NO_QUOTA | {"maxTrainingJobs": 1}},
        ),
    ),
    Found(
        "room_of_a_gone_job_goes_with_its_node",
        "within_the_quota",
        script(
            training("grows1", 1, grace=20),
            do(1.5, "watch_slow", resource="nodes", later=60.0, seconds=60.0),
            do(28, "delete", job="grows1"),
            training("next1", 28.5),
            nodes=[[0, 0, 0, "a"]],
            quotas={"lab": NO_QUOTA | {"maxTrainingJobs": 1}},
            pool=SETUP["pool"] | {"scaleUp": {"maxJobs": 2, "timeoutSeconds": 60}},
        ),
    ),
    Found(
        "gone_jobs_wait_for_no_node",
        "few_wait_for_a_node",
        script(
            training("first", 1),
            do(5, "delete", job="first"),
            training("second", 5.01),
            nodes=[[0, 0, 0, "a"]],
            pool=SETUP["pool"] | {"scaleUp": {"maxJobs": 1, "timeoutSeconds": 60}},
        ),
    ),
    Found(
        "place_that_was_given_away_is_taken_back",
        "few_wait_for_a_node",
        script(
            do(0, "requests_fail", effect="403", what="creates", count=1, skip=0, seconds=1.0),
            do(0, "requests_fail", effect="403", what="status", count=1, skip=1, seconds=1.0),
            training("first", 1),
            training("second", 2.5),
            nodes=[[0, 0, 0, "a"]],
            retries=SETUP["retries"] | {"backoffBaseSeconds": 10},
            pool=SETUP["pool"] | {"scaleUp": {"maxJobs": 1, "timeoutSeconds": 60}},
        ),
    ),
    Found(
        "place_that_was_given_away_is_taken_back",
        "within_the_quota_when_made",
        script(
            do(0, "requests_fail", effect="403", what="creates", count=1, skip=0, seconds=1.0),
            do(0, "requests_fail", effect="403", what="status", count=1, skip=1, seconds=1.0),
            training("first", 1),
            training("second", 2.5),
            nodes=[[2, 2, 80000, "a"]],
            retries=SETUP["retries"] | {"backoffBaseSeconds": 10},
            quotas={"team": NO_QUOTA | {"maxTrainingJobs": 1}},
        ),
    ),
    Found(
        "new_pods_land_where_others_are_awaited",
        "within_the_limits_where_it_lands",
        script(
            training("pinned", 1, fates=["unbound"]),
            do(3, "node_removed", node="n0", seconds=12.0),
            do(5, "pool_scale_up", most=1, timeout=60),
            training("anywhere", 6),
            nodes=[[1, 2, 12000, "a"]],
        ),
    ),
    Found(
        "pod_that_was_written_again_is_a_stranger",
        "reports_of_ones_own_pods_are_taken",
        script(training("reports", 1, work=60.0), do(20, "annotate_pods", job="reports")),
    ),
    Found(
        "owners_do_not_say_what_a_pod_was_made_for",
        "one_writes_to_an_output",
        script(
            training("looked-at", 1, work=60.0),
            do(20, "unlabelled", job="looked-at", labels=["job", "kind"]),
            nodes=[[2, 8, 24000, "a"]],
        ),
    ),
    Found(
        "restarted_leader_does_not_wait",
        "recorded_before_created",
        script(
            do(99, "requests_fail", effect="slow", what="creates", count=1, skip=0, seconds=12.0),
            training("late", 100),
            do(101, "restart", replica=0),
            do(102, "pool_stop", policy="HoldAndDrain"),
        ),
    ),
]


SEEDS = range(16)  # the same script with other delays
MORE_SEEDS = range(64)  # until one bites


@pytest.mark.parametrize("found", FOUND, ids=[found.old for found in FOUND])
def test_it_holds_now(found: Found):
    assert {play(replace(found.script, seed=seed)).violation for seed in SEEDS} == {""}


@pytest.mark.parametrize("found", FOUND, ids=[found.old for found in FOUND])
def test_it_bites_with_the_old_behaviour(found: Found):
    said = []
    with olds.ALL[found.old]():
        for seed in MORE_SEEDS:
            said.append(play(replace(found.script, seed=seed)).violation)
            if said[-1].startswith(found.rule):
                return
    pytest.fail(f"{found.rule} holds: {said}")


def test_all_of_the_old_is_covered():
    assert {found.old for found in FOUND} == set(olds.ALL)
