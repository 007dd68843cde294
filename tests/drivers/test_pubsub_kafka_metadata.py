"""pubsub.kafka's metadata, without a broker: what Dapr's files say, and what is no metadata."""

from __future__ import annotations

import pytest
from meshnode_kafka import Options

from meshnode.errors import ConfigError
from meshnode.registry import load_options

DAPR_S_EXAMPLE = {
    "brokers": "dapr-kafka.myapp.svc.cluster.local:9092, localhost:9093",
    "consumerGroup": "{namespace}",
    "consumerID": "channel1",
    "clientID": "my-dapr-app-id",
    "authType": "password",
    "saslUsername": "adminuser",
    "saslPassword": "KeFg23!",
    "saslMechanism": "SHA-512",
    "maxMessageBytes": "1024",
    "consumeRetryInterval": "200ms",
    "heartbeatInterval": "5s",
    "sessionTimeout": "15s",
    "version": "2.0.0",
    "disableTls": "true",
    "consumerFetchMin": "1",
    "consumerFetchDefault": "2097152",
    "channelBufferSize": "512",
    "consumerGroupRebalanceStrategy": "sticky",
    "schemaCachingEnabled": "true",
    "schemaLatestVersionCacheTTL": "5m",
    "useAvroJson": "true",
    "escapeHeaders": "false",
    "clientConnectionTopicMetadataRefreshInterval": "4m",
    "clientConnectionKeepAliveInterval": "4m",
}


def test_dapr_s_own_example_is_accepted():
    options = load_options(Options, DAPR_S_EXAMPLE)
    assert (options.authentication, options.tls, options.pause(1)) == ("password", False, 0.2)


def test_authentication_and_its_older_form():
    def authentication(**fields):
        return Options(brokers="h:1", **fields).authentication

    pair = {"client_cert": "c", "client_key": "k"}
    assert authentication(auth_required=False) == "none"
    password = {"sasl_username": "u", "sasl_password": "p"}
    assert authentication(auth_required=True, **password) == "password"
    assert authentication(auth_required=True, **pair) == "mtls"
    assert authentication(auth_type="none", auth_required=True) == "none"


def test_pauses():
    def pauses(**fields):
        options = Options(brokers="h:1", auth_type="none", **fields)
        return [round(options.pause(attempt), 3) for attempt in (1, 2, 3, 500)]

    assert pauses() == [0.1] * 4
    assert pauses(consume_retry_interval="250") == [0.25] * 4
    assert pauses(back_off_duration="1m1s") == [61.0] * 4
    assert pauses(consume_retry_interval="0") == [0.01] * 4
    exponential = {"back_off_policy": "exponential", "back_off_initial_interval": "2s"}
    assert pauses(**exponential) == [2.0, 3.0, 4.5, 60.0]


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({}, "authType"),
        ({"authType": "password"}, "saslUsername"),
        ({"authType": "mtls"}, "clientCert"),
        ({"authType": "mtls", "disableTls": "true"}, "disableTls"),
        ({"authType": "certificate"}, "caCert"),
        ({"authType": "oidc"}, "authType"),
        ({"authType": "awsiam", "region": "eu"}, "authType"),
        ({"authType": "magic"}, "authType"),
        ({"authType": "none", "brokers": "a:1,,b"}, "brokers"),
        ({"authType": "none", "initialOffset": "middle"}, "initialOffset"),
        ({"authType": "none", "consumeRetryInterval": "soon"}, "consumeRetryInterval"),
        ({"authType": "none", "heartbeatInterval": "20s"}, "sessionTimeout"),
        ({"authType": "none", "channelBufferSize": "0"}, "channelBufferSize"),
        ({"authType": "none", "compression": "rar"}, "compression"),
        ({"authType": "none", "excludeHeaderMetaRegex": "("}, "excludeHeaderMetaRegex"),
        ({"authType": "none", "schemaRegistryURL": "http://h"}, "schemaRegistryURL"),
        ({"authType": "none", "seekOnStart": "earliest"}, "seekOnStart"),
        ({"authType": "none", "producerTransactionsEnabled": "true"}, "producerTransactionsEnabled"),
        ({"authType": "none", "topics": "a"}, "topics"),
    ],
    ids=str,
)
def test_mistakes_in_the_metadata(metadata, field):
    with pytest.raises(ConfigError) as caught:
        load_options(Options, {"brokers": "localhost:9092", **metadata})
    assert caught.value.problems[0].field.rpartition(".")[2] == field
