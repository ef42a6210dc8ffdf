"""The page of the REST interface: every call and body of the OpenAPI document is on it."""

import json

import pytest

from rfuav_gateway.__main__ import main
from rfuav_gateway.serving.reference import reference

DOCUMENT = {
    "paths": {
        "/b/{id}": {
            "post": {
                "description": "Make\na b.\n\nMore of it.",
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
                    {
                        "name": "word",
                        "in": "query",
                        "schema": {"anyOf": [{"enum": ["x", "y"]}, {"type": "null"}], "description": "x | y."},
                    },
                ],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/B"}}}},
                "responses": {
                    "200": {"description": "Events.", "content": {"text/event-stream": {}}},
                    "422": {"description": "Validation Error"},
                },
            }
        },
        "/a": {"get": {"description": "An a.", "responses": {"204": {"description": "Successful Response"}}}},
    },
    "components": {
        "schemas": {
            "B": {
                "description": "A body.",
                "required": ["one"],
                "properties": {
                    "one": {"type": "array", "items": {"type": "string", "format": "date-time"}, "description": "One."},
                    "two": {"type": "boolean", "default": False, "description": "Two."},
                    "three": {"type": "object", "additionalProperties": {"type": "integer"}},
                },
            }
        }
    },
}


def test_calls_come_by_path_with_parameters_bodies_and_answers():
    page = reference(DOCUMENT)
    assert page.index("### GET /a\n") < page.index("### POST /b/{id}\n")
    assert "| [`POST /b/{id}`](#post-bid) | Make a b. |" in page
    assert "Make a b.\n\nMore of it." in page
    assert "| `id` | path | string | *required* |  |" in page
    assert r"| `word` | query | `x` \| `y` |  | x \| y. |" in page
    assert "Body: [B](#b)." in page
    assert "Answer 200: `text/event-stream`. Events." in page
    assert "Answer 204: nothing." in page
    assert "Answer 422" not in page


def test_bodies_come_with_types_and_defaults():
    page = reference(DOCUMENT)
    assert "| `one` | list of time | *required* | One. |" in page
    assert "| `two` | boolean | `false` | Two. |" in page
    assert "| `three` | map of integer |  |  |" in page


def test_the_command_prints_the_document_and_the_page(capsys: pytest.CaptureFixture[str]):
    assert main(["openapi"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert main(["openapi", "--markdown"]) == 0
    page = capsys.readouterr().out
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for method in operations:
            assert f"\n### {method.upper()} {path}\n" in page


def test_every_call_declares_its_errors_with_one_model(capsys: pytest.CaptureFixture[str]):
    assert main(["openapi"]) == 0
    document = json.loads(capsys.readouterr().out)
    model = {"$ref": "#/components/schemas/Error"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            errors = {int(status): one for status, one in operation["responses"].items() if status >= "400"}
            assert {400, 401, 403, 404, 409, 413, 422, 429, 503} <= errors.keys(), path
            assert (410 in errors) is path.endswith("/logs")
            assert (501 in errors) is ("/preprocessing/" in path)
            for one in errors.values():
                assert one["content"]["application/json"]["schema"] == model
                assert one["content"]["application/problem+json"]["schema"] == model
