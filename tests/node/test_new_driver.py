"""The drivers that `meshnode new driver` writes, as their users get them: installed, tested, checked, run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import frozen
from support.processes import node
from support.venvs import make_venv

from meshnode.cli._skeletons import driver_kinds

KINDS = driver_kinds()
COMPONENT = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec:
  type: state.some-vendor.system
  version: v1
  metadata: [{name: address, value: "localhost:7000"}]
"""


@frozen
class Shop:
    """A folder with a driver of each kind, all of them installed."""

    folder: Path
    env: Mapping[str, str]

    def run(self, *command: str, cwd: str = ".") -> str:
        ran = subprocess.run(
            command, cwd=self.folder / cwd, env=self.env, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("drivers")
    made = Shop(folder, make_venv(folder / "venv"))
    for kind in KINDS:
        made.run("meshnode", "new", "driver", f"{kind}.some-vendor.system", kind)
    made.run("pip", "install", *(word for kind in KINDS for word in ("-e", f"./{kind}[dev]")))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_its_own_tests(shop: Shop, kind: str) -> None:
    shown = shop.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=kind)
    assert " passed" in shown
    # The state suite has checks of queries, which the skeleton does not offer.
    assert (" skipped" in shown) is (kind == "state")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_as_clean_as_its_own_rules_ask(shop: Shop, kind: str) -> None:
    shop.run("ruff", "check", "--no-cache", ".", cwd=kind)
    shop.run("ruff", "format", "--no-cache", "--check", ".", cwd=kind)
    assert "no issues found" in shop.run("mypy", "--cache-dir", str(shop.folder / "mypy"), cwd=kind)


def test_they_are_listed_and_described(shop: Shop) -> None:
    rows = json.loads(shop.run("meshnode", "components", "types", "-o", "json"))
    listed = {(row["type"], row["distribution"]) for row in rows}
    for kind in KINDS:
        assert (f"{kind}.some-vendor.system", f"meshnode-driver-{kind}-some-vendor-system") in listed
        shown = shop.run("meshnode", "components", "describe", f"{kind}.some-vendor.system", "-o", "json")
        assert {"address"} <= {row["name"] for row in json.loads(shown)["metadata"]}


def test_a_node_uses_one(shop: Shop, tmp_path: Path) -> None:
    path = f"{shop.folder / 'state'}"
    installed = next(shop.folder.glob("venv/lib/python*/site-packages"))
    env = {"PYTHONPATH": f"{path}:{installed}"}
    with node("app", tmp_path, resources=COMPONENT, env=env) as running:
        running.process.wait_for("Component loaded: store (state.some-vendor.system/v1)")
        address = ("--address", running.address)
        shop.run("meshnode", "state", "save", *address, "--store", "store", "key", "value")
        assert shop.run("meshnode", "state", "get", *address, "--store", "store", "key") == "value\n"
