"""One node's configuration: where settings come from, and what makes them acceptable.

Told: the flags, the environment and the path of a TOML file. Tells: a frozen ``NodeConfig``, or one
ConfigError with every problem in it. Touches nothing on disk but the file it was given and the peers' secret,
which it reads, so a node that is refused here has left its data directory alone.

A setting has one name everywhere: ``heartbeat-ms`` in the file, ``--heartbeat-ms`` as a flag,
``RAFTKV_HEARTBEAT_MS`` in the environment. Flags win over the environment, that over the file, that over
the defaults.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from raftkv.api.settings import VALUE_BYTES_MAX, ApiSettings
from raftkv.core.settings import RaftSettings
from raftkv.core.types import NodeId
from raftkv.errors import ConfigError
from raftkv.replica import ReplicaSettings
from raftkv.snapshotting import SnapshotSettings
from raftkv.storage.wal import SEGMENT_BYTES
from raftkv.transport.secret import PeerSecret, read_peer_secret
from raftkv.transport.settings import TransportSettings
from raftkv.values import (
    LOG_FORMATS,
    LOG_LEVELS,
    Address,
    InitialCluster,
    is_loopback,
    parse_address,
    parse_initial_cluster,
    parse_log_format,
    parse_log_level,
    parse_node_id,
    parse_path,
    parse_switch,
    parse_url,
    parse_urls,
    url_address,
    whole_number,
)

ENVIRONMENT_PREFIX: Final = "RAFTKV_"

_NEAR: Final = 0.84
"""How alike two names must be to be taken for a slip of the fingers."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All that ``raftkv serve`` goes by; whoever holds one need not check it again."""

    id: NodeId
    data_dir: Path
    url: str
    """Where clients reach this node: scheme, host and port, without a slash at the end."""
    listen: Address
    """What is bound; the URL's own host and port unless said otherwise."""
    peer_url: str
    """Where other nodes reach this one; ``url`` unless said otherwise."""
    peer_listen: Address
    """What is bound for them; ``listen`` unless said otherwise."""
    initial_cluster: InitialCluster = ()
    """By peer URL. Empty: this node goes on with what its directory holds, and forms nothing."""
    join: tuple[str, ...] = ()
    """URLs of nodes that are asked to let this one in, if it belongs to no cluster yet."""
    peer_secret_file: Path | None = None
    peer_secret: PeerSecret | None = field(default=None, compare=False, repr=False)
    """What stood in that file when it was read, once; None: peers prove nothing to each other."""
    insecure: bool = False
    """The operator says that the network is trusted, so a bind beyond loopback is allowed."""
    http_fast_lane: bool = True
    """Requests for single keys are served by the lean front; off: aiohttp serves all that clients ask."""
    log_format: str = "text"
    log_level: str = "info"
    segment_bytes: int = SEGMENT_BYTES
    raft: RaftSettings = field(default_factory=RaftSettings)
    replica: ReplicaSettings = field(default_factory=ReplicaSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    transport: TransportSettings = field(default_factory=TransportSettings)
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)

    def __post_init__(self) -> None:
        """Never a node that was to have a secret and has none, whoever has made this, and how."""
        if self.peer_secret_file is not None and self.peer_secret is None:
            raise ConfigError(["peer_secret_file: it was not read; make a configuration by NodeConfig.of"])

    @classmethod
    def of(
        cls,
        *,
        id: str,
        data_dir: Path | str,
        url: str,
        initial_cluster: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> NodeConfig:
        """From a program: any setting by its name, with underscores. No environment and no file is looked at.

        Raises ConfigError with every problem at once.
        """
        given = {"id": id, "data_dir": data_dir, "url": url, "initial_cluster": initial_cluster, **settings}
        return _of(given)

    @property
    def peers_have_their_own_port(self) -> bool:
        """Else clients and peers share one."""
        return self.peer_listen != self.listen


_OWN_DEFAULTS: Final = {own.name: own.default for own in fields(NodeConfig) if own.default is not MISSING}


class Setting(NamedTuple):
    """One thing that an operator may choose."""

    name: str
    parse: Callable[[Any], Any]
    """From text or a TOML value to the value itself; ValueError says what is wrong with it."""
    help: str
    room: str = ""
    """The field of NodeConfig whose settings it is one of; empty: NodeConfig's own."""
    required: bool = False

    @property
    def field(self) -> str:
        """Its name in Python."""
        return self.name.replace("-", "_")

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return ENVIRONMENT_PREFIX + self.field.upper()

    @property
    def shape(self) -> str:
        """What a value looks like, for the help."""
        known = {"id": "ID", "data-dir": "DIR", "url": "URL", "listen": "HOST:PORT", "initial-cluster": "ID=URL,…"}
        known |= {"join": "URL,…", "peer-url": "URL", "peer-listen": "HOST:PORT", "peer-secret-file": "FILE"}
        known |= {"http-fast-lane": "on|off"}
        known |= {"log-format": "|".join(LOG_FORMATS), "log-level": "|".join(LOG_LEVELS)}
        return known.get(self.name, "N")

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return self.parse is parse_switch and not self.default

    @property
    def default(self) -> Any:
        """What holds when nobody says anything; None where there is no such thing."""
        if not self.room:
            return _OWN_DEFAULTS.get(self.field)
        return getattr(ROOMS[self.room](), self.field)


_HOUR_MS: Final = 3_600_000
_MIB: Final = 1024 * 1024
_TIB: Final = 1024 * 1024 * _MIB

ROOMS: Final[Mapping[str, Callable[..., Any]]] = {
    "raft": RaftSettings,
    "replica": ReplicaSettings,
    "api": ApiSettings,
    "transport": TransportSettings,
    "snapshots": SnapshotSettings,
}
"""The rooms whose settings are composed here, by their field in NodeConfig."""

SETTINGS: Final = (
    Setting("id", parse_node_id, "This node's name in the cluster.", required=True),
    Setting("data-dir", parse_path, "Where the log is kept; made when it is not there.", required=True),
    Setting("url", parse_url, "What others reach this node by: http://HOST:PORT.", required=True),
    Setting("listen", parse_address, "What to bind, where it differs from the URL's host and port."),
    Setting("peer-url", parse_url, "What other nodes reach this one by, where clients use another URL."),
    Setting("peer-listen", parse_address, "What to bind for other nodes, where it differs from the peer URL's."),
    Setting("peer-secret-file", parse_path, "A file that all nodes have and nobody else: they prove it to each other."),
    Setting("initial-cluster", parse_initial_cluster, "Who forms the cluster, this node too; by peer URL."),
    Setting("join", parse_urls, "Join the cluster of these nodes, instead of forming one: the URL of any, or several."),
    Setting("insecure", parse_switch, "The network is trusted: a bind that is not loopback is allowed."),
    Setting("http-fast-lane", parse_switch, "Keys' own routes are served by the lean front; off: all by aiohttp."),
    Setting("log-format", parse_log_format, "How log lines look: text or json."),
    Setting("log-level", parse_log_level, "The least grave log lines that are written: info, warning or error."),
    Setting("heartbeat-ms", whole_number(1, _HOUR_MS), "How often an idle leader speaks.", "raft"),
    Setting(
        "election-timeout-ms",
        whole_number(2, _HOUR_MS),
        "After so long without a leader, up to twice that, a node stands for election.",
        "raft",
    ),
    Setting(
        "lease-reads",
        parse_switch,
        "consistency=lease is answered without a round while clocks keep to the bound below. The same at all nodes.",
        "raft",
    ),
    Setting(
        "clock-drift-max-per-mille",
        whole_number(1, 1000),
        "Leases and ages of stale reads rest on it: no clock is faster than another by more thousandths, or stops.",
        "raft",
    ),
    Setting("append-bytes-max", whole_number(1, 16 * _MIB), "Entries in one message to a follower.", "raft"),
    Setting("inflight-appends-max", whole_number(1, 1024), "Messages with entries under way to one follower.", "raft"),
    Setting(
        "log-memory-bytes",
        whole_number(_MIB, _TIB),
        "Newest entries, kept in memory while a member lacks them.",
        "raft",
    ),
    Setting("request-timeout-ms", whole_number(1, _HOUR_MS), "After so long a request is given up.", "replica"),
    Setting(
        "proposals-in-flight-max", whole_number(1, 10**7), "Writes taken and not answered; beyond: 429.", "replica"
    ),
    Setting("proposal-bytes-in-flight-max", whole_number(_MIB, _TIB), "The same in bytes.", "replica"),
    Setting("reads-in-flight-max", whole_number(1, 10**7), "Reads taken and not answered; beyond: 429.", "replica"),
    Setting(
        "member-catch-up-timeout-ms",
        whole_number(1000, 24 * _HOUR_MS),
        "A node that is to become a voter and has not caught up by then is taken out again.",
        "replica",
    ),
    Setting("max-value-bytes", whole_number(1, VALUE_BYTES_MAX), "The largest value that is taken.", "api"),
    Setting("segment-bytes", whole_number(_MIB, 1024 * _MIB), "How large a file of the log grows."),
    Setting(
        "snapshot-log-bytes",
        whole_number(1024, _TIB),
        "A snapshot is taken after so much log, or half of the last snapshot's size if that is more.",
        "snapshots",
    ),
    Setting("snapshot-log-entries", whole_number(1, 10**9), "A snapshot is taken after so many entries.", "snapshots"),
    Setting(
        "snapshot-bytes-per-s",
        whole_number(64 * 1024, _TIB),
        "How fast a snapshot is written, and read for the nodes that need one.",
        "snapshots",
    ),
    Setting("snapshot-chunk-bytes", whole_number(1024, _MIB), "A snapshot in one message to a follower.", "raft"),
    Setting(
        "log-tail-entries",
        whole_number(1, 10**9),
        "Entries kept before a snapshot, so that who lags a little needs none.",
        "raft",
    ),
    Setting("log-tail-bytes", whole_number(1, _TIB), "At most so much of them.", "raft"),
)
"""Every setting there is; the command line, its help and the checks are made from this table."""

_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
_BY_VARIABLE: Final = {setting.variable: setting for setting in SETTINGS}
_VARIABLES_OF_OTHERS: Final = frozenset({"RAFTKV_COMPILE", "RAFTKV_CONFIG", "RAFTKV_ENDPOINTS"})


def load(*, flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> NodeConfig:
    """The configuration that these sources make together.

    ``flags`` are by setting name; None means not given. Raises ConfigError with all problems at once.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    in_file = _from_file(file, problems)
    for source in (
        in_file or [],
        _from_environment(environment, problems),
        [(_BY_NAME[name], _BY_NAME[name].flag, value) for name, value in flags.items() if value is not None],
    ):
        for setting, origin, value in source:
            try:
                values[setting.name] = setting.parse(value)
            except ValueError as error:
                problems.append(f"{origin}: {error}")
                values.setdefault(setting.name, None)
    return _compose(values, problems, is_complete=in_file is not None)


def _of(given: Mapping[str, Any]) -> NodeConfig:
    """As ``load``, with Python's own spelling in what is said to be wrong."""
    fields_known = {setting.field: setting for setting in SETTINGS}
    unknown = [_unknown(name, fields_known) for name in given if name not in fields_known]
    flags = {setting.name: given[field] for field, setting in fields_known.items() if field in given}
    try:
        config = load(flags=flags, environment={})
    except ConfigError as error:
        raise ConfigError([*unknown, *map(_in_pythons_words, error.problems)]) from None
    if unknown:
        raise ConfigError(unknown)
    return config


def _in_pythons_words(problem: str) -> str:
    for setting in SETTINGS:
        problem = problem.replace(setting.flag, setting.field)
        if "-" in setting.name:
            problem = problem.replace(setting.name, setting.field)
    return problem


_Source = list[tuple[Setting, str, Any]]


def _from_file(file: Path | None, problems: list[str]) -> _Source | None:
    """What stands in the file. None: it is not known."""
    if file is None:
        return []
    try:
        with file.open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        problems.append(f"--config: cannot read {file}: {error.strerror}")
        return None
    except ValueError as error:
        problems.append(f"--config: {file} is not TOML: {error}")
        return None
    found: _Source = []
    for name, value in table.items():
        if name in _BY_NAME:
            found.append((_BY_NAME[name], f"{name} in {file}", value))
        else:
            problems.append(f"{file}: {_unknown(name, _BY_NAME)}")
    return found


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> _Source:
    """Only near misses are refused: orchestrators put variables of their own under a service's name.

    An empty variable is one that a compose file or a unit left empty: not given.
    """
    found: _Source = []
    for variable in sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX)):
        if not environment[variable]:
            continue
        if variable in _BY_VARIABLE:
            found.append((_BY_VARIABLE[variable], variable, environment[variable]))
        elif variable not in _VARIABLES_OF_OTHERS and _nearest(variable, _BY_VARIABLE):
            problems.append(_unknown(variable, _BY_VARIABLE))
    return found


