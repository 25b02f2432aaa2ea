"""The deploy files, read as those read them that use them; and the command lines in them, read by raftkv."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from raftkv.cli.failures import CommandFailed
from raftkv.config import NodeConfig, load
from raftkv.node.running import STOP_GRACE_S
from tests.cli.commandlines import understood

ROOT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = ROOT / "deploy"
CLIENT_PORT: Final = 7401
PEER_PORT: Final = 7402


class Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.value != "<<"]
        doubled = {key for key in keys if keys.count(key) > 1}
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {doubled}", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def documents(text: str) -> list[Any]:
    """Every document of a YAML file."""
    return list(yaml.load_all(text, Loader))


def read(name: str) -> list[Any]:
    """The documents of one deploy file."""
    return documents((DEPLOY / name).read_text())


def by_kind(*names: str) -> dict[tuple[str, str], Any]:
    """Kubernetes objects by kind and name."""
    objects = [each for name in names for each in read(f"kubernetes/{name}")]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def configuration(words: list[str], environment: dict[str, str]) -> NodeConfig:
    """What a node that is started like this goes by; raises what it would refuse to start with."""
    name, *flags = words
    if name != "serve":
        raise CommandFailed(f"starts {name}, which is no node")
    given = understood([name, *flags])
    given.pop("config_file")
    return load(flags={field.replace("_", "-"): value for field, value in given.items()}, environment=environment)


def longest_stop_s(config: NodeConfig) -> float:
    """How long a node may take from SIGTERM to its end, if its disk answers."""
    hand_over_s = 4 * config.raft.election_timeout_ms / 1000
    finish_s = config.replica.request_timeout_ms / 1000 + 1
    return hand_over_s + finish_s + 2 * STOP_GRACE_S


def seconds(text: Any) -> float:
    """A time span of Compose or systemd."""
    found = re.fullmatch(r"(\d+)(s|m|min)?", str(text))
    assert found is not None, text
    return int(found[1]) * (1 if found[2] in (None, "s") else 60)


class Instruction(NamedTuple):
    """One instruction of a Containerfile."""

    name: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """Comments and continued lines taken care of."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [Instruction(*re.split(r"\s+", " ".join(line.split()), maxsplit=1)) for line in joined]


def image_environment() -> dict[str, str]:
    """The variables that the image sets."""
    found: dict[str, str] = {}
    for each in instructions((DEPLOY / "Containerfile").read_text()):
        if each.name == "ENV":
            found |= dict(pair.split("=", 1) for pair in each.rest.split())
    return found
