"""What a record looks like, as Dapr's component writes and reads it; no I/O.

Every metadata name of a publication becomes a header, and `partitionKey` (or `__key`) the record's key
besides. Received, headers become metadata again, after the record's own particulars. The JSON text `null`
stands for a record without a value.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import final
from urllib.parse import quote_plus

from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]
from attrs import frozen

from meshnode.errors import InvalidArgument
from meshnode_kafka._options import Options

__all__ = ["Codec", "Record", "partitioner"]

_KEYS = ("partitionKey", "__key")
_PARTITION = "partitionNumber"
_SCHEMA = "valueSchemaType"
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NULL = b"null"


@final
@frozen
class Record:
    """What is handed to the producer. `partition` None leaves that to the key."""

    topic: str
    value: bytes | None
    key: bytes | None
    partition: int | None
    headers: Sequence[tuple[str, bytes]]


@final
class Codec:
    """Records out of publications, and metadata out of records."""

    def __init__(self, options: Options) -> None:
        pattern = options.exclude_header_meta_regex
        self._excluded = re.compile(pattern) if pattern else None
        self._escape = options.escape_headers

    def record(self, topic: str, data: bytes, metadata: Mapping[str, str]) -> Record:
        """Raises `InvalidArgument` for what no broker would take."""
        if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
            raise InvalidArgument(f"{topic!r} is no name for a Kafka topic")
        check_schema(metadata)
        key = next((metadata[name].encode() for name in _KEYS if name in metadata), None)
        headers = [(name, value.encode()) for name, value in metadata.items() if not self._excludes(name)]
        # Without a key the client takes no record that has no value; a reader cannot tell the difference.
        value = None if data == _NULL and key is not None else data
        return Record(topic, value, key, _partition(metadata), headers)

    def metadata(self, record: ConsumerRecord) -> dict[str, str]:
        metadata = {}
        if record.key is not None:
            metadata["__key"] = self._text(record.key)
        metadata["__offset"] = str(record.offset)
        metadata["__topic"] = record.topic
        metadata["__timestamp"] = str(record.timestamp)
        metadata["__partition"] = str(record.partition)
        for name, value in record.headers:
            if not self._excludes(name):
                metadata[name] = self._text(value or b"")
        return metadata

    @staticmethod
    def data(record: ConsumerRecord) -> bytes:
        return _NULL if record.value is None else bytes(record.value)

    def _excludes(self, name: str) -> bool:
        return self._excluded is not None and self._excluded.search(name) is not None

    def _text(self, value: bytes) -> str:
        return quote_plus(value) if self._escape else value.decode(errors="replace")


def check_schema(metadata: Mapping[str, str]) -> None:
    """Raises `InvalidArgument` where a message is to be Avro. For publications and subscriptions."""
    if metadata.get(_SCHEMA, "none").lower() != "none":
        raise InvalidArgument(f"{_SCHEMA} {metadata[_SCHEMA]}: this component decodes no schemas")


def _partition(metadata: Mapping[str, str]) -> int | None:
    text = metadata.get(_PARTITION)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,9}", text):
        raise InvalidArgument(f"{_PARTITION} {text!r} is no number of a partition")
    return int(text)


@final
class _Partitioner:
    """The partition of each key is the one that daprd finds, so that both keep a key's order together: the
    remainder of its FNV-1a hash, taken as a signed number and without the sign of the result.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
        if key is None:
            return self._rng.choice(available or every)
        value = 0x811C9DC5
        for byte in key:
            value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
        signed = value - (1 << 32) if value >= 1 << 31 else value
        return sorted(every)[abs(signed) % len(every)]


def partitioner(rng: random.Random) -> _Partitioner:
    return _Partitioner(rng)
