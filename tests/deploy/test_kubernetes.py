"""The Kubernetes objects fit together, and to the node that they start."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.deploy.files import (
    CLIENT_PORT,
    DEPLOY,
    PEER_PORT,
    by_kind,
    configuration,
    documents,
    longest_stop_s,
    read,
)

FILES = ("services.yaml", "statefulset.yaml", "disruption-budget.yaml", "network-policy.yaml")
VERSIONS = {
    "StatefulSet": "apps/v1",
    "Service": "v1",
    "PodDisruptionBudget": "policy/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}
NAMESPACE = "somewhere"


def objects() -> dict[tuple[str, str], Any]:
    return by_kind(*FILES)


def complaints(found: dict[tuple[str, str], Any]) -> list[str]:
    """What does not fit together."""
    sets = [each for (kind, _), each in found.items() if kind == "StatefulSet"]
    (nodes,) = sets
    spec, pod = nodes["spec"], nodes["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    labels = nodes["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    said = [
        f"{kind} {name} is {each['apiVersion']}"
        for (kind, name), each in found.items()
        if VERSIONS.get(kind) != each["apiVersion"]
    ]
    for (kind, name), each in found.items():
        selector = _selector(kind, each)
        if not selector or not selector.items() <= labels.items():
            said.append(f"{kind} {name} selects {selector}, the pods are {labels}")
    said += _ports(found, ports)
    said += _volumes(spec, pod, container)
    if ("Service", spec["serviceName"]) not in found:
        said.append(f"there is no Service {spec['serviceName']}")
    elif found["Service", spec["serviceName"]]["spec"].get("clusterIP") != "None":
        said.append("the nodes' Service is not headless")
    elif not found["Service", spec["serviceName"]]["spec"].get("publishNotReadyAddresses"):
        said.append("nodes that are not ready do not find each other, and so none becomes ready")
    if spec["podManagementPolicy"] != "Parallel":
        said.append("the second node is never started: the first is not ready without it")
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        asked = container[probe]["httpGet"]
        if asked["path"] != path or ports.get(asked["port"]) != CLIENT_PORT:
            said.append(f"{probe} asks for {asked}")
    return said + _privileges(pod, container)


def _selector(kind: str, each: Any) -> dict[str, str]:
    spec = each["spec"]
    found = {"Service": spec.get("selector"), "NetworkPolicy": (spec.get("podSelector") or {}).get("matchLabels")}
    return found[kind] if kind in found else spec["selector"]["matchLabels"]


def _ports(found: dict[tuple[str, str], Any], ports: dict[str, int]) -> list[str]:
    said = []
    for (kind, name), each in found.items():
        if kind == "Service":
            for port in each["spec"]["ports"]:
                if ports.get(port["targetPort"]) != port["port"]:
                    said.append(f"Service {name} sends {port['port']} to {port['targetPort']}")
        if kind == "NetworkPolicy":
            named = [port["port"] for rule in each["spec"]["ingress"] for port in rule["ports"]]
            said += [f"NetworkPolicy {name} names the port {port}" for port in named if port not in ports]
    return said


def _volumes(spec: Any, pod: Any, container: Any) -> list[str]:
    volumes = {volume["name"] for volume in pod["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    return [f"there is no volume {each['name']}" for each in container["volumeMounts"] if each["name"] not in volumes]


def _privileges(pod: Any, container: Any) -> list[str]:
    said = []
    identity, mine = pod["securityContext"], container["securityContext"]
    if not identity["runAsNonRoot"] or identity["runAsUser"] == 0:
        said.append("it may run as root")
    if (
        mine["allowPrivilegeEscalation"]
        or not mine["readOnlyRootFilesystem"]
        or mine["capabilities"] != {"drop": ["ALL"]}
    ):
        said.append("it may do more than it needs to")
    return said


def nodes_spec() -> Any:
    return objects()["StatefulSet", "raftkv"]["spec"]


def container() -> Any:
    (found,) = nodes_spec()["template"]["spec"]["containers"]
    return found


def words(number: int) -> list[str]:
    """The arguments of one pod's container, with its variables put in."""
    variables = {"POD_NAME": f"raftkv-{number}", "POD_NAMESPACE": NAMESPACE}
    assert {each["name"] for each in container()["env"]} == set(variables)
    return [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], word) for word in container()["args"]]


def test_everything_fits_together():
    assert complaints(objects()) == []


def change(path: str, value: Any):
    def apply(found: dict[tuple[str, str], Any]) -> None:
        kind, name, *steps = path.split("/")
        place = found[kind, name]
        for step in steps[:-1]:
            place = place[int(step) if step.isdigit() else step]
        place[steps[-1]] = value

    return apply


