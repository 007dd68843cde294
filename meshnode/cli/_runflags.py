"""The flags of `meshnode run`: the node's, the few of its own, and which of all flags may be set in files.

Data only.
"""

from __future__ import annotations

from meshnode.cli._flags import Flag, FlagTable, Kind
from meshnode.cli._nodeflags import NODE_FLAGS, REFUSED_FLAGS

__all__ = ["GLOBAL_FLAGS", "RUN_FLAGS", "RUN_TABLE", "SETTABLE"]

_RUN = "Run"

GLOBAL_FLAGS: tuple[Flag, ...] = (
    Flag("output", Kind.TEXT, "table, json or jsonl.", "table", short="o",
         choices=("table", "json", "jsonl")),
    Flag("color", Kind.TEXT, "auto, always or never.", "auto", choices=("auto", "always", "never")),
)  # fmt: skip

RUN_FLAGS: tuple[Flag, ...] = (
    Flag("run-file", Kind.PATH,
         "Run several applications: a multi-app run file, a folder with one, or - for standard input.",
         short="f", section=_RUN),
    Flag("dapr-http-port", Kind.PORT, "Port of the health address that some SDKs poll at start.",
         "a free one", short="H", section=_RUN),
    Flag("until", Kind.TEXT, "With a run file: end all when this application has ended.", section=_RUN),
    Flag("app-grace-seconds", Kind.INT, "Seconds the application gets to end after a signal.", "10",
         section=_RUN),
    Flag("node-logs", Kind.TEXT, "Where the node's log goes: console, file or both.", "both",
         choices=("console", "file", "both"), section=_RUN),
    Flag("app-logs", Kind.TEXT, "Where the application's output goes: console, file or both.", "both",
         choices=("console", "file", "both"), section=_RUN),
)  # fmt: skip

_RUN_ONLY = frozenset(flag.name for flag in RUN_FLAGS)
_NODE_ONLY = frozenset({"ready-fd", "run-info"})

RUN_TABLE = FlagTable(
    "meshnode run",
    RUN_FLAGS
    + GLOBAL_FLAGS
    + tuple(flag for flag in NODE_FLAGS if flag.name not in _NODE_ONLY)
    + tuple(flag for flag in REFUSED_FLAGS if flag.name not in _RUN_ONLY),
)

SETTABLE: dict[str, Flag] = {
    flag.name: flag
    for flag in (*GLOBAL_FLAGS, *RUN_FLAGS, *NODE_FLAGS)
    if not flag.hidden and flag.name not in ("app-id", "run-file", "until")
}
"""What a settings file may hold, by name: everything but what names one application."""
