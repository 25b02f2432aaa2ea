"""One node's configuration: where settings come from, and what makes them acceptable.

Told: the flags, the environment and the path of a TOML file. Tells: a frozen ``NodeConfig``, or one
ConfigError with every problem in it. Touches nothing on disk but the file it was given, so a node that is
refused here has left its data directory alone.

A setting has one name everywhere: ``heartbeat-ms`` in the file, ``--heartbeat-ms`` as a flag,
``RAFTKV_HEARTBEAT_MS`` in the environment. Flags win over the environment, that over the file, that over
the defaults.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from raftkv.core.settings import RaftSettings
from raftkv.core.types import NodeId
from raftkv.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "RAFTKV_"
LOG_FORMATS: Final = ("text", "json")

_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_NEAR: Final = 0.84
"""How alike two names must be to be taken for a slip of the fingers."""


class Address(NamedTuple):
    """Where to bind."""

    host: str
    port: int


InitialCluster = tuple[tuple[NodeId, str], ...]
"""Who forms the cluster: ids and URLs, in order of id."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """All that ``raftkv serve`` goes by; whoever holds one need not check it again."""

    id: NodeId
    data_dir: Path
    url: str
    """Where others reach this node: scheme, host and port, without a slash at the end."""
    listen: Address
    """What is bound; the URL's own host and port unless said otherwise."""
    initial_cluster: InitialCluster = ()
    """Empty: this node goes on with what its directory holds, and forms nothing."""
    insecure: bool = False
    """The operator says that the network is trusted, so a bind beyond loopback is allowed."""
    log_format: str = "text"
    raft: RaftSettings = field(default_factory=RaftSettings)


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
        return known.get(self.name, "TEXT" if not self.room else "N")

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return self.parse is parse_switch

    @property
    def default(self) -> Any:
        """What holds when nobody says anything; None where there is no such thing."""
        if not self.room:
            return {"insecure": False, "log-format": LOG_FORMATS[0]}.get(self.name)
        return getattr(ROOMS[self.room](), self.field)


def parse_node_id(value: Any) -> NodeId:
    """A node's name."""
    if not isinstance(value, str) or not _NODE_ID.fullmatch(value):
        raise ValueError(f"{value!r} is not a node id: 1 to 64 of A-Z a-z 0-9 . _ -")
    return NodeId(value)


def parse_url(value: Any) -> str:
    """``http://HOST:PORT``, in the one way that it is written."""
    example = "give it like http://127.0.0.1:7401"
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a URL: {example}")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is not a URL ({error}): {example}") from None
    if parts.scheme != "http":
        raise ValueError(f"{value!r} does not start with http:// : {example}")
    if not host or re.search(r"[\s\x00-\x20\x7f]", value):
        raise ValueError(f"{value!r} names no host: {example}")
    if not port:
        raise ValueError(f"{value!r} names no port: {example}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{value!r} has more than a host and a port: {example}")
    return f"http://{_bracketed(host)}:{port}"


def is_url(value: Any) -> bool:
    """Whether it is a node's URL."""
    try:
        parse_url(value)
    except ValueError:
        return False
    return True


def parse_address(value: Any) -> Address:
    """``HOST:PORT`` to bind; an IPv6 address stands in brackets."""
    example = "give it like 127.0.0.1:7401, or 0.0.0.0:7401 for every interface"
    text = value if isinstance(value, str) else ""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{value!r} is ambiguous: put the IPv6 address in brackets, like [::1]:7401")
    if not host or not _WHOLE_NUMBER.fullmatch(port) or not 1 <= int(port) <= 65_535 or re.search(r"[\s/]", host):
        raise ValueError(f"{value!r} is not HOST:PORT: {example}")
    return Address(host, int(port))


def parse_initial_cluster(value: Any) -> InitialCluster:
    """``ID=URL,ID=URL,…``, or in the file a table of the same; sorted by id."""
    if isinstance(value, Mapping):
        pairs = [(str(id), url) for id, url in value.items()]
    elif isinstance(value, str):
        pairs = [(id.strip(), url.strip()) for id, _, url in (item.partition("=") for item in value.split(","))]
    else:
        raise ValueError(f"{value!r} is not a list of members: give it like n1=http://127.0.0.1:7401,n2=…")
    members = sorted((parse_node_id(id), parse_url(url)) for id, url in pairs)
    for kind, names in (("id", [str(id) for id, _ in members]), ("URL", [url for _, url in members])):
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the {kind} {name} is there twice")
    return tuple(members)


def parse_switch(value: Any) -> bool:
    """On or off."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        known = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        if value.lower() in known:
            return known[value.lower()]
    raise ValueError(f"{value!r} is neither true nor false")


def parse_log_format(value: Any) -> str:
    """How log lines look."""
    if value not in LOG_FORMATS:
        raise ValueError(f"{value!r} is not one of {', '.join(LOG_FORMATS)}")
    return str(value)


def parse_path(value: Any) -> Path:
    """A directory; it need not exist yet."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError(f"{value!r} is not a path")
    return Path(value)


def whole_number(least: int, most: int) -> Callable[[Any], int]:
    """A parser of whole numbers between two bounds, both allowed."""

    def parse(value: Any) -> int:
        number = int(value) if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()) else value
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"{value!r} is not a whole number")
        if not least <= number <= most:
            raise ValueError(f"{number} is out of bounds: {least} to {most}")
        return number

    return parse


_HOUR_MS: Final = 3_600_000
_MIB: Final = 1024 * 1024

ROOMS: Final[Mapping[str, Callable[..., Any]]] = {
    "raft": RaftSettings,
}
"""The rooms whose settings are composed here, by their field in NodeConfig."""

