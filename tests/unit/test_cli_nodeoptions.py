"""From words on a command line to NodeOptions, and where each value comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnode.cli._errors import UsageProblem
from meshnode.cli._nodeflags import NODE_TABLE
from meshnode.cli._nodeoptions import node_options
from meshnode.cli._settings import Layer, Resolved, resolve
from meshnode.config.nodeoptions import AppHealthOptions, NodeOptions


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def options(*args: str, **env: str) -> NodeOptions:
    settings = Resolved(NODE_TABLE, (Layer("flag", NODE_TABLE.parse(args).values),))
    return node_options(settings, env)


def test_defaults_are_daprds() -> None:
    assert options("--app-id", "a") == NodeOptions(app_id="a")


def test_everything_given() -> None:
    given = options(
        *["--app-id=a", "--app-port=3000", "--app-protocol=grpcs", "--app-max-concurrency=4"],
        *["--enable-app-health-check", "--app-health-probe-interval=2", "--app-health-probe-timeout=100"],
        *["--app-health-threshold=1", "--dapr-grpc-port=0", "--dapr-listen-addresses=[::1],127.0.0.1"],
        *["--dapr-internal-grpc-port=50002", "--max-body-size=16Mi", "--read-buffer-size=64Ki"],
        *["--resources-path=one", "--resources-path=two", "--config=c.yaml", "--lenient"],
        *["--dapr-graceful-shutdown-seconds=9", "--log-level=warning", "--log-as-json"],
        *["--enable-api-logging=false", "--scheduler-host-address=h:1,h:2"],
        NAMESPACE="prod",
        DAPR_API_TOKEN="secret",
        APP_API_TOKEN="other",
        DAPR_HOST_IP="10.0.0.1",
    )
    assert given.app_port == 3000
    assert given.app_tls is True
    assert given.app_max_concurrency == 4
    assert given.app_health == AppHealthOptions(interval=2.0, timeout=0.1, threshold=1)
    assert given.grpc_port == 0
    assert given.listen_addresses == ("::1", "127.0.0.1")
    assert given.internal_grpc_port == 50002
    assert (given.max_body_size, given.max_header_size) == (16 << 20, 64 << 10)
    assert given.resources_paths == (Path("one"), Path("two"))
    assert given.config_paths == (Path("c.yaml"),)
    assert given.lenient is True
    assert given.graceful_shutdown == 9.0
    assert (given.log_level, given.log_as_json, given.api_logging) == ("warn", True, False)
    assert given.scheduler_addresses == ("h:1", "h:2")
    assert (given.namespace, given.host_ip) == ("prod", "10.0.0.1")
    assert (given.api_token, given.app_api_token) == ("secret", "other")
    assert "secret" not in repr(given)


@pytest.mark.parametrize(
    ("word", "size"), [("--max-body-size=-1", None), ("--dapr-http-max-request-size=8", 8 << 20)]
)
def test_body_size(word: str, size: int | None) -> None:
    assert options("--app-id=a", word).max_body_size == size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--app-id is needed"),
        ("--app-id=a.b", "'a.b' has '.' in it"),
        ("--app-id=../a", "has '.' in it"),
        ("--app-id=a||b", "has '|' in it"),
        ("--app-id=a\x1b", "in it, which an app id cannot have"),
        ("--app-id=a --app-protocol=http", "the node speaks gRPC only, to the application too"),
        ("--app-id=a --app-protocol=grcp", "'grcp' is not one of grpc, grpcs"),
        ("--app-id=a --app-max-concurrency=0", "would let nothing through"),
        ("--app-id=a --app-port=70000", "70000 is not a port"),
        ("--app-id=a --app-port=http", "'http' is not a whole number"),
        ("--app-id=a --dapr-graceful-shutdown-seconds=-2", "below 0"),
        ("--app-id=a --enable-app-health-check --app-health-probe-timeout=6000", "longer than the interval"),
        ("--app-id=a --enable-app-health-check --app-health-threshold=0", "above 0"),
        ("--app-id=a --max-body-size=big", "is not a size"),
    ],
)
def test_refused(words: str, message: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        options(*words.split())
    assert message in caught.value.message


class TestPrecedence:
    """Flag, environment, project file, user file, default."""

    @pytest.fixture
    def layers(self, tmp_path: Path) -> dict[str, str]:
        project = tmp_path / ".meshnode"
        project.mkdir()
        (project / "config.toml").write_text('log-level = "warn"\nresources-path = ["res"]\nlenient = true\n')
        user = tmp_path / "user"
        user.mkdir()
        (user / "config.toml").write_text('log-level = "error"\ndapr-grpc-port = 1\napp-port = 7\n')
        return {"MESHNODE_CONFIG_DIR": str(user), "MESHNODE_APP_PORT": "8"}

    def test_order(self, layers: dict[str, str], tmp_path: Path) -> None:
        settings = resolve(NODE_TABLE, {"app-id": "a"}, layers)
        assert settings.get("log-level") == "warn"
        assert settings.get("dapr-grpc-port") == 1
        assert settings.get("app-port") == 8
        assert settings.get("lenient") is True
        assert settings.get("log-as-json", "default") == "default"
        assert settings.get("resources-path") == (tmp_path / "res",)
        assert resolve(NODE_TABLE, {"app-port": "9"}, layers).get("app-port") == 9

    def test_the_nearest_project_file_counts(
        self, layers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = tmp_path / "a" / "b"
        inner.mkdir(parents=True)
        monkeypatch.chdir(inner)
        assert resolve(NODE_TABLE, {}, layers).get("resources-path") == (tmp_path / "res",)

    def test_sources_are_named_in_messages(self, layers: dict[str, str], tmp_path: Path) -> None:
        with pytest.raises(UsageProblem, match=r"^MESHNODE_APP_PORT: 'x' is not"):
            resolve(NODE_TABLE, {}, layers | {"MESHNODE_APP_PORT": "x"}).get("app-port")
        path = tmp_path / ".meshnode" / "config.toml"
        path.write_text("log-lvel = 'x'")
        with pytest.raises(UsageProblem, match="unknown setting log-lvel") as caught:
            resolve(NODE_TABLE, {}, layers)
        assert caught.value.hint == "did you mean log-level?"
        path.write_text("= 3")
        with pytest.raises(UsageProblem, match=r"config\.toml: "):
            resolve(NODE_TABLE, {}, layers)
        path.write_text("log-level = {a = 1}")
        with pytest.raises(UsageProblem, match="log-level: a string, number"):
            resolve(NODE_TABLE, {}, layers)
