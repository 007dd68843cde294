"""Bytes that applications exchange, as JSON output and as arguments."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from meshnode.cli._errors import CliError, UsageProblem

__all__ = ["pairs", "payload_row", "read_payload"]


def payload_row(data: bytes) -> dict[str, Any]:
    """`value` and `encoding`: `json` (parsed), `text`, or `base64` for what is neither."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return {"value": base64.b64encode(data).decode("ascii"), "encoding": "base64"}
    try:
        return {"value": json.loads(text), "encoding": "json"}
    except ValueError:
        return {"value": text, "encoding": "text"}


def read_payload(text: str | None, file: str | None, name: str) -> bytes:
    """The bytes of `--NAME` or of `--NAME-file` (`-` is standard input); nothing when neither is given."""
    if text is not None and file is not None:
        raise UsageProblem(f"--{name} and --{name}-file exclude each other")
    if text is not None:
        return text.encode()
    if file is None:
        return b""
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CliError(f"{file}: {error.strerror}") from None


def pairs(words: tuple[str, ...], name: str) -> dict[str, str]:
    """`KEY=VALUE` words of a repeatable option."""
    result: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageProblem(f"--{name}: {word!r} is not KEY=VALUE")
        result[key] = value
    return result
