"""The Configuration's `spec.nameResolution` chooses the resolver, and what stands there reaches it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from attrs import evolve

from meshnode.config import load_resources
from meshnode.config.nodeoptions import NodeOptions
from meshnode.defaults import Naming, name_resolution, own_variables
from meshnode.errors import ConfigError
from meshnode.registry import Registry

CONFIGURATION = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{name: mesh}}
spec:
  nameResolution:
    component: {component}
    configuration:
{settings}
"""
OPTIONS = NodeOptions("checkout", app_port=8080, host_ip="10.0.0.9", grpc_port=50001, env={"REGION": "eu"})


def chosen(component: str, settings: str, folder: Path) -> Naming:
    file = folder / "config.yaml"
    indented = "\n".join(f"      {line}" for line in settings.splitlines())
    file.write_text(CONFIGURATION.format(component=component, settings=indented))
    env = {**OPTIONS.env, **own_variables(OPTIONS)}
    options = evolve(OPTIONS, state_dir=folder)
    return name_resolution(load_resources([], [file], env=env), options, Registry.discover())


@pytest.mark.parametrize(
    ("component", "settings", "attribute", "value"),
    [
        ("sqlite", "updateInterval: 9s", "connection_string", None),
        ("mdns", "interfaces: 127.0.0.1", "interfaces", ("127.0.0.1",)),
        ("hosts", "hosts: {a: 'b:1'}", "hosts", {"a": "b:1"}),
        ("redis", "redisHost: localhost:6379\nttl: 20s", "ttl", "20s"),
        ("consul", "client: {address: '127.0.0.1:8500'}", "client", {"address": "127.0.0.1:8500"}),
        ("consul", "checks: [{name: '${APP_ID}', tcp: '${HOST_ADDRESS}:${APP_PORT}'}]", "checks",
         ({"name": "checkout", "tcp": "10.0.0.9:8080"},)),
        ("consul", "tags:\n  - dapr\n  - ${REGION}", "tags", ("dapr", "eu")),
        ("kubernetes", "clusterDomain: mesh.internal", "cluster_domain", "mesh.internal"),
        ("kubernetes", 'template: "{{.ID}}.internal:{{.Port}}"', "template", "{{.ID}}.internal:{{.Port}}"),
    ],
)  # fmt: skip
def test_each_by_its_name(
    component: str, settings: str, attribute: str, value: object, tmp_path: Path
) -> None:
    naming = chosen(component, settings, tmp_path)
    assert naming.driver.type == f"nameresolution.{component}"
    assert value is None or getattr(naming.options, attribute) == value


def test_one_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r'config.yaml:7: spec.nameResolution.component: unknown .*resolution.consul"'
    ):
        chosen("consull", "client: {}", tmp_path)


def test_what_is_wrong_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"config.yaml:.*nameResolution.configuration.client.adress: unknown"
    ):
        chosen("consul", "client: {adress: x}", tmp_path)


def test_what_a_resolver_is_told(tmp_path: Path) -> None:
    naming = chosen("consul", "selfRegister: true", tmp_path)
    context = naming.context(lambda: 0.0, random.Random(0))
    assert (context.app_id, context.namespace) == ("checkout", "default")
    assert dict(context.env) == {
        "REGION": "eu",
        "APP_ID": "checkout",
        "APP_PORT": "8080",
        "HOST_ADDRESS": "10.0.0.9",
        "DAPR_GRPC_PORT": "50001",
    }
    assert naming.announced("0.0.0.0:50002") == "10.0.0.9:50002"
