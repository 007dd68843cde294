"""Which name an app id has. No I/O.

Dapr's `template` is a Go template of its request. What a request of this node's holds may stand in it: the
app id, the namespace and the port; of Go's language, that is all.
"""

from __future__ import annotations

import re
from typing import Final, final

from attrs import frozen

__all__ = ["Template", "service_name"]

_ACTION: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_FIELDS: Final = ("ID", "Namespace", "Port")


@final
@frozen
class Template:
    """Text and, in every other place, names of fields."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises `ValueError`."""
        parts = _ACTION.split(text)
        for number in range(1, len(parts), 2):
            name = parts[number].strip()
            if name.removeprefix(".") not in _FIELDS or not name.startswith("."):
                known = ", ".join(f"{{{{.{one}}}}}" for one in _FIELDS)
                raise ValueError(f"knows {known}, not {{{{{parts[number]}}}}}")
            parts[number] = name.removeprefix(".")
        if any("{{" in text or "}}" in text for text in parts[::2]):
            raise ValueError("has a brace without its other one")
        return cls(tuple(parts))

    def filled(self, app_id: str, namespace: str, port: int) -> tuple[str, int]:
        """Host and port; the given port where the text ends in none."""
        values = {"ID": app_id, "Namespace": namespace, "Port": str(port)}
        address = "".join([values[one] if at % 2 else one for at, one in enumerate(self.parts)])
        host, mark, tail = address.rpartition(":")
        if mark and tail.isascii() and tail.isdecimal() and 0 < int(tail) < 65536:
            return host.removeprefix("[").removesuffix("]"), int(tail)
        return address, port


def service_name(app_id: str, namespace: str, cluster_domain: str) -> str:
    """The headless service that Dapr's operator makes for an app id. It ends in a dot, for it is whole: with
    the search list of a pod it would be asked for in four other domains first.
    """
    return f"{app_id}-dapr.{namespace}.svc.{cluster_domain.strip('.')}."
