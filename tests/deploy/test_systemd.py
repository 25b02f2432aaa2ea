"""The unit of systemd: systemd's own word on it, and that it fits to the node that it starts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from raftkv.config import SETTINGS
from raftkv.errors import DataDamaged, DataError, DirectoryLocked, DiskFailed, UnknownFormat, WrongIdentity
from tests.deploy.files import DEPLOY, configuration, longest_stop_s, seconds

UNIT = (DEPLOY / "systemd" / "raftkv@.service").read_text()
EXAMPLE = (DEPLOY / "systemd" / "n1.env.example").read_text()
INSTANCE = "n1"


def value(name: str) -> str:
    """Of the one line that sets it."""
    (found,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(found).replace("%i", INSTANCE)


def example() -> dict[str, str]:
    """The settings of the example file."""
    lines = [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_command_and_the_example_are_a_sound_configuration(peer_secret):
    program, *words = value("ExecStart").split()
    assert program.endswith("/raftkv")
    config = configuration(words, example() | {"RAFTKV_PEER_SECRET_FILE": str(peer_secret)})
    assert config.id == INSTANCE
    assert str(config.data_dir) == f"/var/lib/{value('StateDirectory')}"
    assert dict(config.initial_cluster)[config.id] == config.peer_url
    assert seconds(value("TimeoutStopSec")) >= 2 * longest_stop_s(config)


def test_every_variable_is_a_setting_also_those_in_comments():
    known = {setting.variable for setting in SETTINGS}
    named = set(re.findall(r"RAFTKV_[A-Z_]+\b(?==)", UNIT + EXAMPLE)) | set(
        re.findall(r"^# (RAFTKV_\w+)=", EXAMPLE, re.M)
    )
    assert named
    assert named <= known


def test_the_secret_is_a_credential_that_the_node_is_told_of():
    name, source = value("LoadCredential").split(":")
    assert value("Environment") == f"RAFTKV_PEER_SECRET_FILE=%d/{name}"
    assert source in (DEPLOY / "README.md").read_text()


def test_what_no_restart_mends_is_not_restarted_and_the_rest_is():
    final = {int(code) for code in value("RestartPreventExitStatus").split()}
    ends = {kind.exit_code for kind in (DirectoryLocked, DataDamaged, WrongIdentity, UnknownFormat, DataError)}
    assert final == ends | {2}
    assert DiskFailed.exit_code not in final
    assert 70 not in final
    assert value("Restart") == "on-failure"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("DynamicUser", "yes"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("KillSignal", "SIGTERM"),
        ("EnvironmentFile", "/etc/raftkv/n1.env"),
    ],
)
def test_it_has_no_more_than_it_needs(name, wanted):
    assert value(name) == wanted
    assert int(value("LimitNOFILE")) >= 16_384


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("planted", [False, True], ids=["as it is", "with a mistake"])
def test_systemd_has_nothing_to_say(tmp_path, planted):
    program, *_ = value("ExecStart").split()
    text = UNIT.replace(program, sys.executable)
    unit = tmp_path / "raftkv@.service"
    unit.write_text(text.replace("ProtectSystem=", "ProtectSytem=") if planted else text)
    said = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", str(unit)], capture_output=True, text=True, check=False, timeout=50
    )
    ours = [line for line in said.stderr.splitlines() if "raftkv@" in line]
    assert bool(ours) == planted
