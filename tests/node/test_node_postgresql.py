"""A real node whose components are all on one PostgreSQL, used by Dapr's Python SDK."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from typing import Any

import pytest
from support.postgres_servers import PostgresServer, find_postgres, postgres_server
from support.processes import Node, healthz, node

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: statestore}}
spec:
  type: state.postgresql
  version: v1
  metadata:
    - {{name: connectionString, value: "{url}"}}
    - {{name: outboxPublishPubsub, value: pubsub}}
    - {{name: outboxPublishTopic, value: orders}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: binarystore}}
spec:
  type: state.postgres
  version: v2
  metadata: [{{name: connectionString, value: "{url}"}}, {{name: tablePrefix, value: binary_}}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: lockstore}}
spec:
  type: lock.postgresql
  version: v1
  metadata: [{{name: connectionString, value: "{url}"}}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: settings}}
spec:
  type: configuration.postgresql
  version: v1
  metadata: [{{name: connectionString, value: "{url}"}}, {{name: table, value: settings}}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: pubsub}}
spec:
  type: pubsub.sqlite
  version: v1
  metadata: [{{name: connectionString, value: "{file}"}}]
"""
SETTINGS = """
CREATE TABLE settings (key VARCHAR NOT NULL, value VARCHAR NOT NULL, version VARCHAR NOT NULL, metadata JSON);
CREATE FUNCTION told() RETURNS TRIGGER AS $$ BEGIN
    PERFORM pg_notify('settings', json_build_object('action', TG_OP, 'data', row_to_json(NEW))::text);
    RETURN NULL;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER told AFTER INSERT OR UPDATE ON settings FOR EACH ROW EXECUTE FUNCTION told();
"""
WARNINGS = (
    "ignore:.* deprecated. :DeprecationWarning",
    "ignore:The .* API:UserWarning",
)
pytestmark = [pytest.mark.filterwarnings(one) for one in WARNINGS]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    if find_postgres() is None:
        pytest.skip("postgres is not installed")
    with postgres_server() as running:
        running.rows(SETTINGS)
        yield running


@pytest.fixture
def client(
    server: PostgresServer, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    from dapr.clients import DaprClient
    from dapr.conf import settings

    folder = tmp_path_factory.mktemp("node")
    resources = RESOURCES.format(url=server.url, file=folder / "broker.db")
    running: Node
    with node("app", folder, resources=resources) as running, healthz() as port:
        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", port)
        with DaprClient(address=running.address) as opened:
            yield opened


def test_state(client: Any, server: PostgresServer) -> None:
    """Keys have the application's prefix, as a daprd's have."""
    for store in ("statestore", "binarystore"):
        client.save_state(store, "k", b"\x00\xff")
        found = client.get_state(store, "k")
        client.save_state(store, "k", "two", etag=found.etag)
        assert client.get_state(store, "k").data == b"two"
    assert server.rows("SELECT key FROM state WHERE isbinary") == [("app||k",)]
    assert server.rows("SELECT key, value FROM binary_state") == [("app||k", b"two")]
    client.save_state("statestore", "p", '{"n": 1}', state_metadata={"contentType": "application/json"})
    answer = client.query_state("statestore", '{"filter": {"EQ": {"n": 1}}}')
    assert [(one.key, json.loads(one.value)) for one in answer.results] == [("p", {"n": 1})]


def test_outbox(client: Any) -> None:
    from dapr.clients.grpc._request import TransactionalStateOperation

    subscription = client.subscribe("pubsub", "orders")
    client.execute_state_transaction("statestore", [TransactionalStateOperation(key="order", data="shipped")])
    message = next(iter(subscription))
    assert "shipped" in str(message.data())
    subscription.respond_success(message)
    subscription.close()
    assert client.get_state("statestore", "order").data == b"shipped"


def test_lock(client: Any, server: PostgresServer) -> None:
    with client.try_lock("lockstore", "r", "me", 60) as taken:
        assert taken.success
        assert not client.try_lock("lockstore", "r", "you", 60).success
        rows = server.rows("SELECT resource, owner, token FROM locks")
        token = int(taken.headers["meshnode-fencing-token"][0])
        assert rows == [("lock||app||r", "me", token)]
    assert server.rows("SELECT * FROM locks") == []


def test_configuration(client: Any, server: PostgresServer) -> None:
    """The subscription names the channel, as Dapr's documentation has it."""
    server.rows("INSERT INTO settings VALUES ('colour', 'blue', '1')")
    assert client.get_configuration("settings", ["colour"]).items["colour"].value == "blue"
    told: queue.Queue[Any] = queue.Queue(100)
    channel = {"pgNotifyChannel": "settings"}
    client.subscribe_configuration(
        "settings", ["colour"], lambda _id, answer: told.put(answer.items), config_metadata=channel
    )
    for turn in range(3):
        server.rows(f"UPDATE settings SET value = 'red{turn}'")
        (item,) = told.get(timeout=20).values()
        assert item.value == f"red{turn}"
