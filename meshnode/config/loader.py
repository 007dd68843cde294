"""From folders of YAML files to models, with every problem of every file in one `ConfigError`.

Folders are read like Dapr reads them: `*.yaml` and `*.yml` in the order of their names, not their subfolders,
several documents to a file. A document of another API group than dapr.io (a Kubernetes Secret beside the
components) is skipped with a warning, unless it looks like a mistyped resource. May import this package and
`meshnode.errors`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, final

from attrs import frozen

from meshnode.config._manifest import API_GROUP
from meshnode.config._problems import Report, did_you_mean, nearest
from meshnode.config._scalars import INVALID, describe
from meshnode.config._shapes import model
from meshnode.config._yaml import Node, Scalar, Table, documents, expand
from meshnode.config.resources import Resources
from meshnode.errors import ConfigError

if TYPE_CHECKING:
    from meshnode.config.resiliencyfile import ResiliencyManifest

__all__ = ["KINDS", "Kind", "load_resources", "load_text", "read_text"]

_log = logging.getLogger("meshnode.config")
_SUFFIXES = (".yaml", ".yml")


@final
@frozen
class Kind:
    """One kind of resource: for each version its manifest class, and the way from a manifest to the model.

    Both are names in `module`, which is imported when the first document of the kind is met.
    """

    name: str
    module: str
    versions: Mapping[str, str]
    builder: str
    into: str

    def manifest(self, version: str) -> type[Any]:
        cls: type[Any] = getattr(self._home, self.versions[version])
        return cls

    def build(self, manifest: Any, report: Report) -> Any:
        return getattr(self._home, self.builder)(manifest, report)

    @property
    def _home(self) -> ModuleType:
        return import_module(f"meshnode.config.{self.module}")


_V1 = "v1alpha1"
_V2 = "v2alpha1"

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("Component", "componentfile", {_V1: "ComponentManifest"}, "component_from", "components"),
        Kind(
            "Configuration",
            "configurationfile",
            {_V1: "ConfigurationManifest"},
            "configuration_from",
            "configurations",
        ),
        Kind("Resiliency", "resiliencyfile", {_V1: "ResiliencyManifest"}, "resiliency_from", "resiliencies"),
        Kind(
            "Subscription",
            "subscriptionfile",
            {_V1: "SubscriptionManifestV1", _V2: "SubscriptionManifestV2"},
            "subscription_from",
            "subscriptions",
        ),
        Kind(
            "HTTPEndpoint",
            "httpendpoint",
            {_V1: "HTTPEndpointManifest"},
            "http_endpoint_from",
            "http_endpoints",
        ),
    )
}
_NOT_YET = ("MCPServer", "WorkflowAccessPolicy", "PluggableComponent")
"""Dapr's own kinds that this node does not know."""


def load_resources(
    paths: Sequence[str | Path],
    config_paths: Sequence[str | Path] = (),
    *,
    lenient: bool = False,
    env: Mapping[str, str] | None = None,
) -> Resources:
    """The resources in these folders and files. `config_paths` come last: their Configurations override those
    of the folders.

    `env` replaces `$NAME` in Configurations; without it they stay as they are. Raises `ConfigError` with all
    problems.
    """
    reader = _Reader(Report(lenient=lenient), env)
    for path in (*paths, *config_paths):
        reader.read_path(Path(path))
    return reader.result()


def load_text(
    text: str, file: str = "", *, lenient: bool = False, env: Mapping[str, str] | None = None
) -> Resources:
    """The resources in a text, for tests and for standard input."""
    reader = _Reader(Report(lenient=lenient), env)
    reader.read_text(text, file)
    return reader.result()