SETTINGS: Final = (
    Setting("id", parse_node_id, "This node's name in the cluster.", required=True),
    Setting("data-dir", parse_path, "Where the log is kept; made when it is not there.", required=True),
    Setting("url", parse_url, "What others reach this node by: http://HOST:PORT.", required=True),
    Setting("listen", parse_address, "HOST:PORT to bind, where it differs from the URL's."),
    Setting("initial-cluster", parse_initial_cluster, "Who forms the cluster, this node too: ID=URL,ID=URL,…"),
    Setting("insecure", parse_switch, "The network is trusted: a bind that is not loopback is allowed."),
    Setting("log-format", parse_log_format, "How log lines look: text or json."),
    Setting(
        "heartbeat-ms",
        whole_number(1, _HOUR_MS),
        "How often an idle leader speaks, at most half the election timeout.",
        "raft",
    ),
    Setting(
        "election-timeout-ms",
        whole_number(2, _HOUR_MS),
        "After so long without a leader, up to twice that, a node stands.",
        "raft",
    ),
    Setting("append-bytes-max", whole_number(1, 16 * _MIB), "Entries in one message to a follower.", "raft"),
    Setting(
        "inflight-appends-max", whole_number(1, 1024), "Messages with entries on their way to one follower.", "raft"
    ),
    Setting("log-memory-bytes", whole_number(_MIB, 1024 * 1024 * _MIB), "Newest entries kept in memory.", "raft"),
)
"""Every setting there is; the command line, its help and the checks are made from this table."""

_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
_BY_VARIABLE: Final = {setting.variable: setting for setting in SETTINGS}
_VARIABLES_OF_OTHERS: Final = frozenset({"RAFTKV_CONFIG", "RAFTKV_ENDPOINTS"})


def load(*, flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> NodeConfig:
    """The configuration that these sources make together.

    ``flags`` are by setting name; None means not given. Raises ConfigError with all problems at once.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for source in (
        _from_file(file, problems),
        _from_environment(environment, problems),
        [(_BY_NAME[name], setting_flag(name), value) for name, value in flags.items() if value is not None],
    ):
        for setting, origin, value in source:
            try:
                values[setting.name] = setting.parse(value)
            except ValueError as error:
                problems.append(f"{origin}: {error}")
                values.setdefault(setting.name, None)
    return _compose(values, problems)


def setting_flag(name: str) -> str:
    """How messages call a setting that came as a flag."""
    return _BY_NAME[name].flag


_Source = list[tuple[Setting, str, Any]]


def _from_file(file: Path | None, problems: list[str]) -> _Source:
    if file is None:
        return []
    try:
        with file.open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        problems.append(f"--config: cannot read {file}: {error.strerror}")
        return []
    except ValueError as error:
        problems.append(f"--config: {file} is not TOML: {error}")
        return []
    found: _Source = []
    for name, value in table.items():
        if name in _BY_NAME:
            found.append((_BY_NAME[name], f"{name} in {file}", value))
        else:
            problems.append(f"{file}: {_unknown(name, _BY_NAME)}")
    return found


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> _Source:
    """Only near misses are refused: orchestrators put variables of their own under a service's name."""
    found: _Source = []
    for variable in sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX)):
        if variable in _BY_VARIABLE:
            found.append((_BY_VARIABLE[variable], variable, environment[variable]))
        elif variable not in _VARIABLES_OF_OTHERS and nearest(variable, _BY_VARIABLE):
            problems.append(_unknown(variable, _BY_VARIABLE))
    return found


def _unknown(name: str, known: Mapping[str, Setting]) -> str:
    near = nearest(name, known)
    return f"{name} is not a setting" + (f"; did you mean {near}?" if near else "")


def nearest(name: str, known: Mapping[str, Any]) -> str | None:
    """The known name that a mistyped one was probably meant to be."""
    spelled = name if name in known else name.replace("_", "-") if name.islower() else name
    if spelled in known:
        return spelled
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)), None)


def _compose(values: dict[str, Any], problems: list[str]) -> NodeConfig:
    for setting in SETTINGS:
        if setting.required and setting.name not in values:
            problems.append(f"{setting.flag} is missing (or {setting.variable}, or {setting.name} in the file)")
    rooms = {room: _room(room, values, problems) for room in ROOMS}
    problems += _contradictions(values)
    if problems:
        raise ConfigError(problems)
    own = {setting.field: values[setting.name] for setting in SETTINGS if not setting.room and setting.name in values}
    own.setdefault("listen", url_address(own["url"]))
    return NodeConfig(**own, **rooms)


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
        for problem in error.problems:
            for setting in SETTINGS:
                problem = problem.replace(setting.field, setting.name) if setting.room == room else problem
            problems.append(problem)
        return None


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with settings that are sound one by one."""
    problems = []
    id, members = values.get("id"), values.get("initial-cluster")
    if id and members and id not in dict(members):
        problems.append(f"--initial-cluster does not list this node, {id}: every node gets the whole list")
    listen = values.get("listen") or (values.get("url") and url_address(values["url"]))
    if listen and not values.get("insecure") and not is_loopback(listen.host):
        problems.append(
            f"{listen.host} is not a loopback address, and whoever reaches it can read and write everything: "
            "bind to 127.0.0.1, or say with --insecure that the network is trusted"
        )
    return problems


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host. Names are not looked up: only localhost is known."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def url_address(url: str) -> Address:
    """The host and port of a node's URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None, "parse_url has seen to it"
    assert parts.port is not None, "parse_url has seen to it"
    return Address(parts.hostname, parts.port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
