"""What the gateway says, in two languages."""

from dataclasses import fields
from string import Formatter

import pytest

from rfuav_gateway.tasks.words import CHINESE, ENGLISH, PHRASES, Phrases, Problem, RefusedError, language, said


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("name", [field.name for field in fields(Phrases)])
def test_both_languages_fill_in_the_same(name):
    english, chinese = getattr(ENGLISH, name), getattr(CHINESE, name)
    assert english
    assert chinese
    assert placeholders(english) == placeholders(chinese)
    assert english.isascii()
    assert placeholders(chinese) == {name for _, name, _, _ in Formatter().parse(chinese) if name is not None}


def test_chinese_is_chinese():
    same = {f.name for f in fields(Phrases) if getattr(ENGLISH, f.name) == getattr(CHINESE, f.name)}
    assert same == {"as_it_is"}
    assert set(PHRASES) == {"en", "zh"}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, "en"),
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("ZH-Hans-CN", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("de, zh;q=0.5", "zh"),
        ("de, fr", "en"),
        ("zh;q=0, en;q=0.1", "en"),
        ("*", "en"),
        ("zh ; q=0.7 , en;q=0.7", "zh"),
        ("zh;q=nonsense", "en"),
        (",;=zh,,zh", "zh"),
        ("zho", "en"),
        ("en;q=0.1," + "x," * 100_000 + "zh", "en"),
    ],
)
def test_the_language_that_is_preferred(header, found):
    assert language(header) == found


def test_the_default_is_for_those_who_prefer_neither():
    assert [language(header, "zh") for header in (None, "de", "*", "en")] == ["zh", "zh", "zh", "en"]


def test_braces_in_values_are_no_placeholders():
    assert said("no_such_task", task_id="{of}{").text(ENGLISH) == "Task {of}{ does not exist"


def test_a_refusal_names_its_fields():
    refused = RefusedError(
        Problem("save_path", said("no_path", roots="/data")), Problem("name", said("one_folder", name="a/b"))
    )
    assert str(refused).startswith("save_path: A path is missing: write one below /data; name: a/b is not")
    assert refused.problems[0].detail(CHINESE) == {
        "loc": ["body", "save_path"],
        "msg": "缺少路径：请填写 /data 下的路径",
        "type": "value_error",
    }
