"""After all that happened, what the observer saw: every promise kept, and enough seen to say so."""

from cluster.jobs import restricted_pod
from cluster.kube import NAMESPACE
from cluster.running import Running


def test_no_promise_was_broken_in_the_whole_run(running: Running) -> None:
    audit = running.observer.audit
    expected = {job["metadata"]["name"]: job for kind in ("tj", "ij") for job in running.kube.items(kind)}
    assert running.observer.watching, "a watch died, so what it would have seen is not known"
    assert audit.violations() == []
    # It saw what there was to see: each job's pods from creation to end, and the jobs' way through their phases.
    assert set(expected) <= audit.jobs_seen
    assert audit.seen["job pod"] >= 4 * len(expected)
    assert audit.seen["TrainingJob"] + audit.seen["InferenceJob"] >= 4 * len(expected)
    assert audit.seen["Node"] > 0
    assert audit.seen["GPUPool"] > 0


def test_the_namespace_takes_none_but_restricted_pods(running: Running) -> None:
    """So the pods of all jobs were restricted: this one, which is not, does not get in."""
    pod = restricted_pod("not-restricted", running.trainer_image, "true")
    del pod["spec"]["securityContext"]["runAsNonRoot"]
    answer = running.kube.try_apply(pod)
    assert "violates PodSecurity" in answer, answer
    assert f'"{NAMESPACE}"' in answer or "restricted" in answer
