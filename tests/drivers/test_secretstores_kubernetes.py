"""secretstores.kubernetes on a real API server."""

from __future__ import annotations

import base64
import logging
from functools import partial

import meshnode_secretstores_kubernetes._cluster as cluster
import pytest
import trio
import yaml
from meshnode_secretstores_kubernetes import driver
from support.install_etcd import find_etcd
from support.install_kubernetes import find_kube_apiserver
from support.kubernetes_servers import ADMIN, kubernetes_server
from support.log_records import LogRecords

from meshnode.errors import ComponentError, ComponentUnavailable, InvalidArgument
from meshnode.interfaces import DriverContext, SecretFeature
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import secretstores

pytestmark = [
    pytest.mark.skipif(not (find_kube_apiserver() and find_etcd()), reason="kube-apiserver is not installed"),
    pytest.mark.timeout(240),
]

SECRETS = {
    "db": {"user": "u", "password": "p ä\n"},
    "api.v1-key": {"key": "k", "empty": ""},
    "without": {},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with kubernetes_server(tmp_path_factory.mktemp("kubernetes")) as running:
        for name, values in SECRETS.items():
            running.put_secret("shop", name, values)
        running.put_secret("other", "db", {"user": "another"})
        yield running


def kubeconfig(server, folder, user=None, **more):
    """The file of an administrator, or of whoever `user` says."""
    ca = base64.b64encode(server.authority.certificate.encode()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": server.url, "certificate-authority-data": ca, **more}},
        ],
        "users": [{"name": "u", "user": {"token": ADMIN} if user is None else user}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def opened(path="", env=None, log=None, **metadata):
    fields = {"defaultNamespace": "shop", **({"kubeconfigPath": path} if path else {}), **metadata}
    given = {name: value for name, value in fields.items() if value}
    log = log or logging.getLogger("test")
    return driver.open(
        load_options(driver.metadata, given), DriverContext("kubernetes", "app", log=log, env=env or {})
    )


@pytest.mark.parametrize("check", secretstores.CHECKS, ids=str)
async def test_it_conforms(check, server, tmp_path):
    path = kubeconfig(server, tmp_path)
    assert await check.run(secretstores.Setup(partial(opened, path), SECRETS))


async def test_namespaces(server, tmp_path):
    """The request's, then the variable, then the default: Dapr's order."""
    path = kubeconfig(server, tmp_path)
    async with opened(path) as store:
        assert await store.get("db", {"namespace": "other"}) == {"user": "another"}
        assert await store.bulk_get({"namespace": "other"}) == {"db": {"user": "another"}}
        assert await store.bulk_get({"namespace": "nothing-there"}) == {}
        for name in ("other/db", "shop/db"):
            with pytest.raises(KeyError):
                await store.get(name, {})
        for namespace in ("../shop", "shop/secrets/db", "Shop", "x" * 64, "a?b"):
            with pytest.raises(InvalidArgument, match="is no namespace"):
                await store.get("db", {"namespace": namespace})
    async with opened(path, {"NAMESPACE": "other"}) as store:
        assert await store.get("db", {}) == {"user": "another"}
        assert (await store.get("db", {"namespace": "shop"}))["user"] == "u"
    async with opened(path, defaultNamespace="") as store:
        for call in (partial(store.get, "db"), store.bulk_get):
            with pytest.raises(InvalidArgument, match="namespace is missing on metadata and NAMESPACE"):
                await call({})


async def test_features(server, tmp_path):
    async with opened(kubeconfig(server, tmp_path)) as store:
        assert store.features == {SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET}


async def test_more_secrets_than_a_page_holds(server, tmp_path):
    for number in range(105):
        server.put_secret("many", f"secret-{number}", {"n": str(number)})
    async with opened(kubeconfig(server, tmp_path), defaultNamespace="many") as store:
        found = await store.bulk_get({})
    assert {name: values["n"] for name, values in found.items()} == {
        f"secret-{number}": str(number) for number in range(105)
    }


async def test_values_that_are_no_text(server, tmp_path):
    server.put_secret("binary", "keys", {"text": "t", "der": b"\xff\xfe"})
    records = LogRecords()
    async with opened(kubeconfig(server, tmp_path), log=records.log, defaultNamespace="binary") as store:
        assert await store.get("keys", {}) == {"text": "t"}
        await records.wait_for("the key der of the secret binary/keys is left out")
        assert await store.bulk_get({}) == {"keys": {"text": "t"}}


async def test_a_secret_that_changes_is_read_anew(server, tmp_path):
    server.put_secret("change", "one", {"a": "1"})
    async with opened(kubeconfig(server, tmp_path), defaultNamespace="change") as store:
        assert await store.get("one", {}) == {"a": "1"}
        server.ask("DELETE", "/api/v1/namespaces/change/secrets/one")
        with pytest.raises(KeyError):
            await store.get("one", {})
        server.put_secret("change", "one", {"a": "2"})
        assert await store.get("one", {}) == {"a": "2"}


# ---- who one is ----


async def test_a_client_certificate(server, tmp_path):
    """By data and by paths, which are relative to the file; what it may not read is refused by name."""
    certificate, key = server.authority.issue("reader")
    server.allow("shop", {"kind": "User", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"})
    (tmp_path / "reader.pem").write_text(certificate)
    (tmp_path / "reader-key.pem").write_text(key)
    encoded = {"client-certificate-data": certificate, "client-key-data": key}
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in encoded.items()}
    for user in (encoded, {"client-certificate": "reader.pem", "client-key": "reader-key.pem"}):
        async with opened(kubeconfig(server, tmp_path, user)) as store:
            assert await store.get("db", {}) == SECRETS["db"]
            with pytest.raises(
                ComponentError, match=r'403: secrets "db" is forbidden: User "reader"'
            ) as caught:
                await store.get("db", {"namespace": "other"})
            assert type(caught.value) is ComponentError


async def test_a_service_account(server, tmp_path, monkeypatch):
    """As a pod has it: a token of the API server's own, which is read anew when it has changed."""
    monkeypatch.setattr(cluster, "ACCOUNT", tmp_path)
    host, _, port = server.url.removeprefix("https://").partition(":")
    env = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    (tmp_path / "ca.crt").write_text(server.authority.certificate)
    token = server.account_token("shop", "app")
    server.allow("shop", {"kind": "ServiceAccount", "name": "app", "namespace": "shop"})
    (tmp_path / "token").write_text(f"{token}\n")
    async with opened(env=env) as store:
        assert await store.get("db", {}) == SECRETS["db"]
        (tmp_path / "token").write_text("expired")
        assert await store.get("db", {}) == SECRETS["db"], "for a minute the one that was read is used"
    async with opened(env=env) as store:
        with pytest.raises(ComponentError, match="401: Unauthorized"):
            await store.get("db", {})
        (tmp_path / "token").write_text(token)
        assert await store.get("db", {}) == SECRETS["db"], "one that was refused is read anew"
        (tmp_path / "token").unlink()
        assert await store.get("db", {}) == SECRETS["db"], "it may be in the middle of being replaced"


async def test_a_token_file_of_a_kubeconfig(server, tmp_path):
    (tmp_path / "token").write_text(ADMIN)
    async with opened(kubeconfig(server, tmp_path, {"tokenFile": "token", "token": "wrong"})) as store:
        assert await store.get("db", {}) == SECRETS["db"]


async def test_where_the_kubeconfig_is(server, tmp_path):
    path = kubeconfig(server, tmp_path)
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_bytes((tmp_path / "kubeconfig").read_bytes())
    for env in ({"KUBECONFIG": path}, {"HOME": str(tmp_path)}):
        async with opened(env=env) as store:
            assert await store.get("db", {}) == SECRETS["db"]


async def test_wrong_tokens(server, tmp_path):
    async with opened(kubeconfig(server, tmp_path, {"token": "hush"})) as store:
        for call in (partial(store.get, "db"), store.bulk_get):
            with pytest.raises(ComponentError, match="401: Unauthorized") as caught:
                await call({})
            assert type(caught.value) is ComponentError
            assert "hush" not in str(caught.value)


async def test_whom_one_believes(server, tmp_path, caplog):
    from support.certificates import Authority

    other = base64.b64encode(Authority().certificate.encode()).decode()
    (tmp_path / "ca.pem").write_text(server.authority.certificate)
    trusting = (
        {"tls-server-name": "localhost"},
        {"certificate-authority-data": "", "certificate-authority": "ca.pem"},
        {"certificate-authority-data": other, "insecure-skip-tls-verify": True},
    )
    for more in trusting:
        async with opened(kubeconfig(server, tmp_path, **more)) as store:
            assert await store.get("db", {}) == SECRETS["db"]
    assert "anybody can pose as Kubernetes" in caplog.text
    for more in ({"certificate-authority-data": other}, {"certificate-authority-data": ""},
                 {"tls-server-name": "elsewhere"}):  # fmt: skip
        async with opened(kubeconfig(server, tmp_path, **more)) as store:
            with pytest.raises(ComponentUnavailable, match="certificate"):
                await store.get("db", {})


# ---- when it goes ----


async def test_a_server_that_is_killed_stands_still_and_comes_back(tmp_path):
    with kubernetes_server(tmp_path) as server:
        server.put_secret("shop", "db", SECRETS["db"])
        async with opened(kubeconfig(server, tmp_path)) as store:
            assert await store.get("db", {}) == SECRETS["db"]
            server.stop_still()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.get, "db", {})
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
            server.go_on()
            assert await store.get("db", {}) == SECRETS["db"]
            server.kill()
            for call in (partial(store.get, "db"), store.bulk_get):
                with pytest.raises(ComponentUnavailable, match="cannot be reached"):
                    await call({})
            server.start()
            assert await store.get("db", {}) == SECRETS["db"]


def test_it_is_found_by_its_entry_point():
    assert Registry.discover().driver("secretstores.kubernetes", "v1") is driver
