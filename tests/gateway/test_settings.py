"""Settings of the gateway: what is wrong is named, with what to write instead."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rfuav_gateway.settings import Settings, load
from rfuav_operator.configuration import SettingsError


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"compat": {"enabled": True}}, "compat.namespace"),
        ({"compat": {"enabled": True, "namespace": "Lab"}}, "name of a namespace"),
        ({"limits": {"creates": "10 a minute"}}, "10/minute"),
        ({"limits": {"creates": "0/minute"}}, "10/minute"),
        ({"proxy": {"addresses": ["proxy.example.org"]}}, "10.0.0.0/24"),
        ({"roots": [{"path": "data", "uri": "pvc://a"}]}, "absolute path"),
        ({"roots": [{"path": "/a/../b", "uri": "pvc://a"}]}, "absolute path"),
        ({"roots": [{"path": "/a", "uri": "/b"}]}, "pvc://captures"),
        ({"roots": [{"path": "/a", "uri": "pvc://a"}, {"path": "/a/", "uri": "pvc://b"}]}, "listed twice"),
        ({"outputs": [{"uri": "pvc://a", "namespace": "lab", "path": "mnt"}]}, "absolute path"),
        ({"outputs": [{"uri": "pvc://a", "namespace": "", "path": "/mnt"}]}, "namespace"),
        ({"outputs": [{"uri": "pvc://a", "path": "/mnt"}]}, "namespace"),
        ({"tlsKey": "/k"}, "tlsCertificate and tlsKey"),
        ({"compat": {"enabled": True, "namespace": "a"}, "proxy": {"addresses": ["10.0.0.1"]}}, "without credentials"),
        ({"prot": 8000}, "prot"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, tree: dict[str, Any], words: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(SettingsError) as refused:
        load(file, env={})
    assert words in str(refused.value)


def test_the_environment_and_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("port: 1\nhealthPort: 1\nhost: a\n")
    found = load(file, env={"RFUAV_GATEWAY__PORT": "2", "RFUAV_GATEWAY__HEALTH_PORT": "2"}, overrides=["port=3"])
    assert (found.port, found.health_port, found.host) == (3, 2, "a")


def test_the_defaults_are_for_shared_clusters() -> None:
    settings = Settings()
    assert not settings.compat.enabled
    assert settings.limits.creates == "10/minute"
    assert settings.proxy.addresses == ()
