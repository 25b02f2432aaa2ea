"""Settings: where they come from, which source wins, and everything that is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from raftkv.config import SETTINGS, NodeConfig, load
from raftkv.errors import ConfigError
from raftkv.values import Address, is_loopback, parse_url

NEEDED = {"id": "n1", "data-dir": "data", "url": "http://127.0.0.1:7401"}


def config_of(**flags: object) -> NodeConfig:
    return load(flags={**NEEDED, **_named(flags)}, environment={})


def problems_of(
    flags: Mapping[str, object], environment: dict[str, str] | None = None, file: Path | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags=flags, environment=environment or {}, file=file)
    return "\n".join(caught.value.problems)


def _named(flags: dict[str, object]) -> dict[str, object]:
    return {name.replace("_", "-"): value for name, value in flags.items()}


def secret_file(directory: Path, content: bytes = b"0123456789abcdef\n", mode: int = 0o600) -> Path:
    path = directory / "peer-secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_what_must_be_said_is_enough() -> None:
    config = config_of()
    assert (config.id, config.data_dir, config.url) == ("n1", Path("data"), "http://127.0.0.1:7401")
    assert config.listen == Address("127.0.0.1", 7401)
    assert (config.initial_cluster, config.insecure, config.log_format) == ((), False, "text")


def test_defaults_are_those_of_the_contract() -> None:
    config = config_of()
    assert (config.raft.heartbeat_ms, config.raft.election_timeout_ms) == (100, 300)
    assert config.api.max_value_bytes == 1024 * 1024
    assert config.replica.request_timeout_ms == 5000


def test_the_time_to_ask_again_is_an_election_timeout() -> None:
    assert config_of(election_timeout_ms="900").api.retry_after_ms == 900


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "raftkv.toml"
    file.write_text("heartbeat-ms = 11\nelection-timeout-ms = 1001\nrequest-timeout-ms = 1002\n")
    environment = {"RAFTKV_HEARTBEAT_MS": "12", "RAFTKV_ELECTION_TIMEOUT_MS": "2002"}
    config = load(flags={**NEEDED, "heartbeat-ms": "13"}, environment=environment, file=file)
    assert config.raft.heartbeat_ms == 13
    assert config.raft.election_timeout_ms == 2002
    assert config.replica.request_timeout_ms == 1002
    assert config.api.max_value_bytes == 1024 * 1024


SAMPLES = {
    "id": "node-7",
    "data-dir": "/somewhere",
    "url": "http://127.0.0.1:9000",
    "listen": "127.0.0.1:9001",
    "initial-cluster": "n1=http://127.0.0.1:7401,node-7=http://127.0.0.1:9000",
    "join": "http://127.0.0.1:7401,http://127.0.0.1:7402",
    "peer-url": "http://127.0.0.1:9100",
    "peer-listen": "127.0.0.1:9101",
    "insecure": "true",
    "http-fast-lane": "off",
    "log-format": "json",
    "log-level": "warning",
    "heartbeat-ms": "50",
    "max-value-bytes": "4096",
    "inflight-appends-max": "7",
    "snapshot-chunk-bytes": "4096",
    "lease-reads": "on",
    "clock-drift-max-per-mille": "20",
    "segment-bytes": "1048576",
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_has_one_name_in_all_sources(setting, tmp_path: Path) -> None:
    sample = SAMPLES.get(setting.name, "2000000")
    others = {name: value for name, value in NEEDED.items() if name != setting.name}
    if setting.name == "peer-listen":
        others["peer-url"] = SAMPLES["peer-url"]
    if setting.name == "peer-secret-file":
        sample = str(secret_file(tmp_path))
    if setting.name == "initial-cluster":
        others |= {"id": "node-7", "url": "http://127.0.0.1:9000"}
    file = tmp_path / "raftkv.toml"
    file.write_text(f'{setting.name} = "{sample}"\n')
    by_flag = load(flags={**others, setting.name: sample}, environment={})
    by_variable = load(flags=others, environment={setting.variable: sample})
    by_file = load(flags=others, environment={}, file=file)
    assert by_flag == by_variable == by_file
    room = by_flag if not setting.room else getattr(by_flag, setting.room)
    assert getattr(room, setting.field) == setting.parse(sample)


def test_the_file_may_use_toml_s_own_types(tmp_path: Path) -> None:
    file = tmp_path / "raftkv.toml"
    file.write_text(
        'id = "n1"\nheartbeat-ms = 20\ninsecure = true\nlisten = "0.0.0.0:7401"\n'
        '[initial-cluster]\nn2 = "http://10.0.0.2:7401"\nn1 = "http://10.0.0.1:7401/"\n'
    )
    config = load(flags={"data-dir": "data", "url": "http://10.0.0.1:7401"}, environment={}, file=file)
    assert config.raft.heartbeat_ms == 20
    assert config.initial_cluster == (("n1", "http://10.0.0.1:7401"), ("n2", "http://10.0.0.2:7401"))


def test_all_problems_are_told_at_once() -> None:
    told = problems_of({"id": "a b", "heartbeat-ms": "often", "listen": "nowhere", "log-format": "xml"})
    for part in ("--id:", "--heartbeat-ms:", "--listen:", "--log-format:", "--data-dir is missing", "--url is missing"):
        assert part in told


@pytest.mark.parametrize(
    ("heartbeat_ms", "election_timeout_ms"), [(300, 300), (151, 300), (1000, 300), (50, 99)], ids=str
)
def test_heartbeat_beyond_half_the_election_timeout_is_refused(heartbeat_ms, election_timeout_ms, tmp_path) -> None:
    """faults 21"""
    data_dir = tmp_path / "data"
    flags = {
        **NEEDED,
        "data-dir": str(data_dir),
        "heartbeat-ms": str(heartbeat_ms),
        "election-timeout-ms": str(election_timeout_ms),
    }
    told = problems_of(flags)
    assert "heartbeat-ms" in told
    assert "half of election-timeout-ms" in told
    assert not data_dir.exists()


def test_heartbeat_of_just_half_the_election_timeout_is_taken() -> None:
    assert config_of(heartbeat_ms="150").raft.heartbeat_ms == 150


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("id", "", "not a node id"),
        ("id", "n" * 65, "not a node id"),
        ("id", "n/1", "not a node id"),
        ("id", "né", "not a node id"),
        ("id", "n1\n", "not a node id"),
        ("id", 7, "not a node id"),
        ("data-dir", "", "not a path"),
        ("data-dir", "a\0b", "not a path"),
        ("url", "127.0.0.1:7401", "http://"),
        ("url", "https://127.0.0.1:7401", "does not start with http://"),
        ("url", "http://127.0.0.1", "no port"),
        ("url", "http://127.0.0.1:0", "no port"),
        ("url", "http://127.0.0.1:70000", "out of range"),
        ("url", "http://127.0.0.1:x", "not a URL"),
        ("url", "http://:7401", "no host"),
        ("url", "http://a b:7401", "no host"),
        ("url", "http://ä:7401", "no host"),
        ("url", "http://127.0.0.1:7401/raft", "more than a host and a port"),
        ("url", "http://127.0.0.1:7401?x", "more than a host and a port"),
        ("url", "http://me@127.0.0.1:7401", "more than a host and a port"),
        ("url", 7401, "not a URL"),
        ("listen", "127.0.0.1", "not HOST:PORT"),
        ("listen", ":7401", "not HOST:PORT"),
        ("listen", "127.0.0.1:", "not HOST:PORT"),
        ("listen", "127.0.0.1:0", "not HOST:PORT"),
        ("listen", "127.0.0.1:65536", "not HOST:PORT"),
        ("listen", "127.0.0.1:-1", "not HOST:PORT"),
        ("listen", "::1:7401", "brackets"),
        ("listen", "http://127.0.0.1:7401", "brackets"),
        ("initial-cluster", "", "not a node id"),
        ("initial-cluster", "n1", "'n1' is not ID=URL"),
        ("initial-cluster", "n1=http://127.0.0.1:7401,http://127.0.0.1:7402", "'http://127.0.0.1:7402' is not ID=URL"),
        ("initial-cluster", "n1=http://127.0.0.1:7401,", "not a node id"),
        ("initial-cluster", "n1=http://127.0.0.1:7401,n1=http://127.0.0.1:7402", "the id n1 is there twice"),
        ("initial-cluster", "n1=http://127.0.0.1:7401,n2=http://127.0.0.1:7401/", "is there twice"),
        ("initial-cluster", "n2=http://127.0.0.1:7402", "does not list this node, n1"),
        ("initial-cluster", ["n1"], "not a list of members"),
        ("insecure", "perhaps", "neither true nor false"),
        ("insecure", 1, "neither true nor false"),
        ("log-format", "xml", "not one of text, json"),
        ("log-level", "debug", "not one of info, warning, error"),
        ("heartbeat-ms", "0", "out of bounds"),
        ("heartbeat-ms", "-5", "out of bounds"),
        ("heartbeat-ms", "1.5", "not a whole number"),
        ("heartbeat-ms", 1.5, "not a whole number"),
        ("heartbeat-ms", True, "not a whole number"),
        ("heartbeat-ms", "1_0", "not a whole number"),
        ("heartbeat-ms", "٣", "not a whole number"),
        ("heartbeat-ms", "9" * 19, "not a whole number"),
        ("max-value-bytes", str(2 * 1024 * 1024), "out of bounds"),
        ("max-value-bytes", "0", "out of bounds"),
        ("segment-bytes", "1", "out of bounds"),
    ],
)
def test_bad_values_are_refused_by_name(name: str, value: object, complaint: str) -> None:
    told = problems_of({**NEEDED, name: value})
    assert name in told
    assert complaint in told


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:7401", "http://127.0.0.1:7401"),
        ("http://127.0.0.1:7401/", "http://127.0.0.1:7401"),
        ("http://N1.Example:7401", "http://n1.example:7401"),
        ("http://[::1]:7401", "http://[::1]:7401"),
    ],
)
def test_a_url_is_kept_in_one_way_of_writing(written: str, meant: str) -> None:
    assert parse_url(written) == meant


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("n1.example", False),
        ("localhost.example", False),
    ],
)
def test_what_counts_as_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "flags",
    [{"listen": "0.0.0.0:7401"}, {"listen": "[::]:7401"}, {"url": "http://10.0.0.1:7401"}, {"listen": "n1:7401"}],
    ids=str,
)
def test_a_bind_beyond_loopback_needs_the_operators_word(flags: dict[str, object]) -> None:
    assert "--insecure" in problems_of({**NEEDED, **flags})
    assert load(flags={**NEEDED, **flags, "insecure": True}, environment={}).insecure


def test_a_secret_opens_the_bind_and_promises_clients_nothing(tmp_path: Path) -> None:
    told = problems_of({**NEEDED, "listen": "0.0.0.0:7401"})
    assert "--peer-secret-file, which keeps strangers from speaking as a node (clients prove nothing" in told
    secret = str(secret_file(tmp_path))
    config = load(flags={**NEEDED, "listen": "0.0.0.0:7401", "peer-secret-file": secret}, environment={})
    assert config.peer_secret is not None
    assert not config.insecure


OPEN, SHUT = "0.0.0.0", "127.0.0.1"
CLIENTS, PEERS = "can read and write everything", "can speak as another node"


@pytest.mark.parametrize(
    ("clients", "peers", "told_of"),
    [(SHUT, SHUT, []), (OPEN, SHUT, [CLIENTS]), (SHUT, OPEN, [PEERS]), (OPEN, OPEN, [CLIENTS, PEERS])],
)
def test_each_port_is_judged_by_itself(clients: str, peers: str, told_of: list[str], tmp_path: Path) -> None:
    flags = {
        **NEEDED,
        "listen": f"{clients}:7401",
        "peer-url": "http://127.0.0.1:7501",
        "peer-listen": f"{peers}:7501",
    }
    if told_of:
        told = problems_of(flags)
        assert [text for text in (CLIENTS, PEERS) if text in told] == told_of
        assert ("--peer-secret-file" in told) is (PEERS in told_of), "a secret does nothing for clients"
    for trust in ({"insecure": True}, {"peer-secret-file": str(secret_file(tmp_path))}):
        load(flags={**flags, **trust}, environment={})


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (b"0123456789abcdef", 0o604, "everybody on this machine may read or change it; chmod 600"),
        (b"0123456789abcde", 0o600, "openssl rand -hex 32"),
    ],
)
def test_a_secret_that_is_none_is_refused_unseen(content: bytes, mode: int, complaint: str, tmp_path: Path) -> None:
    told = problems_of({**NEEDED, "peer-secret-file": str(secret_file(tmp_path, content, mode))})
    assert told.startswith("--peer-secret-file: ")
    assert complaint in told
    assert content.decode() not in told


def test_a_secret_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Never taken for "no secret"."""
    told = problems_of({**NEEDED, "peer-secret-file": str(tmp_path / "nowhere")})
    assert "cannot be read: No such file" in told