def _unknown(name: str, known: Mapping[str, Setting]) -> str:
    near = _nearest(name, known)
    return f"{name} is not a setting" + (f"; did you mean {near}?" if near else "")


def _nearest(name: str, known: Mapping[str, Setting]) -> str | None:
    """The known name that a mistyped one was probably meant to be; Python's spelling is the likeliest slip."""
    for spelled in known:
        if spelled.replace("-", "_") == name.replace("-", "_"):
            return spelled
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)), None)


def _compose(values: dict[str, Any], problems: list[str], *, is_complete: bool) -> NodeConfig:
    """``is_complete``: every source was read, so that what is in none of them is missing."""
    for setting in SETTINGS:
        if is_complete and setting.required and setting.name not in values:
            problems.append(f"{setting.flag} is missing (or {setting.variable}, or {setting.name} in the file)")
    rooms = {room: _room(room, values, problems) for room in ROOMS}
    problems += _contradictions(values)
    secret = _peer_secret(values.get("peer-secret-file"), problems)
    if problems:
        raise ConfigError(problems)
    # Whoever finds no leader may hope for one after an election timeout.
    rooms["api"] = replace(rooms["api"], retry_after_ms=rooms["raft"].election_timeout_ms)
    own = {setting.field: values[setting.name] for setting in SETTINGS if not setting.room and setting.name in values}
    own.setdefault("listen", url_address(own["url"]))
    own.setdefault("peer_url", own["url"])
    own.setdefault("peer_listen", own["listen"] if own["peer_url"] == own["url"] else url_address(own["peer_url"]))
    return NodeConfig(**own, peer_secret=secret, **rooms)


