"""The bodies of requests and answers of the page: names in camelCase, instants with their zone, as in the cluster."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from rfuav_gateway.tasks.bodies import Answer, Request, TaskType

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