def test_the_secret_is_in_no_words_about_the_configuration(tmp_path: Path) -> None:
    config = config_of(peer_secret_file=str(secret_file(tmp_path)))
    assert "0123456789abcdef" not in repr(config)
    assert str(tmp_path) in repr(config)


def test_a_configuration_whose_secret_was_not_read_is_none(tmp_path: Path) -> None:
    """Else a node that was to have a secret would run without one, and believe whoever speaks as a peer."""
    sound = config_of()
    with pytest.raises(ConfigError, match="was not read"):
        replace(sound, peer_secret_file=secret_file(tmp_path))
    shared = config_of(peer_secret_file=str(secret_file(tmp_path)))
    assert replace(shared, log_format="json").peer_secret is shared.peer_secret


# ------------------------------------------------------------------------ an address for peers of their own


def test_clients_and_peers_share_one_address_by_default() -> None:
    config = config_of(listen="127.0.0.1:7411")
    assert (config.peer_url, config.peer_listen) == (config.url, config.listen)
    assert not config.peers_have_their_own_port


def test_the_peer_url_says_what_to_bind_unless_it_is_said_otherwise() -> None:
    config = config_of(peer_url="http://127.0.0.1:7501")
    assert (config.peer_url, config.peer_listen) == ("http://127.0.0.1:7501", Address("127.0.0.1", 7501))
    assert config.listen == Address("127.0.0.1", 7401)
    assert config.peers_have_their_own_port
    config = config_of(peer_url="http://n1.inner:7501", peer_listen="127.0.0.1:7502")
    assert config.peer_listen == Address("127.0.0.1", 7502)


