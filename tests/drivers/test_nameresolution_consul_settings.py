"""nameresolution.consul: what its settings mean, without an agent; TLS and sockets against a small server."""

from __future__ import annotations

import ssl
from functools import partial

import pytest
import trio
from meshnode_nameresolution_consul import driver
from support.certificates import Authority

from meshnode.errors import ComponentError, ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, Instance
from meshnode.registry import Registry, driver_schema, load_options


def opened(env=None, **settings):
    context = DriverContext("consul", "checkout", env=env or {})
    return driver.open(load_options(driver.metadata, {"selfRegister": True, **settings}), context)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"client": {"adress": "x"}}, r"client.adress: unknown field \(there are Address"),
        ({"client": {"tlsConfig": {"insecureSkipVerify": "perhaps"}}}, "insecureSkipVerify: must be true or"),
        ({"client": {"httpAuth": "x"}}, "client.httpAuth: must be a mapping"),
        ({"client": "127.0.0.1:8500"}, "expected a mapping"),
        ({"queryOptions": {"maxAge": "soon"}}, "queryOptions.maxAge: must be a duration such as 5s"),
        ({"queryOptions": {"relayFactor": "x"}}, "relayFactor: must be a whole number"),
        ({"queryOptions": {"nodeMeta": ["x"]}}, "nodeMeta: must be a mapping"),
        ({"queryOptions": {"filter": {}}}, "filter: must be text"),
        ({"checks": [{"intervall": "5s"}]}, r"checks\[0\].intervall: unknown field"),
        ({"checks": [{"args": "x"}]}, r"checks\[0\].args: must be a list"),
        ({"checks": [{"header": {"a": "b"}}]}, r"checks\[0\].header: must be a list"),
        ({"checks": [{"header": "b"}]}, r"checks\[0\].header: must be a mapping of lists"),
        ({"checks": {"http": "x"}}, "expected a list of mappings"),
        ({"advancedRegistration": {"id": "x"}}, "advancedRegistration.name: is missing"),
        ({"advancedRegistration": {"name": "x", "checks": "y"}}, "Registration.checks: must be a list"),
        ({"advancedRegistration": {"name": "x", "proxy": {"upstreams": [{"x": 1}]}}},
         r"proxy.upstreams\[0\].x: unknown"),
        ({"daprPortMetaKey": ""}, "daprPortMetaKey: is empty"),
        ({"selfregistered": "true"}, "selfregistered"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used(settings, said):
    with pytest.raises(ConfigError, match=said):
        opened(**settings)


@pytest.mark.parametrize(
    ("client", "env", "kind", "said"),
    [
        ({"address": "ftp://consul:1"}, {}, ConfigError, "is no agent's address"),
        ({"scheme": "grpc"}, {}, ConfigError, "is no agent's address"),
        ({"address": "http://"}, {}, ConfigError, "is no agent's address"),
        (
            {"tokenFile": "/no/such/file"},
            {},
            ComponentError,
            "token file /no/such/file cannot be read: No such",
        ),
        ({}, {"CONSUL_HTTP_TOKEN_FILE": "/no/such/file"}, ComponentError, "cannot be read"),
        ({"token": "hush\nx: y"}, {}, ComponentError, "characters that no token has"),
        ({"scheme": "https", "tlsConfig": {"caFile": "/no/such/file"}}, {}, ComponentError, "certificates"),
        ({"address": "https://consul:1"}, {"CONSUL_CACERT": "/no/such/file"}, ComponentError, "certificates"),
    ],
)
async def test_what_only_shows_when_it_is_opened(client, env, kind, said):
    with pytest.raises(kind, match=said) as caught:
        async with opened(env, client=client):
            pass
    assert "hush" not in str(caught.value)


async def test_an_address_that_consul_cannot_hold():
    async with opened() as resolver:
        with pytest.raises(ComponentError, match="unix:/run/x is not"):
            async with resolver.announce(Instance("checkout", "unix:/run/x")):
                pass


def test_secrets_are_not_shown():
    options = load_options(driver.metadata, {"client": {"token": "hush"}, "queryOptions": {"token": "hush"}})
    assert "hush" not in repr(options)


def test_it_is_found_by_its_entry_point():
    assert Registry.discover().driver("nameresolution.consul") is driver


def test_its_schema_takes_what_yaml_has():
    from jsonschema import Draft7Validator

    settings = {"client": {"address": "x"}, "checks": [{"name": "x"}], "tags": ["a"], "selfRegister": True}
    chosen = {"nameResolution": {"component": "consul", "configuration": settings}}
    resource = {"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "c"}}
    validator = Draft7Validator(driver_schema(driver))
    validator.validate({**resource, "spec": chosen})
    settings["tags"] = {"a": "b"}
    assert not validator.is_valid({**resource, "spec": chosen})


async def answering(seen, stream):
    """An agent of a few words: every answer is an empty list."""
    request = b""
    try:
        async with stream:
            async for chunk in stream:
                request += chunk
                if b"\r\n\r\n" in request:
                    seen.append(request.decode())
                    request = b""
                    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
    except trio.BrokenResourceError:
        pass  # the client did not like the certificate


async def test_a_unix_socket(tmp_path):
    path = tmp_path / "consul.sock"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen(1)
    seen = []
    client = {"address": f"unix://{path}", "httpAuth": {"username": "u", "password": "p"}}
    async with trio.open_nursery() as nursery:
        listener = trio.SocketListener(sock)
        nursery.start_soon(trio.serve_listeners, partial(answering, seen), [listener])
        async with opened(client=client) as resolver:
            assert await resolver.resolve("a/b", "default") == ()
        nursery.cancel_scope.cancel()
    (request,) = seen
    assert request.startswith("GET /v1/health/service/a%2Fb?cached=&passing=1 HTTP/1.1\r\n")
    assert "authorization: basic dtpw" in request.lower()


async def test_tls(tmp_path):
    ca, certificate, key = Authority().write(tmp_path, "consul")
    other, _, _ = Authority().write(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
    (tcp,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{tcp.socket.getsockname()[1]}"
    own = {"certFile": str(certificate), "keyFile": str(key)}
    folder = tmp_path / "authorities"
    folder.mkdir()
    (folder / "ca.pem").write_text(ca.read_text())
    seen = []
    async with trio.open_nursery() as nursery:
        listener = trio.SSLListener(tcp, context)
        nursery.start_soon(trio.serve_listeners, partial(answering, seen), [listener])
        for tls, env in (
            ({"caFile": str(ca), **own}, {}),
            ({"caPath": str(folder), **own}, {}),
            ({"insecureSkipVerify": True, **own}, {}),
            ({"caFile": str(ca), "address": "localhost", **own}, {}),
            (own, {"CONSUL_CACERT": str(ca)}),
            (own, {"CONSUL_HTTP_SSL_VERIFY": "false"}),
            ({}, {"CONSUL_CACERT": str(ca), "CONSUL_CLIENT_CERT": str(certificate),
                  "CONSUL_CLIENT_KEY": str(key), "CONSUL_HTTP_SSL": "true"}),
        ):  # fmt: skip
            client = {"address": address, "tlsConfig": tls}
            if "CONSUL_HTTP_SSL" not in env:
                client["scheme"] = "https"
            async with opened(env, client=client) as resolver:
                assert await resolver.resolve("a", "default") == ()
        for tls in ({"caFile": str(other), **own}, {"caFile": str(ca), "address": "wrong", **own}):
            async with opened(client={"address": f"https://{address}", "tlsConfig": tls}) as resolver:
                with pytest.raises(ComponentUnavailable, match="certificate"):
                    await resolver.resolve("a", "default")
        nursery.cancel_scope.cancel()
    assert len(seen) == 7
