"""Writes and reads at the API server: paths that lead where they say, and only the answers that were asked for."""

import pytest

from rfuav_gateway.cluster import preparations, tasks
from rfuav_gateway.cluster.tasks import Tasks
from rfuav_gateway.cluster.writes import NotDone, Writes, insist
from rfuav_kube import paths
from rfuav_kube.connection import Answer, Unsendable

WRONG = ["..", ".", "a/b", "a/../b", "a?x", "a#x", "a%2fb", "A", "-a", "a-", "a b", "\u00e9", "a" * 254, "a\n"]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_name_is_never_part_of_a_path(name: str) -> None:
    for path in (
        lambda: tasks.path("training", name, "a"),
        lambda: tasks.path("training", "a", name),
        lambda: preparations.path(name, "a"),
        lambda: preparations.path("a", name),
        lambda: paths.pods(name),
    ):
        with pytest.raises(ValueError, match="not the name"):
            path()
    assert not paths.is_name(name)


class Server:
    """Answers every request with the same."""

    def __init__(self, answer: Answer | Exception) -> None:
        self.answer = answer
        self.asked = 0

    async def request(self, *_: object, **__: object) -> Answer:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def body(**meta: str) -> dict:
    named = {"namespace": "mine", "name": "j", "uid": "u", "resourceVersion": "7"}
    return {"kind": "TrainingJob", "metadata": named | meta}


@pytest.mark.parametrize(
    "wrong", [body(namespace="victim"), body(name="other"), body() | {"kind": "InferenceJob"}, {"kind": "TrainingJob"}]
)
async def test_another_object_than_the_one_asked_for_is_not_held(wrong: dict) -> None:
    held = Tasks()
    writes = Writes(Server(Answer(200, wrong)), held)
    with pytest.raises(NotDone) as refused:
        await writes.read("training", "mine", "j", None)
    assert refused.value.status == 502
    with pytest.raises(NotDone):
        await writes.create("training", "mine", {"metadata": {"name": "j"}}, None)
    assert len(held) == 0


async def test_what_no_json_can_hold_is_not_tried_again() -> None:
    server = Server(Unsendable("too large a number"))
    with pytest.raises(NotDone) as refused:
        await insist(server, "POST", "/apis", {}, None)
    assert (refused.value.status, server.asked) == (422, 1)


async def test_a_job_created_under_the_name_of_a_deleted_one_stays() -> None:
    held = Tasks()
    old = held.take("training", body())
    new = held.take("training", body(uid="another", resourceVersion="9"))
    held.gone(old)
    assert held.named("training", "mine", "j") is new