def test_another_name_for_the_same_port_needs_no_second_one() -> None:
    config = config_of(peer_url="http://n1.inner:7401", peer_listen="127.0.0.1:7401")
    assert not config.peers_have_their_own_port


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"peer-listen": "127.0.0.1:7501"}, "--peer-listen needs --peer-url"),
        ({"peer-listen": "127.0.0.1:7501", "peer-url": "http://127.0.0.1:7401"}, "--peer-listen needs --peer-url"),
        (
            {
                "peer-url": "http://127.0.0.1:7501",
                "initial-cluster": "n1=http://127.0.0.1:7401,n2=http://127.0.0.1:7502",
            },
            "for this one http://127.0.0.1:7401, and --peer-url says http://127.0.0.1:7501",
        ),
        (
            {"initial-cluster": "n1=http://127.0.0.1:7411,n2=http://127.0.0.1:7502"},
            "for this one http://127.0.0.1:7411, and --url says http://127.0.0.1:7401",
        ),
        ({"peer-url": "127.0.0.1:7501"}, "--peer-url"),
        ({"peer-listen": "nowhere"}, "--peer-listen"),
    ],
)
def test_peers_would_not_arrive_where_they_are_listened_for(flags: dict[str, object], complaint: str) -> None:
    assert complaint in problems_of({**NEEDED, **flags})


