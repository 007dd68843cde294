"""The command as a whole: exit codes, streams, forms of output, colour, suggestions."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from meshnode import __version__
from meshnode.cli._app import VERBS, main
from meshnode.cli._exit import ExitCode
from meshnode.cli._output import Column, Output, ago
from meshnode.cli._payload import pairs, payload_row

Cli = Callable[..., tuple[int, str, str]]
HELP_WIDTH = "100"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    for name in ("RUNTIME", "STATE", "CONFIG"):
        monkeypatch.setenv(f"MESHNODE_{name}_DIR", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", HELP_WIDTH)
    for name in ("NO_COLOR", "FORCE_COLOR", "DAPR_GRPC_PORT", "DAPR_GRPC_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str) -> tuple[int, str, str]:
        code = main(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_page(cli: Cli, verb: str) -> None:
    code, out, _ = cli(verb, "--help")
    assert code == 0
    assert f"meshnode {verb}" in out
    assert "--output" in out or verb == "node"


def test_node_help_shows_every_flag_that_can_be_used(cli: Cli) -> None:
    out = cli("node", "--help")[1]
    assert "--dapr-grpc-port" in out
    assert "50001" in out
    assert "--dapr-http-port" not in out
    assert "--ready-fd" not in out


@pytest.mark.parametrize(
    ("args", "code", "error", "hint"),
    [
        (["lst"], 2, "error: unknown command lst", "did you mean list?"),
        (["qqqqqq"], 2, "error: unknown command qqqqqq", "see meshnode --help"),
        (["status", "--requets"], 2, "error: no such option '--requets'", "did you mean --requests?"),
        (["state", "gt", "k"], 2, "error: unknown command gt", "did you mean get?"),
        (["state", "get"], 2, "error: missing argument 'KEY'", "see meshnode state get --help"),
        (
            ["invoke", "--app-id", "x"],
            2,
            "error: missing option '-m' / '--method'",
            "see meshnode invoke --help",
        ),
        (["-o", "xml", "list"], 2, "error: invalid value for '--output' / '-o'", "see meshnode --help"),
        (["state", "save", "k"], 2, "error: a value is needed", ""),
        (["status", "nope"], 1, "error: no node of nope is running", "`meshnode list` shows what is running"),
        (
            ["components", "describe", "state.sqlit"],
            2,
            'unknown component type "state.sqlit"',
            "state.sqlite",
        ),
        (["schema", "resilency"], 2, "error: there is no schema resilency", "did you mean Resiliency?"),
        (["new", "state-resilience"], 2, "error: there is no quickstart", "did you mean state-resiliency?"),
        (["run", "--app-idd", "x"], 2, "error: unknown flag --app-idd", "did you mean --app-id?"),
        (
            ["list", "--output", "json", "extra"],
            2,
            "error: got unexpected extra argument",
            "see meshnode list --help",
        ),
    ],
)
def test_mistakes(cli: Cli, args: list[str], code: int, error: str, hint: str) -> None:
    found, out, err = cli(*args)
    assert (found, out) == (code, "")
    assert error in err
    assert hint in err
    assert "Traceback" not in err


def test_version(cli: Cli) -> None:
    version = json.loads(cli("version", "-o", "json")[1])
    assert version["version"] == __version__
    assert version["protocol"].startswith("dapr.proto")
    assert "state.sqlite" in {driver["type"] for driver in version["drivers"]}
    assert json.loads(cli("--version", "-o", "json")[1]) == version
    assert f"meshnode: {__version__}" in cli("--version")[1]


def test_output_may_be_named_before_and_after_the_verb(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("list", "-o", "json")[1] == "[]\n"
    assert cli("-o", "json", "list")[1] == "[]\n"
    assert cli("-o", "json", "list", "--output", "jsonl")[1] == ""
    monkeypatch.setenv("MESHNODE_OUTPUT", "json")
    assert cli("list")[1] == "[]\n"
    assert cli("-o", "table", "list") == (0, "", "no node is running on this machine\n")


def test_config_show_names_the_source_of_every_value(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".meshnode").mkdir()
    (tmp_path / ".meshnode" / "config.toml").write_text('log-level = "debug"\ncolor = "never"\n')
    monkeypatch.setenv("MESHNODE_DAPR_GRPC_PORT", "0")
    rows = {row["name"]: row for row in json.loads(cli("config", "show", "-o", "json")[1])}
    assert rows.keys() == {"output", "color", "log-level", "dapr-grpc-port"}
    assert rows["output"]["source"] == "flag"
    assert rows["dapr-grpc-port"] == {"name": "dapr-grpc-port", "value": "0", "source": "environment"}
    assert rows["log-level"]["source"] == f"project file {tmp_path / '.meshnode' / 'config.toml'}"
    every = json.loads(cli("config", "show", "--all", "-o", "json")[1])
    assert {"name": "max-body-size", "value": "4Mi", "source": "default"} in every
    monkeypatch.setenv("MESHNODE_DAPR_GRPC_PORT", "many")
    assert cli("config", "show")[0] == 2


def test_schemas_of_components_and_run_files(cli: Cli) -> None:
    listed = {row["name"]: row["what"] for row in json.loads(cli("schema", "-o", "json")[1])}
    assert listed["run-file"] == "multi-app run file"
    assert "apps" in json.loads(cli("schema", "run-file")[1])["properties"]
    shown = cli("components", "describe", "state.sqlite", "--schema")[1]
    assert shown == cli("schema", "state.sqlite")[1]
    assert "keyPrefix" in shown
    assert "keyPrefix" not in cli("schema", "secretstores.local.env")[1]


@pytest.mark.parametrize(
    ("settings", "right"),
    [
        ({"connectionString": "n.db", "updateInterval": "5s"}, True),
        ({"url": "n.db"}, True),
        ({"updateInterval": "5s"}, False),
        ({"connectionString": "n.db", "updateIntervall": "5s"}, False),
    ],
)
def test_the_schema_of_a_name_resolution_is_a_configuration_s(
    cli: Cli, settings: dict[str, str], right: bool
) -> None:
    schema = json.loads(cli("schema", "nameresolution.sqlite")[1])
    chosen = {"component": "sqlite", "version": "v1", "configuration": settings}
    resource = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Configuration",
        "metadata": {"name": "c"},
        "spec": {"nameResolution": chosen},
    }
    jsonschema.Draft7Validator.check_schema(schema)
    assert jsonschema.Draft7Validator(schema).is_valid(resource) is right


def test_components_check(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "store.yaml"
    file.write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: s}\n"
        "spec:\n  type: state.sqlite\n  version: v1\n"
        "  metadata:\n    - {name: conectionString, value: x}\n    - {name: timeout, value: soon}\n"
    )
    code, out, err = cli("components", "check", str(file))
    assert (code, out) == (2, "")
    assert "store.yaml:8: spec.metadata.conectionString" in err
    assert "connectionString" in err
    assert "spec.metadata.timeout" in err
    assert len(json.loads(cli("components", "check", str(file), "-o", "json")[1])) >= 2
    file.write_text(file.read_text().replace("conection", "connection").replace("soon", "5s"))
    assert cli("components", "check", str(file))[0] == 0


def test_components_check_finds_all_that_a_node_would(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: s}\n"
        "spec: {type: state.rediss, version: v1}\nscopes: [somebody]\n---\n"
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\n"
        "spec: {policies: {timeouts: {t: 5q}}}\n---\n"
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\n"
        "spec: {nameResolution: {component: sqlit}, api: {denied: [{name: sate, protocol: grpc}]}}\n"
    )
    code, _, err = cli("components", "check", str(file))
    assert code == 2
    for hint in ("state.redis", "is not a duration", "nameresolution.sqlite", 'did you mean "state"'):
        assert hint in err
    assert len(err.splitlines()) == 4


def test_completion_scripts(cli: Cli) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_MESHNODE_COMPLETE" in cli("completion", shell)[1]
    assert cli("completion", "tcsh")[0] == 2


def test_a_broken_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "meshnode", "schema", "any"],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "SUCCESS": 0,
        "FAILURE": 1,
        "USAGE": 2,
        "INTERRUPTED": 130,
    }


class TestOutput:
    ROWS = ({"a": "x" * 200, "b": None}, {"a": "y", "b": True})
    COLUMNS = (Column("a", "A"), Column("b", "B"))

    def shown(self, form: str, color: str = "auto") -> str:
        out = io.StringIO()
        Output(form, color, out, out).rows(self.ROWS, self.COLUMNS)
        return out.getvalue()

    def test_a_table_in_a_pipe_is_whole_and_plain(self) -> None:
        heading, first, second = self.shown("table").splitlines()
        assert heading.split() == ["A", "B"]
        assert first.split() == ["x" * 200, "-"]
        assert second.split() == ["y", "yes"]

    def test_colour_on_demand(self) -> None:
        assert "\x1b[1m" in self.shown("table", "always")
        assert "\x1b" not in self.shown("table", "never")

    def test_json_has_the_values_themselves(self) -> None:
        assert json.loads(self.shown("json")) == list(self.ROWS)
        assert [json.loads(line) for line in self.shown("jsonl", "always").splitlines()] == list(self.ROWS)

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0, "0s"), (59.9, "59s"), (61, "1m1s"), (3600, "1h"), (90061, "1d1h"), (-5, "0s")],
    )
    def test_ago(self, seconds: float, text: str) -> None:
        assert ago(seconds) == text

    @pytest.mark.parametrize(
        ("data", "value", "encoding"),
        [
            (b'{"a":1}', {"a": 1}, "json"),
            (b"text", "text", "text"),
            (b"", "", "text"),
            (b"\xff", "/w==", "base64"),
        ],
    )
    def test_payloads(self, data: bytes, value: object, encoding: str) -> None:
        assert payload_row(data) == {"value": value, "encoding": encoding}

    def test_pairs(self) -> None:
        assert pairs(("a=1", "b=x=y"), "metadata") == {"a": "1", "b": "x=y"}
