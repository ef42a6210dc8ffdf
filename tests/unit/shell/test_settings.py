"""File, environment and flags; errors that name the setting."""

import pytest

from rfuav_operator.__main__ import main
from rfuav_operator.configuration import SettingsError
from rfuav_operator.settings import load


def test_the_later_wins(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("leader: {leaseSeconds: 20}\nretries: {backoffBaseSeconds: 5}\nlogLevel: debug\n")
    env = {
        "RFUAV_OPERATOR__LEADER__LEASE_SECONDS": "25",
        "RFUAV_OPERATOR__JOBS__ALLOW_CPU": "true",
        "POD_NAMESPACE": "n",
    }
    settings = load(file, env=env, overrides=["leader.leaseSeconds=30"])
    assert settings.leader.lease_seconds == 30
    assert settings.retries.backoff_base_seconds == 5
    assert settings.jobs.allow_cpu is True
    assert (settings.log_level, settings.namespace) == ("debug", "n")
    assert load(file, env=env).leader.lease_seconds == 25


def test_what_pods_are_told():
    assert load(env={"POD_NAMESPACE": "n"}).progress_url == "https://rfuav-operator-progress.n.svc"
    assert (
        load(env={}, overrides=["progress.servicePort=8443"]).progress_url
        == "https://rfuav-operator-progress.rfuav-system.svc:8443"
    )
    assert load(env={}, overrides=["progress.url=https://127.0.0.1:9"]).progress_url == "https://127.0.0.1:9"
    assert load(env={}, overrides=["progress.enabled=false"]).progress_url == ""


def test_the_identity_is_the_pod_or_differs_each_time():
    assert load(env={"POD_NAME": "p-1"}).leader.identity == "p-1"
    assert load(env={}).leader.identity != load(env={}).leader.identity


@pytest.mark.parametrize(
    "value", ["[" * 1000, "{a: " * 1000, "1" * 5000, "2026-13-45", "'\\0'", "&a [*a]", ".nan", "!!set {a}"]
)
@pytest.mark.parametrize("name", ["leader", "leader.leaseSeconds", "resyncSeconds", "defaultPool.spec"])
def test_any_value_is_taken_or_refused_by_its_name(tmp_path, name, value):
    file = tmp_path / "settings.yaml"
    first, _, last = name.partition(".")
    file.write_text(f"{first}: {{{last}: {value}}}" if last else f"{first}: {value}")
    for read in (lambda: load(env={}, overrides=[f"{name}={value}"]), lambda: load(file, env={})):
        with pytest.raises(SettingsError) as refused:
            read()
        assert len(str(refused.value)) < 6000


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("leader.leaseSeconds=1", "leader.leaseSeconds"),
        ("leader.leaseSeconds=601", "leader.leaseSeconds"),
        ("leader.lease_secs=5", "leader.lease_secs"),
        ("nonsense", "NAME=VALUE"),
        ("progress.url=http://x", "https://HOST:PORT"),
        ("retries.backoffCapSeconds=1", "at least backoffBaseSeconds"),
        ("writes.parallel=many", "writes.parallel"),
        ("leader=[", "YAML"),
        ("leader.clusterNamespace=rfuav-system", "leader.clusterNamespace"),
    ],
)
def test_bad_settings_are_named(override, words, capsys):
    with pytest.raises(SettingsError, match=words.replace(".", r"\.")):
        load(env={}, overrides=[override])
    assert main(["run", "--set", override]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("text", ["- a list", "{broken", "\xff"])
def test_a_file_that_is_no_mapping(tmp_path, text):
    file = tmp_path / "s.yaml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(SettingsError, match=r"s\.yaml"):
        load(file, env={})
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "missing.yaml", env={})


def test_the_help_names_each_setting_with_its_default_and_meaning(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    _, _, listed = capsys.readouterr().out.partition("settings and their defaults:\n")
    lines = [line for line in listed.splitlines() if line.strip()]
    assert (
        "  progress.connections.total: 512  connections of all addresses; a TLS connection takes some 270 KiB" in lines
    )
    for line in lines:
        name, _, rest = line.strip().partition(": ")
        value, _, meaning = rest.partition("  ")
        assert load(None, overrides=[f"{name}={value}"], env={}), line
        assert meaning not in ("", "None"), line
