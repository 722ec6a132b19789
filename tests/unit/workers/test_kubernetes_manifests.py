"""The manifests of workers/kubernetes: Kubernetes' own schemas accept them, and they fit each other and doteval."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from doteval.cli.application import application
from doteval.settings import Settings

ROOT = Path(__file__).parents[3]
MANIFESTS = ROOT / "workers" / "kubernetes"
# The oldest and the newest version that the manifests are for.
VERSIONS = ("1.31", "1.34")
# Kinds that are not Kubernetes' own.
OTHERS = ("Kustomization", "ScaledObject")


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that occurs twice in a mapping, of which YAML's own loader keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key occurs twice in {keys}"
        return super().construct_mapping(node, deep=deep)


def documents() -> list[tuple[str, dict[str, Any]]]:
    return [
        (path.name, document)
        for path in sorted(MANIFESTS.glob("*.yaml"))
        for document in yaml.load_all(path.read_text(), Loader=_StrictLoader)
    ]


OBJECTS = {(document["kind"], document.get("metadata", {}).get("name")): document for _, document in documents()}
WORKER = OBJECTS["Deployment", "doteval-worker"]
SCALED = OBJECTS["ScaledObject", "doteval-worker"]
PODS = {
    name: document["spec"]["template"]["spec"]
    for (kind, name), document in OBJECTS.items()
    if kind in ("Deployment", "Job")
}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_them(version: str) -> None:
    checked = [
        kubernetes_validate.validate(document, version, strict=True)
        for _, document in documents()
        if document["kind"] not in OTHERS
    ]
    assert checked == [version] * 6


def test_the_autoscaler_that_keda_makes_is_valid() -> None:
    spec = SCALED["spec"]
    (trigger,) = spec["triggers"]
    kubernetes_validate.validate(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": SCALED["metadata"],
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", **spec["scaleTargetRef"]},
                "minReplicas": spec["minReplicaCount"],
                "maxReplicas": spec["maxReplicaCount"],
                "metrics": [
                    {
                        "type": "External",
                        "external": {
                            "metric": {"name": "s0-prometheus"},
                            "target": {"type": "AverageValue", "averageValue": trigger["metadata"]["threshold"]},
                        },
                    }
                ],
                **spec["advanced"]["horizontalPodAutoscalerConfig"],
            },
        },
        VERSIONS[-1],
        strict=True,
    )
    # What KEDA knows besides.
    known = {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod", "fallback"}
    assert set(spec) == known | {"triggers", "advanced"}
    assert trigger["type"] == "prometheus"
    assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold", "ignoreNullValues"}
    # KEDA takes texts only.
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert set(spec["fallback"]) == {"failureThreshold", "replicas", "behavior"}


def test_it_scales_by_metrics_that_doteval_has() -> None:
    source = "".join(path.read_text() for path in (ROOT / "doteval" / "monitoring").glob("*.py"))
    query = SCALED["spec"]["triggers"][0]["metadata"]["query"]
    asked = set(re.findall(r"doteval_\w+", query))
    assert "doteval_queued_row_tasks" in asked
    for name in asked:
        assert f'"{name}"' in source, name


def test_they_name_each_other() -> None:
    assert SCALED["spec"]["scaleTargetRef"]["name"] == WORKER["metadata"]["name"]
    labels = WORKER["spec"]["template"]["metadata"]["labels"]
    budget = OBJECTS["PodDisruptionBudget", "doteval-worker"]
    for selector in (WORKER["spec"]["selector"], budget["spec"]["selector"]):
        assert selector["matchLabels"].items() <= labels.items()
    (kustomization,) = (document for (kind, _), document in OBJECTS.items() if kind == "Kustomization")
    assert set(kustomization["resources"]) == {path.name for path in MANIFESTS.glob("*.yaml")} - {"kustomization.yaml"}
    (image,) = kustomization["images"]
    assert {container["image"] for pod in PODS.values() for container in pod["containers"]} == {image["name"]}
    # The ScaledObject sets the number; one of the Deployment's own would be set again with every apply.
    assert "replicas" not in WORKER["spec"]


def test_a_worker_has_time_to_finish_and_is_asked_for_its_health() -> None:
    pod = PODS["doteval-worker"]
    assert pod["terminationGracePeriodSeconds"] >= 600
    (container,) = pod["containers"]
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    asked = {probe: container[probe]["httpGet"]["path"] for probe in probes}
    # A store that is away makes a worker unready, and must not end it.
    assert asked == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    (port,) = container["ports"]
    assert f"--health-port={port['containerPort']}" in container["args"]
    assert f"--metrics-port={port['containerPort']}" in container["args"]


@pytest.mark.parametrize("name", PODS)
def test_commands_and_settings_exist(name: str) -> None:
    (container,) = PODS[name]["containers"]
    command: click.Command = application
    for word in container["args"]:
        if isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            assert found is not None, word
            command = found
        elif word.startswith("--"):
            assert word.partition("=")[0] in {text for param in command.params for text in param.opts}
    variables = {each["name"].removeprefix("DOTEVAL_").lower() for each in container.get("env", [])}
    assert variables <= set(Settings.model_fields)


@pytest.mark.parametrize("name", PODS)
def test_pods_have_no_privileges(name: str) -> None:
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    user = re.search(r"^USER (\d+)$", (ROOT / "workers" / "Dockerfile").read_text(), re.MULTILINE)
    assert user
    assert security["runAsUser"] == int(user[1])
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
