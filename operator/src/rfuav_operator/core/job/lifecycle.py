"""One step of one job: its next status, from its pods, its spec and the time.

In: a job and what is known of its pods (`Facts`). Out: the new status, and the pods to delete and to create
(`Outcome`). `admission` decides which job is admitted next.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from rfuav_crds import contract, reasons
from rfuav_crds.modes import StopPolicy
from rfuav_operator.core import conditions, ranges
from rfuav_operator.core.capacity import gpus, room
from rfuav_operator.core.job import aside, backoff, deadlines, failures, phases, progress, units, vetoes
from rfuav_operator.core.model import (
    OUT_OF_SERVICE,
    Assignment,
    Defaults,
    Failure,
    Job,
    JobStatus,
    Kind,
    Node,
    NodeName,
    Phase,
    Pod,
    PoolSpec,
    Progress,
    Report,
    ShardCounts,
    Source,
    may_live,
)

_KEPT_FAILURES = 5
_SHOWN_NODES = 3
_MESSAGE_LIMIT = 1024


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a step may know besides the job itself."""

    now: datetime
    pods: Mapping[str, Pod]
    creating: Collection[str]
    nodes: Mapping[NodeName, Node]
    pool: PoolSpec
    pool_missing: str = ""  # why its terms are not known: admitted pods go on then, and none is made
    defaults: Defaults
    reports: Sequence[Report] = ()
    rejected: str = ""
    gone: Collection[str] = ()  # pods that were seen and have disappeared
    withdrawn: Collection[str] = ()  # recorded pods that were never created, and whose room is no longer free
    crowded: Mapping[str, str] = {}  # pods on a node without room for them by the limits, and what is exceeded
    source: Job | None = None  # the TrainingJob that `fromTrainingJob` names, if there is one
    awaited: bool = False  # an InferenceJob waits for its weights: what it takes over is not in its stored status yet


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the step decided."""

    status: JobStatus
    delete: Sequence[Pod] = ()
    create: Sequence[Assignment] = ()
    remove_job: bool = False


def step(job: Job, facts: Facts) -> Outcome:
    """The job's next status and the effects that follow from it."""
    phase = job.status.phase
    if job.deleting:  # the garbage collector takes the pods; room stays held by those that live
        return Outcome(status=job.status)
    if job.set_aside:
        return Outcome(status=aside.told(job, facts.now))
    if phase is not None and phase.terminal:
        return _after_the_end(job, facts)
    return _Step(job, facts).run()


def _after_the_end(job: Job, facts: Facts) -> Outcome:
    """A terminal job never moves: its left-over pods go, and after its TTL the job does, once nobody waits for it."""
    ttl, finished = job.spec.ttl_seconds_after_finished, job.status.finished_at
    expired = ttl is not None and finished is not None and finished + timedelta(seconds=ttl) <= facts.now
    return Outcome(
        status=replace(job.status, observed_generation=job.generation),
        delete=[p for p in facts.pods.values() if p.live and not p.deleting],
        remove_job=expired and not facts.awaited,
    )


