"""pubsub.kafka over TLS and with passwords: who is let in, and who is not."""

from __future__ import annotations

from functools import partial

import pytest
from meshnode_kafka import Options, pubsub
from support.certificates import Authority
from support.kafka_servers import kafka_broker, missing_kafka, subscribed

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, PublishRequest, SubscribeRequest

CONTEXT = DriverContext("pubsub", "app")


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A broker with TLS, client certificates that are checked where given, and two kinds of passwords."""
    if reason := missing_kafka():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("secure")
    authority = Authority()
    certificate, key = authority.issue("broker")
    (folder / "broker.pem").write_text(key + certificate)
    (folder / "ca.pem").write_text(authority.certificate)
    stores = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": folder / "broker.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": folder / "ca.pem",
        "listener.name.mtls.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,SCRAM-SHA-256",
    }
    for name in ("password", "clear"):
        stores[f"listener.name.{name}.plain.sasl.jaas.config"] = (
            'org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="s3cret";'
        )
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            stores[f"listener.name.{name}.{mechanism}.sasl.jaas.config"] = (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            )
    listeners = {"TLS": "SSL", "MTLS": "SSL", "PASSWORD": "SASL_SSL", "CLEAR": "SASL_PLAINTEXT"}
    users = ["SCRAM-SHA-512=[name=bob,password=s3cret]", "SCRAM-SHA-256=[name=eve,password=s3cret]"]
    with kafka_broker(folder, stores, listeners=listeners, scram=users) as running:
        yield running, authority


def secured(secure, listener):
    _, authority = secure
    certificate, key = authority.issue("client")
    ca = {"ca_cert": authority.certificate}
    ann = {"auth_type": "password", "sasl_username": "ann", "sasl_password": "s3cret"}
    return {
        "TLS": {"auth_type": "certificate", **ca},
        "TLS unchecked": {"auth_type": "certificate", "ca_cert": other_authority(), "skip_verify": True},
        "MTLS": {"auth_type": "mtls", "client_cert": certificate, "client_key": key, **ca},
        "PASSWORD": {**ann, **ca},
        "PASSWORD SHA-512": {**ann, **ca, "sasl_username": "bob", "sasl_mechanism": "SHA-512"},
        "PASSWORD SHA-256": {**ann, **ca, "sasl_username": "eve", "sasl_mechanism": "sha-256"},
        "CLEAR": {**ann, "disable_tls": True},
    }[listener]


def other_authority():
    return Authority().certificate


@pytest.mark.parametrize(
    "listener",
    ["TLS", "TLS unchecked", "MTLS", "PASSWORD", "PASSWORD SHA-512", "PASSWORD SHA-256", "CLEAR"],
)
async def test_secured_connections(secure, listener):
    address = secure[0].address_of(listener.split()[0])
    topic = listener.replace(" ", "-")
    options = Options(brokers=address, **secured(secure, listener))
    async with (
        asyncio_loop(True),
        pubsub.open(options, CONTEXT) as component,
        subscribed(partial(component.subscribe, SubscribeRequest(topic))) as application,
    ):
        await component.publish(PublishRequest(topic, b"x"))
        await application.has_finished(1)


@pytest.mark.parametrize(
    ("listener", "change"),
    [
        ("TLS", {"ca_cert": None}),
        ("MTLS", {"auth_type": "certificate"}),
        ("PASSWORD", {"sasl_password": "wrong"}),
    ],
    ids=["unknown authority", "no client certificate", "wrong password"],
)
async def test_who_is_not_let_in(secure, listener, change):
    change = {name: other_authority() if value is None else value for name, value in change.items()}
    fields = {**secured(secure, listener), **change}
    address = secure[0].address_of(listener)
    async with asyncio_loop(True):
        with pytest.raises(ComponentUnavailable, match=address):
            async with pubsub.open(Options(brokers=address, **fields), CONTEXT):
                pass


async def test_a_certificate_that_is_none():
    for fields in (
        {"auth_type": "certificate"},
        {"auth_type": "mtls", "client_cert": "x", "client_key": "x"},
    ):
        options = Options(brokers="localhost:9092", **{"ca_cert": "nonsense", **fields})
        async with asyncio_loop(True):
            with pytest.raises(ConfigError, match="cannot be used"):
                async with pubsub.open(options, CONTEXT):
                    pass
