"""Settings within settings: which fields there are, in Consul's spelling, and what they take. No I/O.

Dapr reads these into structures of Consul's Go client, whose decoder knows fields in any case. What it passes
over in silence, a field that there is not, is a mistake here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from meshnode.errors import Problem

__all__ = ["CHECK", "CLIENT", "QUERY", "REGISTRATION", "read", "read_all"]

Shape = Mapping[str, "Shape | Sequence[Any] | Callable[[Any], Any]"]

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be text")  # noqa: TRY004 - the user's value is wrong, not an argument's type
    return str(value)


def _whole(value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise ValueError("must be a whole number") from None


def _flag(value: Any) -> bool:
    words = {"true": True, "false": False}
    try:
        return words[str(value).lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def _seconds(value: Any) -> float:
    """A Go duration; a bare number is in nanoseconds, as Go reads one."""
    text = str(value).strip()
    if text.isascii() and text.isdecimal():
        return int(text) / 1e9
    if not text or _PART.sub("", text):
        raise ValueError("must be a duration such as 5s")
    return sum([float(number) * _UNITS[unit] for number, unit in _PART.findall(text)])


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("must be a list")  # noqa: TRY004 - as above
    return [_text(one) for one in value]


def _table(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be a mapping")  # noqa: TRY004 - as above
    return {name: _text(one) for name, one in value.items()}


def _lists(value: Any) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of lists")  # noqa: TRY004 - as above
    return {name: _texts(one) for name, one in value.items()}


def _anything(value: Any) -> Any:
    return value


CLIENT: Final[Shape] = {
    "Address": _text,
    "Scheme": _text,
    "Datacenter": _text,
    "HTTPAuth": {"Username": _text, "Password": _text},
    "WaitTime": _seconds,
    "Token": _text,
    "TokenFile": _text,
    "TLSConfig": {
        "Address": _text,
        "CAFile": _text,
        "CAPath": _text,
        "CertFile": _text,
        "KeyFile": _text,
        "InsecureSkipVerify": _flag,
    },
}
CHECK: Final[Shape] = {
    "Args": _texts,
    "CheckID": _text,
    "Name": _text,
    "DockerContainerID": _text,
    "Shell": _text,
    "Interval": _text,
    "Timeout": _text,
    "TTL": _text,
    "HTTP": _text,
    "Header": _lists,
    "Method": _text,
    "TCP": _text,
    "Status": _text,
    "Notes": _text,
    "TLSSkipVerify": _flag,
    "GRPC": _text,
    "GRPCUseTLS": _flag,
    "AliasNode": _text,
    "AliasService": _text,
    "DeregisterCriticalServiceAfter": _text,
}
QUERY: Final[Shape] = {
    "Namespace": _text,
    "Partition": _text,
    "Datacenter": _text,
    "AllowStale": _flag,
    "RequireConsistent": _flag,
    "UseCache": _flag,
    "MaxAge": _seconds,
    "StaleIfError": _seconds,
    "WaitIndex": _whole,
    "WaitHash": _text,
    "WaitTime": _seconds,
    "Token": _text,
    "Near": _text,
    "NodeMeta": _table,
    "RelayFactor": _whole,
    "LocalOnly": _flag,
    "Connect": _flag,
    "Filter": _text,
}
_GATEWAY: Final[Shape] = {"Mode": _text}
_UPSTREAM: Final[Shape] = {
    "DestinationType": _text,
    "DestinationNamespace": _text,
    "DestinationName": _text,
    "Datacenter": _text,
    "LocalBindAddress": _text,
    "LocalBindPort": _whole,
    "Config": _anything,
    "MeshGateway": _GATEWAY,
}
_EXPOSED: Final[Shape] = {
    "ListenerPort": _whole,
    "Path": _text,
    "LocalPathPort": _whole,
    "Protocol": _text,
    "ParsedFromCheck": _flag,
}
_PROXY: Final[Shape] = {
    "DestinationServiceName": _text,
    "DestinationServiceID": _text,
    "LocalServiceAddress": _text,
    "LocalServicePort": _whole,
    "Config": _anything,
    "Upstreams": [_UPSTREAM],
    "MeshGateway": _GATEWAY,
    "Expose": {"Checks": _flag, "Paths": [_EXPOSED]},
}
REGISTRATION: Final[Shape] = {
    "Kind": _text,
    "ID": _text,
    "Name": _text,
    "Tags": _texts,
    "Port": _whole,
    "Address": _text,
    "TaggedAddresses": _anything,
    "EnableTagOverride": _flag,
    "Meta": _table,
    "Weights": {"Passing": _whole, "Warning": _whole},
    "Check": CHECK,
    "Checks": [CHECK],
    "Proxy": _PROXY,
    "Connect": {"Native": _flag, "SidecarService": _anything},
}


def read(shape: Shape, value: Any, where: str, problems: list[Problem]) -> dict[str, Any]:
    """The fields in Consul's spelling; what is wrong with them goes to `problems`."""
    if not isinstance(value, Mapping):
        problems.append(Problem("must be a mapping", field=where))
        return {}
    names = {name.lower(): name for name in shape}
    found: dict[str, Any] = {}
    for given, inner in value.items():
        name = names.get(str(given).lower())
        if name is None:
            remedy = f"there are {', '.join(sorted(shape))}"
            problems.append(Problem("unknown field", field=f"{where}.{given}", remedy=remedy))
        elif inner is not None:
            found[name] = _value(shape[name], inner, f"{where}.{given}", problems)
    return found


def read_all(shape: Shape, values: Any, where: str, problems: list[Problem]) -> list[dict[str, Any]]:
    """The same for a list."""
    if not isinstance(values, list | tuple):
        problems.append(Problem("must be a list", field=where))
        return []
    return [read(shape, one, f"{where}[{number}]", problems) for number, one in enumerate(values)]


def _value(shape: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    if isinstance(shape, Mapping):
        return read(shape, value, where, problems)
    if isinstance(shape, list):
        return read_all(shape[0], value, where, problems)
    try:
        return shape(value)
    except ValueError as error:
        problems.append(Problem(str(error), field=where))
        return None