def test_the_members_are_listed_by_peer_url() -> None:
    listed = "n1=http://127.0.0.1:7501,n2=http://127.0.0.1:7502"
    config = config_of(peer_url="http://127.0.0.1:7501", initial_cluster=listed)
    assert dict(config.initial_cluster)[config.id] == config.peer_url


def test_a_public_url_with_a_loopback_bind_needs_no_such_word() -> None:
    config = config_of(url="http://db.example:80", listen="127.0.0.1:7401")
    assert config.listen == Address("127.0.0.1", 7401)


def test_ipv6_addresses_are_bound_without_their_brackets() -> None:
    assert config_of(url="http://[::1]:7401").listen == Address("::1", 7401)
    assert config_of(listen="[::1]:7402").listen == Address("::1", 7402)


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("heartbeet-ms", "heartbeat-ms"),
        ("heartbeat_ms", "heartbeat-ms"),
        ("election-timeout", "election-timeout-ms"),
    ],
)
def test_a_mistyped_key_in_the_file_is_told_its_nearest_name(mistyped: str, meant: str, tmp_path: Path) -> None:
    file = tmp_path / "raftkv.toml"
    file.write_text(f"{mistyped} = 5\n")
    assert f"{mistyped} is not a setting; did you mean {meant}?" in problems_of(NEEDED, file=file)


