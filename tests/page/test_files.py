"""What the page is made of: its size, its two dictionaries, its libraries, and its YAML."""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from page.gateway_double import PAGE

ROOT = Path(__file__).parents[2]
MOST_KB = 60
SCRIPTS = sorted(path for path in PAGE.rglob("*") if path.suffix in {".js", ".css"})


def keys(language: str) -> list[str]:
    text = (PAGE / f"i18n/{language}.js").read_text()
    return re.findall(r'"([a-zA-Z0-9]+\.[a-zA-Z0-9]+)": ["\[]', text)


@pytest.mark.parametrize("other", ["en", "zh"])
def test_script_and_style_of_one_language_stay_small(other):
    size = sum(len(gzip.compress(path.read_bytes(), 9)) for path in SCRIPTS if path.name != f"{other}.js") / 1000
    print(f"script and style without {other}.js: {size:.1f} kB gzip, of {MOST_KB}")
    assert size < MOST_KB


def test_both_languages_have_the_same_words():
    english = keys("en")
    assert len(english) > 200
    assert len(english) == len(set(english))
    assert set(english) == set(keys("zh"))


def test_every_word_that_the_code_names_exists():
    code = "\n".join(path.read_text() for path in (PAGE / "js").glob("*.js"))
    named = set(
        re.findall(r'"((?:' + "|".join(sorted({key.split(".")[0] for key in keys("en")})) + r')\.[a-zA-Z0-9]+)"', code)
    )
    assert named
    assert named - set(keys("en")) == set()


def test_every_reason_to_wait_is_in_words():
    text = (ROOT / "docs/reasons.md").read_text()
    waiting = text.split("## A job waits")[1].split("## A job is admitted")[0]
    reasons = re.findall(r"^\| `(\w+)` \|", waiting, re.MULTILINE)
    assert len(reasons) > 10
    assert {f"reason.{reason}" for reason in reasons} <= set(keys("en"))


def test_libraries_are_those_of_the_lock():
    lock = [
        line.split() for line in (ROOT / "gateway/vendor.lock").read_text().splitlines() if not line.startswith("#")
    ]
    wanted = {f"{name}-{version}/{file.split('=')[1]}" for name, version, _, *files in lock for file in files}
    assert {str(path.relative_to(PAGE / "vendor")) for path in (PAGE / "vendor").rglob("*") if path.is_file()} == wanted
    index = (PAGE / "index.html").read_text()
    assert {f"{name}-{version}" for name, version, *_ in lock} == set(re.findall(r"vendor/([^/]+)/", index))


@pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed: the YAML writer is tested in Chromium alone"
)
@pytest.mark.parametrize("value", [
    {"a": "yes", "b": "1", "c": "1e3", "d": "", "e": "a: b", "f": "#x", "g": " x", "h": "*a", "i": "0x1f", "j": "12:30", "k": "null", "l": "~", "m": "2026-01-01", "n": "4", "o": "on"},
    {"list": [1, "two", {"three": [{"x": 1, "y": {}}, [], [1, 2]]}], "empty": [], "none": None, "true": True, "float": 0.0001, "text": 'line\nbreak "quoted" 中文'},
    {"**/*.iq": "**/*.iq", "example.com/team": "radar", "uri": "pvc://captures/train", "y": "n", "image": "registry/rfuav-trainer:0.1.0@sha256:aa", "-": "-", "?": "? x", "ends:": "ends:"},
    {"x": ["!tag", "&a", "%d", "@x", "`", "{", "[", "'", ">", "|", ",", "a,b", ".5", "+1", "1_000", ".inf", ".NaN", "TRUE", "Off", "=", "<<"]},
])  # fmt: skip
def test_yaml_reads_back_the_same(value):
    script = f"import {{ yaml }} from {json.dumps((PAGE / 'js/yaml.js').as_uri())}; process.stdout.write(yaml({json.dumps(value)}))"
    text = subprocess.run(
        ["node", "--input-type=module", "-e", script], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    assert yaml.safe_load(text) == value


REFUSED = (
    'TrainingJob.rfuav.io "preview-1" is invalid: [spec.training.epochs: Invalid value: 0: spec.training.epochs in body should be greater than or equal to 1, '
    'spec.dataset.train.uri: Invalid value: "captures": write pvc://CLAIM/path, s3://bucket/prefix, hf://datasets/owner/name or file:///path (the claim\'s name in lower case), '
    "spec.training.schedule.warmupEpochs: Invalid value: the warm-up ends before training does: write fewer warmupEpochs than epochs, "
    'spec.podTemplate.env[0].name: Invalid value: "1A": write letters, spec.model: Required value, <nil>: Invalid value: null: some validation rules were not checked]'
)


@pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed: what the API server refuses is read in Chromium alone"
)
def test_what_the_api_server_refuses_is_read_by_field():
    script = f"import {{ refusals }} from {json.dumps((PAGE / 'js/api.js').as_uri())}; console.log(JSON.stringify(refusals({json.dumps(REFUSED)})))"
    text = subprocess.run(
        ["node", "--input-type=module", "-e", script], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    assert json.loads(text) == {
        "spec.training.epochs": "should be greater than or equal to 1",
        "spec.dataset.train.uri": "write pvc://CLAIM/path, s3://bucket/prefix, hf://datasets/owner/name or file:///path (the claim's name in lower case)",
        "spec.training.schedule.warmupEpochs": "the warm-up ends before training does: write fewer warmupEpochs than epochs",
        "spec.podTemplate.env": "write letters",
        "spec.model": "Required value",
    }