POD = "StatefulSet/raftkv/spec/template/spec"
PLANTED = [
    (change("Service/raftkv/spec/selector", {"app": "raft"}), "selects"),
    (change("PodDisruptionBudget/raftkv/spec/selector", {"matchLabels": {"app": "x"}}), "selects"),
    (change("PodDisruptionBudget/raftkv/apiVersion", "policy/v1beta1"), "is policy/v1beta1"),
    (change("Service/raftkv/spec/ports/0/targetPort", "peers"), "sends 7401 to peers"),
    (change("NetworkPolicy/raftkv/spec/ingress/0/ports", [{"port": "peer"}]), "names the port peer"),
    (change("StatefulSet/raftkv/spec/serviceName", "raftkv-node"), "there is no Service raftkv-node"),
    (change("StatefulSet/raftkv/spec/serviceName", "raftkv"), "not headless"),
    (change("Service/raftkv-nodes/spec/publishNotReadyAddresses", False), "do not find each other"),
    (change("StatefulSet/raftkv/spec/podManagementPolicy", "OrderedReady"), "never started"),
    (change(f"{POD}/containers/0/livenessProbe/httpGet/path", "/readyz"), "livenessProbe"),
    (change(f"{POD}/containers/0/volumeMounts/0/name", "disk"), "no volume disk"),
    (change(f"{POD}/securityContext/runAsNonRoot", False), "root"),
    (change(f"{POD}/containers/0/securityContext/readOnlyRootFilesystem", False), "more than it needs"),
]


@pytest.mark.parametrize(("plant", "told"), PLANTED, ids=[told for _, told in PLANTED])
def test_each_mistake_is_caught(plant, told):
    found = copy.deepcopy(objects())
    plant(found)
    assert told in " ".join(complaints(found))


def test_the_arguments_are_a_sound_configuration_of_every_pod(peer_secret):
    for number in range(nodes_spec()["replicas"]):
        given = [word.replace("/secret/peer-secret", str(peer_secret)) for word in words(number)]
        config = configuration(given, {})
        name = f"raftkv-{number}.{nodes_spec()['serviceName']}.{NAMESPACE}.svc"
        assert config.id == f"raftkv-{number}"
        assert (config.url, config.peer_url) == (f"http://{name}:{CLIENT_PORT}", f"http://{name}:{PEER_PORT}")
        assert (config.listen, config.peer_listen) == (("0.0.0.0", CLIENT_PORT), ("0.0.0.0", PEER_PORT))
        assert dict(config.initial_cluster)[config.id] == config.peer_url
        assert {str(id) for id, _ in config.initial_cluster} == {f"raftkv-{n}" for n in range(nodes_spec()["replicas"])}


def test_a_pod_has_longer_to_stop_than_its_node_may_take(peer_secret):
    given = [word.replace("/secret/peer-secret", str(peer_secret)) for word in words(0)]
    grace_s = nodes_spec()["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= 2 * longest_stop_s(configuration(given, {}))


def test_data_and_secret_are_where_they_are_mounted():
    mounts = {each["name"]: each["mountPath"] for each in container()["volumeMounts"]}
    flags = dict(word.removeprefix("--").split("=", 1) for word in words(0)[1:])
    assert flags["data-dir"].startswith(mounts["data"] + "/")
    (volume,) = nodes_spec()["template"]["spec"]["volumes"]
    assert flags["peer-secret-file"].startswith(mounts["secret"] + "/")
    assert volume["secret"]["defaultMode"] == 0o440


def test_the_secret_is_not_in_the_files_and_a_command_makes_it():
    assert not [kind for kind, _ in objects() if kind == "Secret"]
    readme = (DEPLOY / "README.md").read_text()
    (volume,) = nodes_spec()["template"]["spec"]["volumes"]
    assert f"kubectl create secret generic {volume['secret']['secretName']} " in readme
    assert "--from-file=peer-secret=/dev/stdin" in readme


def test_the_budget_lets_one_node_go():
    assert objects()["PodDisruptionBudget", "raftkv"]["spec"]["maxUnavailable"] == 1


def test_kustomize_names_every_file():
    (kustomization,) = read("kubernetes/kustomization.yaml")
    assert sorted(kustomization["resources"]) == sorted(FILES)
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    assert there == {*FILES, "kustomization.yaml"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_builds_the_same_objects():
    built = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True, check=True
    )
    assert {(each["kind"], each["metadata"]["name"]) for each in documents(built.stdout)} == set(objects())


def test_a_key_that_stands_twice_is_caught():
    with pytest.raises(Exception, match="twice"):
        documents("a: 1\nb: {c: 1, c: 2}\n")