def test_an_unknown_key_in_the_file_is_refused_without_a_guess(tmp_path: Path) -> None:
    file = tmp_path / "raftkv.toml"
    file.write_text("colour = 5\n")
    told = problems_of(NEEDED, file=file)
    assert "colour is not a setting" in told
    assert "did you mean" not in told


def test_a_mistyped_variable_is_refused() -> None:
    told = problems_of(NEEDED, {"RAFTKV_ELECTION_TIMEOUT": "400"})
    assert "did you mean RAFTKV_ELECTION_TIMEOUT_MS?" in told


@pytest.mark.parametrize(
    "variable",
    [
        "RAFTKV_PORT",
        "RAFTKV_SERVICE_HOST",
        "RAFTKV_SERVICE_PORT",
        "RAFTKV_SERVICE_PORT_HTTP",
        "RAFTKV_PORT_7401_TCP",
        "RAFTKV_PORT_7401_TCP_ADDR",
        "RAFTKV_PORT_7401_TCP_PROTO",
        "RAFTKV_ENDPOINTS",
        "RAFTKV_CONFIG",
        "OTHER_HEARTBEAT_MS",
    ],
)
def test_variables_that_orchestrators_set_are_no_settings(variable: str) -> None:
    assert load(flags=NEEDED, environment={variable: "tcp://10.0.0.1:7401"}) == config_of()


def test_an_empty_variable_is_not_given() -> None:
    assert load(flags=NEEDED, environment={"RAFTKV_HEARTBEAT_MS": ""}) == config_of()


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "cannot read"), (b"id = ", "not TOML"), (b"\xff\xfe", "not TOML")], ids=str
)
def test_an_unusable_file_is_told(content: bytes | None, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "raftkv.toml"
    if content is not None:
        file.write_bytes(content)
    assert complaint in problems_of(NEEDED, file=file)
    assert "missing" not in problems_of({}, file=file)


def test_a_cluster_is_joined_at_any_of_its_nodes(tmp_path: Path) -> None:
    first, second = "http://127.0.0.1:7401", "http://127.0.0.1:7402"
    assert config_of(join=f"{first}/, {second},{first}").join == (first, second)
    file = tmp_path / "raftkv.toml"
    file.write_text(f'join = ["{first}", "{second}"]\n')
    assert load(flags=NEEDED, environment={}, file=file).join == (first, second)
    assert NodeConfig.of(id="n4", data_dir=tmp_path, url="http://127.0.0.1:7404", join=[first]).join == (first,)


@pytest.mark.parametrize("value", ["", ",", "127.0.0.1:7401", "http://127.0.0.1", [], 7, [7]])
def test_what_is_no_node_cannot_be_joined(value: object) -> None:
    with pytest.raises(ConfigError, match="--join"):
        load(flags={**NEEDED, "join": value}, environment={})


def test_a_node_joins_a_cluster_or_forms_one() -> None:
    both = {"join": "http://127.0.0.1:7401", "initial-cluster": "n1=http://127.0.0.1:7401"}
    with pytest.raises(ConfigError, match="--join and --initial-cluster exclude each other"):
        load(flags={**NEEDED, **both}, environment={})
