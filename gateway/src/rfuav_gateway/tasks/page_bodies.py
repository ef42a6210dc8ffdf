"""The bodies of requests and answers of the page: names in camelCase, instants with their zone, as in the cluster."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from rfuav_gateway.tasks.bodies import Answer, Request, TaskStatus, TaskType

LONGEST_TOKEN = 16_384  # bytes
PagePath = Annotated[str, Field(max_length=512, pattern=r"^/([A-Za-z0-9._~-]+/)*$")]


class PageAnswer(Answer):
    """An answer for the page."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


# --- the session


class SignIn(Request):
    """POST /api/v2/session."""

    token: str = Field(min_length=1, max_length=LONGEST_TOKEN, description="A bearer token that the cluster knows.")
    path: PagePath = Field(
        "/", description="Path of the page: the cookie is sent below it alone, and not to others on the same host."
    )


class NamespaceRights(PageAnswer):
    """What the caller may do in one namespace."""

    name: str = Field(description="The namespace.")
    create: bool = Field(description="Whether they may create jobs of some type.")
    creates: list[TaskType] = Field(description="The types.")
    update: bool = Field(description="Whether they may suspend, resume and cancel trainings.")
    delete: bool = Field(description="Whether they may delete trainings.")
    logs: bool = Field(description="Whether they may read logs.")


class Session(PageAnswer):
    """GET /api/v2/session."""

    user: str | None = Field(description="Who is signed in; null: nobody, or nobody needs to be.")
    sign_in: Literal["token", "proxy", "none"] = Field(
        description="How to sign in: with a token, at the proxy in front, or not at all."
    )
    compat: bool = Field(description="Whether requests without credentials are carried out.")
    namespace: str = Field(description="The namespace of requests that name none; empty: there is none.")
    language: Literal["en", "zh"] = Field(description="Language of messages: that of the browser, as far as known.")
    version: str = Field(description="Version of the gateway.")
    now: datetime = Field(description="The time.")
    namespaces: list[NamespaceRights] = Field(
        description="Namespaces where the caller may list jobs: their own, and those with jobs or quotas; at most 200."
    )
    pools: bool = Field(description="Whether the caller may list GPUPools.")
    all_namespaces: bool = Field(description="Whether the caller sees the jobs of all namespaces.")


# --- jobs


class Row(PageAnswer):
    """A job in a list; null: not known, or not of this type."""

    key: str = Field(description="type/namespace/name.")
    id: str = Field(description="Its task_id.")
    type: TaskType = Field(description="training or inference.")
    namespace: str = Field(description="Its namespace.")
    name: str = Field(description="Its name there.")
    status: TaskStatus = Field(description="pending, queued, running, completed, failed or cancelled.")
    phase: str | None = Field(description="As the operator writes it; null: it has not seen the job.")
    reason: str = Field(description="Why it is in this phase, in a word.")
    message: str = Field(description="Why, in a sentence of at most 300 characters.")
    model: str = Field(description="Network, or where the weights come from.")
    pool: str = Field(description="Its GPUPool.")
    gpus: int = Field(description="GPU slots of all its pods that run at a time.")
    priority: int | None = Field(description="Value of its PriorityClass.")
    priority_class: str = Field(description="Its PriorityClass; empty: that of the type.")
    user: str = Field(description="Who created it through the gateway; empty: not known.")
    created: datetime = Field(description="When it was created.")
    queued: datetime | None = Field(description="When it first queued.")
    started: datetime | None = Field(description="When its first pod ran.")
    finished: datetime | None = Field(description="When it ended.")
    updated: datetime = Field(description="When it last changed.")
    attempt: int = Field(description="Attempts begun.")
    failures: int = Field(description="Failures of its pods that count against its limits.")
    position: int | None = Field(description="Its place in the queue, from 1.")
    of: int | None = Field(description="How many wait.")
    estimated_start: datetime | None = Field(description="About when it starts.")
    percent: int | None = Field(description="Share done, 0 to 100.")
    epoch: int | None = Field(description="Epochs done (training).")
    epochs: int | None = Field(description="Epochs in all (training).")
    processed: int | None = Field(description="Inputs classified (inference).")
    total: int | None = Field(description="Inputs in all (inference).")
    remaining: int | None = Field(description="Seconds left, about.")
    speed: float | None = Field(description="Samples a second.")
    nodes: list[str] = Field(description="Where its pods run, at most 8.")
    suspended: bool = Field(description="Whether it is to wait until somebody resumes it.")
    loss: float | None = Field(description="Newest loss: over the validation data, else over the training data.")
    accuracy: float | None = Field(description="Newest accuracy, likewise, 0 to 1.")
    f1: float | None = Field(description="Newest F1 averaged over the classes, 0 to 1.")


class Can(PageAnswer):
    """What the caller may do with a job."""

    update: bool = Field(description="Suspend, resume and cancel it.")
    delete: bool = Field(description="Delete it.")
    create: bool = Field(description="Create another like it.")
    logs: bool = Field(description="Read its log.")


class Step(PageAnswer):
    """One thing that must be so before a job runs, or of how it goes."""

    ok: bool | None = Field(description="Whether it is; null: not known, or not looked at yet.")
    what: str = Field(description="The thing, in a few words.")
    detail: str = Field(description="The numbers; for a thing that is not so, why, and what to do.")


class Detail(PageAnswer):
    """GET /api/v2/jobs/{type}/{namespace}/{name}."""

    row: Row = Field(description="The job as in lists.")
    manifest: dict[str, Any] = Field(description="The manifest, as one would apply it.")
    status: dict[str, Any] = Field(description="The status as it is stored; failures have `advice`.")
    can: Can = Field(description="What the caller may do with it.")
    kubectl: list[str] = Field(description="Commands that show the same.")
    why: list[Step] = Field(description="What stands between it and a GPU, or how it goes.")


class Event(PageAnswer):
    """An Event of Kubernetes, about a job or one of its pods."""

    time: datetime | None = Field(description="When it was last seen.")
    type: str = Field(description="Normal or Warning.")
    reason: str = Field(description="What happened, in a word.")
    message: str = Field(description="What happened, in a sentence.")
    object: str = Field(description="Kind/name.")
    count: int = Field(description="How often.")


class Events(PageAnswer):
    """GET /api/v2/jobs/{type}/{namespace}/{name}/events."""

    events: list[Event] = Field(description="The newest first, at most 100.")


class Create(Request):
    """POST /api/v2/jobs."""

    manifest: dict[str, Any] = Field(
        description="A TrainingJob or InferenceJob, as kubectl takes it, with a name of at most 40 characters."
    )


class Created(PageAnswer):
    """A job that was created, or would have been."""

    row: Row | None = Field(description="The job; null for a dry run.")
    manifest: dict[str, Any] = Field(description="Its manifest with all defaults.")


class Picture(PageAnswer):
    """GET /api/v2/live for `Accept: application/json`: what the stream begins with."""

    now: datetime = Field(description="The time.")
    scope: list[str] | Literal["all"] = Field(description="The namespaces whose jobs are shown.")
    rows: list[Row] = Field(description="All jobs that have not ended, and the newest that have.")
    pools: list[dict[str, Any]] = Field(description="GPUPools, for those who may list them.")
    quotas: list[dict[str, Any]] = Field(description="What the namespaces use, for those who may list GPUQuotas.")
