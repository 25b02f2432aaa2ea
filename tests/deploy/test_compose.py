"""compose.yaml: three nodes that fit together, and a secret that is made once."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.files import (
    CLIENT_PORT,
    DEPLOY,
    PEER_PORT,
    configuration,
    image_environment,
    longest_stop_s,
    read,
    seconds,
)

NODES = ("n1", "n2", "n3")


def compose() -> Any:
    (found,) = read("compose.yaml")
    return found


def with_variables(text: str, **given: str) -> str:
    """As Compose puts variables in: ${NAME:-default}."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1], found[2]), text)


def words(name: str, **given: str) -> list[str]:
    """The arguments of one node's container."""
    return [with_variables(word, **given) for word in compose()["services"][name]["command"]]


def host_port(name: str) -> int:
    """Where this machine has the port for clients of one node's container."""
    ((_, outside, inside),) = [with_variables(port).split(":") for port in compose()["services"][name]["ports"]]
    assert int(inside) == CLIENT_PORT
    return int(outside)


def test_the_services_are_the_nodes_and_the_secret():
    assert sorted(compose()["services"]) == [*NODES, "secret"]


@pytest.mark.parametrize("name", NODES)
class TestANode:
    def test_is_a_sound_configuration(self, name, peer_secret):
        given = [word.replace("/secret/peer-secret", str(peer_secret)) for word in words(name)]
        environment = {key: value for key, value in image_environment().items() if key.startswith("RAFTKV_")}
        config = configuration(given, environment)
        assert config.id == name
        assert config.peer_url == f"http://{name}:{PEER_PORT}" == dict(config.initial_cluster)[config.id]
        assert config.listen == ("0.0.0.0", CLIENT_PORT)
        assert config.peer_listen == ("0.0.0.0", PEER_PORT)
        assert [str(id) for id, _ in config.initial_cluster] == list(NODES)
        assert config.url == f"http://127.0.0.1:{host_port(name)}"
        assert str(config.data_dir).startswith("/data/")
        assert seconds(compose()["services"][name]["stop_grace_period"]) >= 2 * longest_stop_s(config)

    def test_has_volumes_for_what_it_writes_and_reads(self, name, peer_secret):
        volumes = dict(volume.split(":", 1) for volume in compose()["services"][name]["volumes"])
        assert volumes == {name: "/data", "secret": "/secret:ro"}
        assert set(volumes) <= set(compose()["volumes"])

    def test_is_reached_from_this_machine_only_unless_somebody_says_otherwise(self, name, peer_secret):
        (port,) = compose()["services"][name]["ports"]
        assert with_variables(port).startswith("127.0.0.1:")
        assert f"--url=http://db1:{host_port(name)}" in words(name, CLIENT_HOST="db1")

    def test_has_no_privileges(self, name, peer_secret):
        service = compose()["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]

    def test_waits_for_the_secret_and_is_asked_whether_it_is_ready(self, name, peer_secret):
        service = compose()["services"][name]
        assert service["depends_on"] == {"secret": {"condition": "service_completed_successfully"}}
        assert f"http://127.0.0.1:{CLIENT_PORT}/readyz" in service["healthcheck"]["test"][-1]


def test_no_two_nodes_share_a_port_or_a_volume():
    assert sorted(map(host_port, NODES)) == [7401, 7402, 7403]
    assert len({compose()["services"][name]["volumes"][0] for name in NODES}) == 3


def test_what_is_built_is_there():
    for service in compose()["services"].values():
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).exists()


def make_secret(directory: Path) -> Path:
    """Runs what the secret's service runs, on this directory."""
    service = compose()["services"]["secret"]
    (script,) = service["command"]
    command = [*service["entrypoint"], script.replace("/secret/", f"{directory}/")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(command, check=True, env={"PATH": path}, cwd=directory)
    return directory / "peer-secret"


def test_the_secret_is_made_once_and_is_nobody_else_s(tmp_path):
    path = make_secret(tmp_path)
    first = path.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}\n", first)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert make_secret(tmp_path).read_text() == first


def test_a_secret_that_was_left_empty_is_made(tmp_path):
    (tmp_path / "peer-secret").touch()
    assert make_secret(tmp_path).read_text() != ""