def read_text(path: Path, report: Report) -> str | None:
    """A file's text; None after a problem."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        report.problem(0, "", f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        report.problem(line, "", "is not UTF-8 text")
    return None


@final
class _Reader:
    """One run over the files."""

    def __init__(self, report: Report, env: Mapping[str, str] | None) -> None:
        self._report = report
        self._env = env
        self._found: dict[str, list[Any]] = {kind.into: [] for kind in KINDS.values()}
        self._names: dict[tuple[str, str, str], str] = {}
        self._resiliencies: list[tuple[str, ResiliencyManifest]] = []
        self._sound_resiliencies = True

    def read_path(self, path: Path) -> None:
        self._report.file = str(path)
        if path.is_dir():
            for file in sorted(path.iterdir(), key=lambda one: one.name):
                if file.suffix.lower() in _SUFFIXES and file.is_file():
                    self._read_file(file)
        elif path.exists():
            self._read_file(path)
        else:
            self._report.problem(0, "", "no such file or folder")

    def _read_file(self, path: Path) -> None:
        self._report.file = str(path)
        text = read_text(path, self._report)
        if text is not None:
            self.read_text(text, str(path))

    def read_text(self, text: str, file: str) -> None:
        self._report.file = file
        for node in documents(text, self._report):
            self._read_document(node)

    def _read_document(self, node: Node) -> None:
        found = self._manifest_class(node)
        if found is None:
            return
        kind, cls = found
        if kind.name == "Configuration" and self._env is not None:
            node = expand(node, self._env, self._report)
        manifest = model(cls).read(node, "", self._report)
        if manifest is INVALID:
            # Its policies are unknown: complaining that others name them would only hide the real problem.
            self._sound_resiliencies &= kind.name != "Resiliency"
            return
        if self._is_duplicate(kind, manifest):
            return
        if kind.name == "Resiliency":
            self._resiliencies.append((self._report.file, manifest))
        result = kind.build(manifest, self._report)
        if result is not INVALID:
            self._found[kind.into].append(result)

    def _manifest_class(self, node: Node) -> tuple[Kind, type[Any]] | None:
        """Which kind and version a document is; None after it was reported or skipped."""
        report = self._report
        if not isinstance(node, Table):
            report.problem(
                node.line,
                "",
                f"found {describe(node)}, expected a resource",
                "a mapping with apiVersion, kind, metadata and spec",
            )
            return None
        version, kind = _text(node, "apiVersion"), _text(node, "kind")
        for name, value in (("apiVersion", version), ("kind", kind)):
            if value is None:
                hint = "dapr.io/v1alpha1" if name == "apiVersion" else ", ".join(KINDS)
                report.problem(node.line, name, "is missing", f"expected {hint}")
        if version is None or kind is None:
            return None
        if _is_foreign(version.text, kind.text):
            report.warning(node.line, "", f"{version.text} {kind.text} is not a resource of Dapr; skipped")
            return None
        known = KINDS.get(kind.text)
        if known is None:
            self._unknown_kind(kind)
            return None
        group, _, number = version.text.partition("/")
        if group == API_GROUP and number in known.versions:
            return known, known.manifest(number)
        allowed = [f"{API_GROUP}/{one}" for one in known.versions]
        report.problem(
            version.line, "apiVersion", f'found "{version.text}"', did_you_mean(version.text, allowed)
        )
        return None

    def _unknown_kind(self, kind: Scalar) -> None:
        if kind.text in _NOT_YET:
            self._report.unknown(
                kind.line,
                "kind",
                f"meshnode does not have Dapr's {kind.text} yet",
                "take the resource out of the folder",
            )
        else:
            self._report.problem(
                kind.line, "kind", f'unknown kind "{kind.text}"', did_you_mean(kind.text, KINDS)
            )

    def _is_duplicate(self, kind: Kind, manifest: Any) -> bool:
        """Two of a kind with one name; only components are referred to by their names, and only theirs must
        differ.
        """
        if kind.name not in ("Component", "HTTPEndpoint"):
            return False
        key = (kind.name, manifest.metadata.namespace, manifest.metadata.name)
        here = f"{self._report.file}:{manifest.line}"
        first = self._names.setdefault(key, here)
        if first == here:
            return False
        message = f'a {kind.name} "{manifest.metadata.name}" exists already'
        self._report.problem(manifest.line, "metadata.name", message, f"first in {first}")
        return True

    def result(self) -> Resources:
        report = self._report
        if self._sound_resiliencies and self._resiliencies:
            from meshnode.config.resiliencyfile import check_references

            check_references(self._resiliencies, report)
        for warning in report.warnings:
            _log.warning("%s", warning)
        found = {name: tuple(values) for name, values in self._found.items()}
        resources = Resources(**found, warnings=tuple(report.warnings))
        if report.problems:
            raise ConfigError(report.problems, partial=resources)
        return resources


def _text(node: Table, name: str) -> Scalar | None:
    value = node.get(name)
    return value if isinstance(value, Scalar) and value.text else None


def _is_foreign(version: str, kind: str) -> bool:
    group = version.partition("/")[0]
    names: Iterable[str] = (*KINDS, *_NOT_YET)
    return group != API_GROUP and nearest(group, [API_GROUP]) is None and nearest(kind, names) is None