def _peer_secret(file: Path | None, problems: list[str]) -> PeerSecret | None:
    """Read once, here: what a node has begun with does not change under it."""
    try:
        return None if file is None else read_peer_secret(file)
    except ConfigError as error:
        problems += error.problems
        return None


def _room(room: str, values: Mapping[str, Any], problems: list[str]) -> Any:
    """One room's settings; what the room itself refuses is told in the operator's words."""
    given = {
        setting.field: values[setting.name]
        for setting in SETTINGS
        if setting.room == room and values.get(setting.name) is not None
    }
    try:
        return ROOMS[room](**given)
    except ConfigError as error:
        problems += [_in_operators_words(problem, room) for problem in error.problems]
        return None


def _in_operators_words(problem: str, room: str) -> str:
    for setting in SETTINGS:
        if setting.room == room:
            problem = problem.replace(setting.field, setting.name)
    return problem


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings that are sound one by one."""
    problems = []
    id, members = values.get("id"), values.get("initial-cluster")
    if id and members and id not in dict(members):
        problems.append(f"--initial-cluster does not list this node, {id}: every node gets the whole list")
    if members and values.get("join"):
        problems.append("--join and --initial-cluster exclude each other: a node joins a cluster, or helps to form one")
    return problems + _address_contradictions(values) + _open_binds(values)


def _address_contradictions(values: Mapping[str, Any]) -> list[str]:
    """Other nodes must arrive where they are listened for."""
    url, peer_url = values.get("url"), values.get("peer-url")
    if not url:
        return []
    problems = []
    apart = peer_url is not None and peer_url != url
    ours = peer_url if apart else url
    peer_listen, listen = values.get("peer-listen"), values.get("listen") or url_address(url)
    if peer_listen and peer_listen != listen and not apart:
        problems.append("--peer-listen needs --peer-url: by --url other nodes would come to the port for clients")
    listed = dict(values.get("initial-cluster") or ()).get(values.get("id"))
    if listed is not None and listed != ours:
        flag = "--peer-url" if apart else "--url"
        problems.append(
            f"--initial-cluster tells what other nodes come by: for this one {listed}, and {flag} says {ours}"
        )
    return problems


def _open_binds(values: Mapping[str, Any]) -> list[str]:
    """Binds that others can reach, where nobody has said anything about these others."""
    if values.get("insecure") or values.get("peer-secret-file"):
        return []
    url, peer_url = values.get("url"), values.get("peer-url")
    listen = values.get("listen") or (url and url_address(url))
    peer_listen = values.get("peer-listen") or (peer_url and peer_url != url and url_address(peer_url)) or listen
    problems = []
    if listen and not is_loopback(listen.host):
        problems.append(
            f"{listen.host} is not a loopback address, and whoever reaches it can read and write everything: "
            "bind to 127.0.0.1, or say with --insecure that the network is trusted"
            + (f"; {_WHAT_A_SECRET_DOES}" if peer_listen == listen else "")
        )
    if peer_listen and peer_listen != listen and not is_loopback(peer_listen.host):
        problems.append(
            f"{peer_listen.host} is not a loopback address, and whoever reaches it can speak as another node: "
            f"bind to 127.0.0.1, or say with --insecure that the network is trusted; {_WHAT_A_SECRET_DOES}"
        )
    return problems


_WHAT_A_SECRET_DOES: Final = (
    "or give --peer-secret-file, which keeps strangers from speaking as a node "
    "(clients prove nothing: their port stays open to whoever reaches it)"
)
