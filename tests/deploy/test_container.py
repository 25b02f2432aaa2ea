"""The image's recipe, read by a small parser of its own: no engine is needed to see what would not work."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex

import pytest

from raftkv import __version__
from raftkv.config import SETTINGS
from tests.deploy.files import CLIENT_PORT, DEPLOY, PEER_PORT, ROOT, Instruction, image_environment, instructions

KNOWN = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
RECIPE = (DEPLOY / "Containerfile").read_text()


def complaints(text: str) -> list[str]:
    """What is wrong with a recipe, whatever it is for."""
    found = instructions(text)
    last = found[max(number for number, each in enumerate(found) if each.name == "FROM") :]
    said = [f"{each.name} is no instruction" for each in found if each.name not in KNOWN]
    for each in last:
        if each.name in ("ENTRYPOINT", "CMD") and not _is_exec_form(each.rest):
            said.append(f"{each.name} is not in exec form: a shell would get the signals")
        if each.name == "HEALTHCHECK" and not _is_exec_form(each.rest.partition("CMD ")[2]):
            said.append("HEALTHCHECK is not in exec form")
    users = [each.rest for each in last if each.name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1]):
        said.append("it does not end with a user that is a number and not root's")
    said += [f"{each.name} fetches from elsewhere" for each in found if each.name == "ADD"]
    said += [f"RUN names a host: {each.rest}" for each in found if each.name == "RUN" and "://" in each.rest]
    return said + _unpinned(found)


def _is_exec_form(rest: str) -> bool:
    try:
        words = json.loads(rest)
    except ValueError:
        return False
    return isinstance(words, list) and all(isinstance(word, str) for word in words)


def _unpinned(found: list[Instruction]) -> list[str]:
    installs = [
        step
        for each in found
        if each.name == "RUN"
        for step in each.rest.split("&&")
        if re.search(r"pip install", step)
    ]
    return [
        f"installs what is not pinned by hash: {step.strip()}"
        for step in installs
        if "--require-hashes" not in step and "--no-index" not in step
    ]


def test_the_recipe_is_sound():
    assert complaints(RECIPE) == []


SOUND = 'FROM a\nUSER 7:7\nENTRYPOINT ["x"]\n'
PLANTED = [
    ("FORM a\n" + SOUND, "FORM is no instruction"),
    (SOUND.replace('["x"]', "x"), "exec form"),
    (SOUND + "CMD serve\n", "exec form"),
    (SOUND + "HEALTHCHECK --interval=1s CMD curl x\n", "exec form"),
    (SOUND.replace("USER 7:7\n", ""), "root"),
    (SOUND + "USER root\n", "root"),
    (SOUND + "USER 0\n", "root"),
    (SOUND + "FROM b\n", "root"),
    (SOUND + "RUN pip install x\n", "pinned"),
    (SOUND + "RUN curl \\\n  https://example.org/x | sh\n", "names a host"),
    (SOUND + "ADD https://example.org/x /x\n", "elsewhere"),
]


@pytest.mark.parametrize(("text", "told"), PLANTED, ids=[told for _, told in PLANTED])
def test_each_mistake_is_caught(text, told):
    assert told in " ".join(complaints(text))


def final_stage() -> list[Instruction]:
    found = instructions(RECIPE)
    return found[max(number for number, each in enumerate(found) if each.name == "FROM") :]


def only(name: str) -> str:
    (found,) = [each.rest for each in final_stage() if each.name == name]
    return found


def test_what_is_copied_is_there_and_reaches_the_builder():
    ignored = [
        line for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines() if line and line[0] != "#"
    ]
    assert ignored[0] == "*"
    for each in instructions(RECIPE):
        if each.name != "COPY" or "--from=" in each.rest:
            continue
        *sources, _ = each.rest.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, f"{source} is kept from the builder"


def test_nothing_reaches_the_builder_that_is_not_copied():
    copied = {word for each in instructions(RECIPE) if each.name == "COPY" for word in each.rest.split()}
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert set(allowed) <= copied
    assert not [name for name in allowed if fnmatch.fnmatch(".git", name)]


def test_both_stages_have_the_same_python_since_the_environment_moves_from_one_to_the_other():
    bases = [each.rest.split()[0] for each in instructions(RECIPE) if each.name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    major, minor = bases[0].split(":")[1].split("-")[0].split(".")
    assert (int(major), int(minor)) >= (3, 11)


def test_ports_and_health_check_are_those_of_the_settings():
    assert only("EXPOSE").split() == [str(CLIENT_PORT), str(PEER_PORT)]
    assert image_environment()["RAFTKV_LISTEN"].endswith(f":{CLIENT_PORT}")
    assert f"http://127.0.0.1:{CLIENT_PORT}/healthz" in only("HEALTHCHECK")


def test_every_variable_is_a_setting():
    known = {setting.variable for setting in SETTINGS}
    assert {name for name in image_environment() if name.startswith("RAFTKV_")} <= known


def test_the_data_is_on_the_volume_and_the_volume_is_the_user_s():
    (volume,) = json.loads(only("VOLUME"))
    assert image_environment()["RAFTKV_DATA_DIR"].startswith(volume + "/")
    owner, group = only("USER").split(":")
    made = [shlex.split(each.rest) for each in final_stage() if each.name == "RUN"]
    assert [words for words in made if volume in words and words[words.index("-o") + 1] == owner]
    assert [words for words in made if volume in words and words[words.index("-g") + 1] == group]


def test_the_image_s_name_in_every_file_is_this_version_s():
    named = {
        path.relative_to(ROOT).as_posix(): set(re.findall(r"\braftkv:([\w.]+)", path.read_text()))
        for path in DEPLOY.rglob("*")
        if path.is_file()
    }
    assert {name: tags for name, tags in named.items() if tags - {__version__}} == {}
    assert named["deploy/compose.yaml"] == named["deploy/kubernetes/statefulset.yaml"] == {__version__}