class _Step:
    """The working state of one step."""

    def __init__(self, job: Job, facts: Facts) -> None:
        self.job = job
        self.facts = facts
        self.now = facts.now.replace(microsecond=0)
        self.status = job.status
        self._conditions = conditions.of(job, facts.now)
        self.kept: list[Assignment] = []
        self.done: list[Assignment] = []  # of a job of several nodes: pods that succeeded before the others
        self.delete: list[Pod] = []
        self.create: list[Assignment] = []
        self.succeeded = False
        self.together: str = ""  # why all pods of a job of several nodes stop with one of them
        self.fatal: tuple[str, str] | None = None

    def run(self) -> Outcome:
        self._begin()
        for report in self.facts.reports:
            self.status = progress.apply_report(self.status, report, self.job.kind)
        for assignment in self._by_their_end():
            self._observe(assignment)
        if self._is_gang and self.together:
            self._stop_together()
        self._count_running_time()
        if self.succeeded:  # seen in the same step as a cancellation, success wins: the work is done
            return self._end(Phase.SUCCEEDED, reasons.SUCCEEDED, self._what_was_done())
        if self.job.spec.cancel:
            return self._end(Phase.CANCELLED, reasons.CANCELLED, "cancelled by spec.cancel")
        if self.fatal:
            return self._end(Phase.FAILED, *self.fatal)
        if self._past_deadline():
            limit = self.job.spec.active_deadline_seconds
            return self._end(
                Phase.FAILED, reasons.DEADLINE_EXCEEDED, f"ran longer than activeDeadlineSeconds ({limit} s)"
            )
        self._resolve_source()
        if self.fatal:
            return self._end(Phase.FAILED, *self.fatal)
        if self.job.spec.suspend:
            self._suspend()
        elif self.facts.pool.stop_policy == StopPolicy.HOLD_AND_DRAIN:
            self._drain()
        # Pods of a job of several nodes that are done wait for the others; with none left, all start again.
        held = [*self.kept, *self.done] if self.kept else []
        self._set(assignments=tuple(sorted(held, key=lambda a: a.rank or 0)))
        self._delete_strays()
        self._settle()
        return Outcome(status=self.status, delete=self.delete, create=self.create)

    @property
    def _is_gang(self) -> bool:
        return self.job.kind is Kind.TRAINING and self.job.spec.nodes > 1

    # --- small tools

    def _set(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)

    def _by_now(self, instant: datetime | None) -> datetime:
        """The instant that a node's clock gave, in whole seconds, and never later than now; now when none is given."""
        return self.now if instant is None else min(self.now, instant.replace(microsecond=0))

    def _move(self, to: Phase, **changes: object) -> None:
        self.status = phases.move(self.status, to, **changes)

    def _condition(self, kind: str, value: bool, reason: str, message: str) -> None:
        self._set(conditions=self._conditions.put(kind, value=value, reason=reason, message=message).settled)

    def _clear(self, kind: str, reason: str, message: str) -> None:
        self._set(conditions=self._conditions.clear(kind, reason=reason, message=message).settled)

    def _by_their_end(self) -> Iterable[Assignment]:
        """The assignments; in a job of several nodes those first that ended first: the others failed because of it.

        One that says itself that it only stopped (exit 75) comes last: times are whole seconds.
        """

        def ended_at(a: Assignment) -> datetime:
            pod = self.facts.pods.get(a.pod)
            return self.facts.now if pod is None or not pod.ended else pod.finished_at or self.facts.now

        if not self._is_gang:
            return self.status.assignments
        return sorted(
            self.status.assignments, key=lambda a: (deadlines.is_consequence(self.facts.pods.get(a.pod)), ended_at(a))
        )

    # --- the pods

    def _begin(self) -> None:
        if self.status.observed_generation != self.job.generation:
            self._set(observed_generation=self.job.generation)
        stalled = conditions.find(self.status.conditions, "Stalled")
        if stalled is not None and stalled.reason in (reasons.UNDECODABLE, reasons.INTERNAL_ERROR):
            self._clear("Stalled", reasons.RECOVERED, "the operator can handle the job again")
        if self.status.phase is None:
            self._move(Phase.QUEUED)
            self._condition("Reconciling", True, reasons.QUEUED, "waits for the first scheduling decision")
        if self.status.queued_at is None and not self.job.spec.suspend:
            # A job made suspended gets in line when it is let go, any other at its creation.
            was_held = self.status.phase is Phase.SUSPENDED
            self._set(queued_at=self.now if was_held else self.job.created.replace(microsecond=0))
        if self.job.kind is Kind.INFERENCE and self.status.shards is None:
            self._set(shards=ShardCounts(total=self.job.spec.shards))
        self.status = units.forget_past_waits(self.status, self.facts.now)

    def _observe(self, a: Assignment) -> None:
        """One assignment against its pod: kept, released, completed or failed."""
        pod = self.facts.pods.get(a.pod)
        if pod is None:
            self._observe_absence(a)
        elif pod.ended or (pod.exit_code is not None and not may_live(pod, self.facts.nodes)):
            self._read_termination_message(a, pod)
            if failures.succeeded(pod):
                self._complete(a, pod)
            else:
                self._observe_failure(a, pod)
        elif not may_live(pod, self.facts.nodes):
            if not a.stopping:
                self._fail(a, failures.node_lost(pod.node or a.node), pod)
        else:
            self._watch(a, pod)

    def _observe_failure(self, a: Assignment, pod: Pod) -> None:
        """A pod whose trainer failed. It holds its room while its other containers may still run."""
        due = deadlines.cause_due(a, self.job, self.facts.pods)
        if due is not None and self.now < due <= self.now + deadlines.CAUSE_LATEST and not self.together:
            self.kept.append(a)
            return
        if not a.stopping:
            verdict = failures.classify(pod, gpu_shared=self._gpu_shared(pod), ran=a.started_at is not None)
            self._fail(a, verdict, pod)
            a = replace(a, stopping=verdict.reason)
        if may_live(pod, self.facts.nodes):
            self.kept.append(a)
            if not pod.deleting:
                self.delete.append(pod)

    def _observe_absence(self, a: Assignment) -> None:
        if a.pod in self.facts.creating:
            self.kept.append(a)
        elif a.stopping:
            pass  # what was to go is gone
        elif a.pod in self.facts.withdrawn:
            if self._is_gang:
                self.together = self.together or "the room for one of its pods is no longer free"
        elif a.started_at is not None:
            self._fail(a, failures.vanished(), None)
        elif self.facts.rejected:  # also where it was there for a moment
            self._fail(a, failures.rejected(self.facts.rejected), None)
        elif a.pod in self.facts.gone:
            self._fail(a, failures.deleted(), None)
        elif self.job.problems:  # an invalid job gets no pod
            if self._is_gang:
                self.together = self.together or "it is misconfigured"
        elif not self.job.spec.suspend:  # recorded, not made: the create was lost, or the operator was
            self.kept.append(a)
            if not self.facts.pool_missing:  # where there is room for it is not known until the pool is back
                self.create.append(a)

    def _watch(self, a: Assignment, pod: Pod) -> None:
        """A pod that lives: started, or waiting, perhaps for too long."""
        verdict = None
        now, pool = self.facts.now, self.facts.pool
        unsuited = ""
        elsewhere = pod.node is not None and bool(a.node) and pod.node != a.node  # by a webhook, for example
        landed = self.facts.nodes.get(pod.node) if pod.node is not None and (pod.for_new_node or elsewhere) else None
        if landed is not None and (landed.unreadable or landed.gpu_slots < pod.gpus):
            landed = None  # not yet as the scheduler saw it: the autoscaler's node
        if landed is not None:
            first = not a.node or a.provisional or elsewhere
            if (first or not pod.started) and not self.facts.pool_missing:
                unsuited = room.unsuited(landed, pool, room.shape_of(self.job))
            # Labels may appear after the node, or its pool may be missing: it is judged once, when both are known.
            unknown = bool(self.facts.pool_missing or (pod.gpus and gpus.in_pool(landed, pool).gpu_unknown))
            a = replace(a, node=landed.name, provisional=first and unknown)
        crowded = self.facts.crowded.get(a.pod, "")
        if a.stopping or pod.deleting or pod.unreadable:
            pass
        elif unsuited or crowded:
            is_new = pod.for_new_node and (landed is None or landed.created is None or landed.created >= pod.created)
            verdict = failures.unsuited(a.node, unsuited or crowded, counted=bool(unsuited) and is_new)
        elif pod.started:
            if a.started_at is None:
                a = replace(a, started_at=self._by_now(pod.started_at), stuck_since=None)
        elif pod.node is None:
            limit = deadlines.bind_seconds(a, pool)
            if a.node and (why := self._unavailable(a)):
                verdict = failures.node_unavailable(a.node, why)
            elif deadlines.bind_due(a, pod, pool) > now:
                pass
            elif deadlines.is_refused(a, pod):
                verdict = failures.refused(pod, a.node)
            else:
                verdict = failures.not_scheduled(pod, limit) if a.node else failures.not_scaled_up(pod, limit)
        else:
            wait = deadlines.wait_of(pod, a, self.status, pool, self.now)
            a = replace(a, stuck_since=(a.stuck_since or self.now) if wait.error else None)
            if wait.until <= now:
                verdict = wait.verdict
        if verdict is not None:
            self._fail(a, verdict, pod)
            a = replace(a, stopping=verdict.reason)
        if a.stopping and not pod.deleting:
            self.delete.append(pod)
        self.kept.append(a)

    def _unavailable(self, a: Assignment) -> str:
        """What happened to the node of a pod that is not bound yet; empty: it still accepts the pod."""
        node = self.facts.nodes.get(NodeName(a.node))
        if node is None:
            return "was deleted"
        why = room.closed(node, room.shape_of(self.job))
        return f"became unavailable ({why})" if why else ""

    def _complete(self, a: Assignment, pod: Pod) -> None:
        self._read_termination_message(a, pod)
        if a.started_at is None and self.status.started_at is None:
            self._set(started_at=self._by_now(pod.started_at))
        if self._is_gang:
            self.done.append(a)
            self.succeeded = len(self.done) >= self.job.spec.nodes
            return
        if a.shard is None or self.status.shards is None:
            self.succeeded = True
            return
        done = ranges.parse(self.status.shards.completed) | {a.shard}
        key = str(a.shard)
        self.status = progress.complete_shard(self.status, a.shard)
        shards = self.status.shards
        if shards is None:  # for the type checker: complete_shard keeps them
            return
        self._set(
            shards=replace(
                shards,
                completed=ranges.show(done),
                attempts={k: v for k, v in shards.attempts.items() if k != key},
                counted_failures={k: v for k, v in shards.counted_failures.items() if k != key},
            )
        )
        self.status = progress.sum_shards(self.status)
        self.succeeded = len(done) >= self.job.spec.shards

    def _read_termination_message(self, a: Assignment, pod: Pod) -> None:
        if a.rank:
            return  # the first pod of a job of several nodes speaks for all
        parts = progress.parse_termination_message(pod.termination_message) if pod.termination_message else None
        if parts is not None:
            self.status = progress.apply_parts(self.status, a.shard, parts, self.job.kind, self.now)

    def _gpu_shared(self, pod: Pod) -> bool:
        node = self.facts.nodes.get(pod.node) if pod.node else None
        return node is not None and gpus.in_pool(node, self.facts.pool).is_gpu_shared

    def _fail(self, a: Assignment, verdict: failures.Verdict, pod: Pod | None) -> None:
        """Record a failure of the unit and when it may run again, or that it may not."""
        if self.together:
            return  # its other pods fail because the first did
        if self._is_gang:
            self.together = f"pod {a.pod} failed"
        attempt = units.attempt_of(self.status, a.shard)
        out_of_memory_before = any(
            f.reason == reasons.OUT_OF_MEMORY and f.shard == a.shard for f in self.status.failures
        )
        failure = Failure(
            attempt=attempt,
            pod=a.pod,
            node=a.node,
            reason=verdict.reason,
            exit_code=verdict.exit_code,
            message=sentence(verdict.reason, verdict.message),
            finished_at=self._by_now(pod.finished_at if pod is not None else None),
            counted=verdict.counted,
            shard=a.shard,
        )
        self._set(failures=(*self.status.failures, failure)[-_KEPT_FAILURES:])
        self.status = units.moved_forward(self.status, a.shard, progress.saved(self.status, a.shard))
        if verdict.vetoed:  # another node is tried soon
            self.status = vetoes.record(self.status, a.node, self.now, self.facts.defaults)
        else:
            self.status = units.record_failure(self.status, a.shard, counted=verdict.counted, outage=verdict.outage)
        if verdict.avoid_node and a.node:
            until = self.now + timedelta(seconds=self.facts.defaults.node_avoid_seconds)
            self._set(avoided_nodes={**self.status.avoided_nodes, a.node: until})
        if not verdict.counted and not verdict.outage and verdict.exit_code != contract.EXIT_STOPPED:
            self._condition("Evicted", True, verdict.reason, sentence(verdict.reason, verdict.message))
        counted, uncounted = units.failures(self.status, a.shard)
        limit, patience = self.job.spec.backoff_limit, self.job.spec.uncounted_limit
        patience = self.facts.defaults.uncounted_limit if patience is None else patience
        unit = "" if a.shard is None or self.job.spec.shards == 1 else f"shard {a.shard} "
        if verdict.final or (verdict.reason == reasons.OUT_OF_MEMORY and out_of_memory_before):
            self.fatal = (verdict.reason, f"{unit}{verdict.message}")
        elif verdict.counted and counted > limit:
            reason = verdict.reason if verdict.reason == reasons.OUT_OF_MEMORY else reasons.BACKOFF_LIMIT_EXCEEDED
            times = "once" if counted == 1 else f"{counted} times"
            self.fatal = (reason, f"{unit}failed {times} (backoffLimit {limit}); last: {verdict.message}")
        elif not verdict.counted and not verdict.outage and uncounted > patience:
            times = f"{uncounted} times without a failure of its own and without progress (uncountedLimit {patience})"
            self.fatal = (reasons.TOO_MANY_DISRUPTIONS, f"{unit}was stopped {times}; last: {verdict.message}")
        else:
            tries = 1 if verdict.vetoed else counted + uncounted + self.status.rejections
            wait = backoff.delay(self.job.uid, a.shard, tries, self.facts.defaults)
            self.status = units.wait_until(self.status, a.shard, self.now + wait)

    def _stop_together(self) -> None:
        """A job of several nodes runs with all pods or none: the rest of the attempt stops, and all start again."""
        left = []
        for a in self.kept:
            pod = self.facts.pods.get(a.pod)
            if pod is None and a.pod not in self.facts.creating:
                continue
            if pod is not None and not pod.deleting and pod not in self.delete:
                self.delete.append(pod)
            left.append(a if a.stopping else replace(a, stopping=reasons.RESTARTED_TOGETHER))
        self.kept, self.done, self.create = left, [], []

    def _delete_strays(self) -> None:
        """Delete pods of older attempts, and those that are done: they must not live beside the present one.

        One of a later attempt than recorded is left alone for a while: the status read here is behind then, and the pod
        is right. For longer, it is a copy that somebody made.
        """
        assigned = {a.pod for a in self.status.assignments}
        for pod in self.facts.pods.values():
            if pod.name in assigned or not pod.live or pod.deleting or pod in self.delete:
                continue
            shard = None if self.job.kind is Kind.TRAINING else pod.index
            done = shard is not None and shard in units.done(self.status)
            behind = pod.attempt > units.attempt_of(self.status, shard)
            if done or not behind or pod.created + deadlines.AHEAD_GRACE <= self.now:
                self.delete.append(pod)

    # --- time, dependencies, suspension

    def _running(self) -> list[Pod]:
        found = (self.facts.pods.get(a.pod) for a in self.kept if a.started_at is not None)
        return [p for p in found if p is not None and not p.ended]

    def _count_running_time(self) -> None:
        since, running = self.status.running_since, bool(self._running()) and not self.succeeded
        if running and since is None:
            begun = min(a.started_at for a in self.kept if a.started_at is not None)
            begun = max(begun, self.status.admitted_at or begun)
            self._set(running_since=begun, started_at=self.status.started_at or begun, rejections=0, vetoes={})
        elif not running and since is not None:
            spent = max(0, int((self.now - since).total_seconds()))
            self._set(running_since=None, running_seconds=self.status.running_seconds + spent)

    def _past_deadline(self) -> bool:
        at = deadlines.deadline(replace(self.job, status=self.status))
        return at is not None and at <= self.facts.now

    def _resolve_source(self) -> None:
        """Take over the weights of the TrainingJob that was waited for; once recorded, they stay."""
        name = self.job.spec.model.from_training_job
        source = self.facts.source
        if not name or self.status.source is not None or source is None:
            return
        if source.status.phase is Phase.SUCCEEDED:
            weights = source.status.outputs.get("bestWeights") or default_weights(source)
            self._set(source=Source(name=name, uid=source.uid, weights=weights))
        elif source.status.phase is not None and source.status.phase.terminal:
            word = "failed" if source.status.phase is Phase.FAILED else "was cancelled"
            self.fatal = (
                reasons.SOURCE_FAILED,
                f"TrainingJob {name} {word}: {source.status.message or source.status.reason}",
            )

    def _suspend(self) -> None:
        self._stop_all(reasons.SUSPENDED)

    def _drain(self) -> None:
        """The pool is emptied: what runs stops, and queues again."""
        if any(not a.stopping for a in self.kept):
            self._condition(
                "Evicted",
                True,
                reasons.POOL_DRAINED,
                f"pool {self.job.spec.pool} is drained (stopPolicy: {StopPolicy.HOLD_AND_DRAIN}); runs again later",
            )
        self._stop_all(reasons.POOL_DRAINED)

    def _stop_all(self, reason: str) -> None:
        """Stop what runs. The pods save a checkpoint and leave; the room is theirs until then."""
        kept = []
        for a in self.kept:
            pod = self.facts.pods.get(a.pod)
            if a.pod not in self.facts.creating if pod is None else not may_live(pod, self.facts.nodes):
                continue  # gone: nothing is left of it to stop
            if pod is not None and not pod.deleting and pod not in self.delete:
                self.delete.append(pod)
            kept.append(a if a.stopping else replace(a, stopping=reason))
        self.kept, self.create = kept, []

    # --- conclusions

    def _settle(self) -> None:
        """Phase, reason and conditions of a job that has not ended."""
        before = self.job.status.phase
        held = [a for a in self.kept if a.stopping != reasons.SUSPENDED]
        if self.job.spec.suspend:
            stopping = len(self.kept)
            message = "suspended by spec.suspend; set it to false to queue the job again"
            message = f"{message}; {stopping} pod{'s' * (stopping != 1)} still stopping" if stopping else message
            self._move(Phase.SUSPENDED, reason=reasons.SUSPENDED, message=message, queue=None)
            self._condition("Suspended", True, reasons.SUSPENDED, "spec.suspend is true")
            self._condition("Admitted", False, reasons.SUSPENDED, message)
            self._pods_not_ready(reasons.SUSPENDED, message)
            self._clear("Reconciling", reasons.SUSPENDED, message)
            self._clear("Stalled", reasons.SUSPENDED, message)
            return
        self._clear("Suspended", reasons.RESUMED, "spec.suspend is false: back in the queue")
        if not held:
            self._move(Phase.QUEUED)
            if before is not Phase.QUEUED:  # the plan of the same turn says why it waits, with numbers
                reason, message = reasons.BACKING_OFF, self._last_failure()
                evicted = conditions.find(self.status.conditions, "Evicted")
                if before is Phase.SUSPENDED:
                    reason, message = reasons.RESUMED, "spec.suspend is false: back in the queue"
                elif evicted is not None and evicted.status == "True":
                    reason, message = evicted.reason, evicted.message
                if before is not None:
                    self._set(reason=reason, message=message)
                    self._condition("Admitted", False, reason, message)
                    self._pods_not_ready(reasons.NO_PODS, message)
            return
        self._set(queue=None)
        self._move(Phase.ADMITTED)
        if any(a.started_at is not None and not a.stopping for a in held):
            self._move(Phase.RUNNING)
        reason, message = self._present(held)
        self._set(reason=reason, message=message)
        waiting = [a for a in held if a.started_at is None or a.stopping]
        if waiting or reason:
            self._condition("PodsReady", False, reason or reasons.STARTING, message)
        else:
            self._condition("PodsReady", True, reasons.RUNNING, message)

    def _present(self, held: list[Assignment]) -> tuple[str, str]:
        """Reason and message of a job that holds room: what its pods wait for, and what was lost."""
        for a in held:
            pod = self.facts.pods.get(a.pod)
            if a.stopping:
                evicted = conditions.find(self.status.conditions, "Evicted")
                by_others = evicted is not None and evicted.status == "True" and evicted.reason == a.stopping
                words = evicted.message if evicted is not None and by_others else self._last_failure()
                return a.stopping, f"{words}; waits until pod {a.pod} is gone"
            if pod is not None and pod.deleting and pod.node is not None:
                node = self.facts.nodes.get(pod.node)
                if node is not None and not node.ready:
                    return reasons.NODE_LOST, (
                        f"node {pod.node} is not ready, and pod {a.pod} may still run; the job continues once the "
                        f"Node is deleted or tainted {OUT_OF_SERVICE}"
                    )
        waiting = [(a, self.facts.pods.get(a.pod)) for a in held if a.started_at is None]
        for a, pod in waiting:
            if pod is None:
                if self.facts.pool_missing and a.pod not in self.facts.creating:
                    what = f"pool {self.job.spec.pool} {self.facts.pool_missing}"
                    return reasons.NO_SUCH_POOL, f"{what}; pod {a.pod} is created once the pool is back"
                continue
            if pod.unschedulable and pod.node is None:
                return reasons.UNSCHEDULABLE, f"pod {a.pod}: {pod.unschedulable}"
            if pod.node is None or pod.ended:
                continue
            wait = deadlines.wait_of(pod, a, self.status, self.facts.pool, self.now)
            if wait.message:
                return wait.reason if wait.error else reasons.STARTING, f"pod {a.pod}: {wait.message}"
        if len(waiting) == len(held):
            return reasons.STARTING, starting(held)
        return "", self._shards_text(held) or f"runs on {_nodes(held)}"

    def _shards_text(self, held: list[Assignment]) -> str:
        shards = self.status.shards
        if shards is None or self.job.spec.shards == 1:
            return ""
        done = len(ranges.parse(shards.completed))
        return f"{done} of {self.job.spec.shards} shards done, {len(held)} admitted"

    def _what_was_done(self) -> str:
        """Of a job that succeeded."""
        told, shards = self.status.progress or Progress(), self.status.shards
        parts = []
        if shards is not None and self.job.spec.shards > 1:
            parts.append(f"all {self.job.spec.shards} shards are done")
        if told.total_epochs:
            parts.append(f"all {told.total_epochs} epoch{'s' * (told.total_epochs != 1)} are done")
        if told.processed:
            unread = f", {told.failed} could not be read" if told.failed else ""
            parts.append(f"{told.processed} input{'s' * (told.processed != 1)} classified{unread}")
        return "; ".join(parts) or "its container ended with exit code 0"

    def _last_failure(self) -> str:
        if not self.status.failures:
            return "its pods are gone"
        last = self.status.failures[-1]
        return f"attempt {last.attempt} failed: {last.reason}: {last.message}"[:_MESSAGE_LIMIT]

    def _pods_not_ready(self, reason: str, message: str) -> None:
        if conditions.find(self.status.conditions, "PodsReady"):
            self._condition("PodsReady", False, reason, message)

    def _end(self, phase: Phase, reason: str, message: str) -> Outcome:
        """The terminal status. Assignments stay as a record, and as the room of a create that may still arrive."""
        message = sentence(reason, message)
        since = self.status.running_since
        spent = max(0, int((self.now - since).total_seconds())) if since else 0
        self._move(
            phase,
            reason=reason,
            message=message,
            queue=None,
            assignments=self.job.status.assignments,
            running_since=None,
            running_seconds=self.status.running_seconds + spent,
            not_before=None,
            finished_at=self.now,
        )
        if phase is Phase.SUCCEEDED:
            if self.status.progress is not None:
                told = self.status.progress
                self._set(progress=replace(told, percent=100, remaining_seconds=0, step=told.total_steps))
            self._condition("Complete", True, reason, message)
        else:
            self._condition("Failed", True, reason, message)
        if phase is Phase.FAILED:
            self._condition("Stalled", True, reasons.FAILED, message)
        else:
            self._clear("Stalled", reason, message)
        if phase is Phase.CANCELLED or not conditions.is_true(self.status.conditions, "Admitted"):
            self._condition("Admitted", False, reason, message)
        self._pods_not_ready(reason, message)
        self._clear("Suspended", reason, message)
        self._clear("Reconciling", reason, message)
        live = [p for p in self.facts.pods.values() if p.live and not p.deleting]
        return Outcome(status=self.status, delete=live)


def sentence(reason: str, message: str) -> str:
    """A message that says something: words of pods and nodes may be empty, or the reason once more."""
    words = message.strip()[:_MESSAGE_LIMIT]
    return f"{reason} (no further message)" if words.lower() in ("", reason.lower()) else words


def starting(assignments: Iterable[Assignment]) -> str:
    """Where pods are about to start, for people; the first three nodes suffice."""
    held = [a for a in assignments if a.node]
    return f"starts on {_nodes(held)}" if held else "waits for a node that the cluster's autoscaler adds"


def _nodes(assignments: Iterable[Assignment]) -> str:
    nodes = sorted({a.node for a in assignments if a.node})
    return (
        f"{', '.join(nodes[:_SHOWN_NODES])}{' ...' * (len(nodes) > _SHOWN_NODES)}"
        or "a node that has not been read yet"
    )


def default_weights(source: Job) -> str:
    """Where a TrainingJob that did not report its best weights writes them."""
    output = source.raw_spec.get("output") or {}
    return f"{str(output.get('uri', '')).rstrip('/')}/best.safetensors"
