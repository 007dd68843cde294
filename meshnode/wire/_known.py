"""What the well-known types of google.protobuf can do besides holding their fields.

The generated classes of these types inherit the mixin of the same name. betterproto2 uses `from_wrapped` and
`to_wrapped` where a field of such a type is a plain Python value, and `to_dict` and `from_dict` for their
JSON forms. The mixins declare their attributes to type checkers only: betterproto2 evaluates annotations in
the generated modules.

May import: betterproto2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeVar
from typing import Any as AnyValue

import betterproto2

__all__ = [
    "Any",
    "BoolValue",
    "BytesValue",
    "DoubleValue",
    "Duration",
    "FloatValue",
    "Int32Value",
    "Int64Value",
    "ListValue",
    "StringValue",
    "Struct",
    "Timestamp",
    "UInt32Value",
    "UInt64Value",
    "Value",
]

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DURATION = re.compile(r"(-?)(\d+)(?:\.(\d{1,9}))?s")
_TIMESTAMP = re.compile(r"([^.]+?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


class Any:
    """A message of any type, with its name."""

    if TYPE_CHECKING:
        type_url: str
        value: bytes

    @classmethod
    def pack(
        cls, message: betterproto2.Message, message_pool: betterproto2.MessagePool | None = None
    ) -> Self:
        """Wrap `message`, whose class must be in the pool."""
        pool = _pool() if message_pool is None else message_pool
        return cls(type_url=pool.type_to_url[type(message)], value=bytes(message))  # type: ignore[call-arg]

    def unpack(self, message_pool: betterproto2.MessagePool | None = None) -> betterproto2.Message | None:
        """The message inside; None when this is empty. TypeError for a type that is not in the pool."""
        if not self.type_url:
            return None
        return _type_for(self.type_url, message_pool).parse(self.value)

    def to_dict(self, **options: AnyValue) -> dict[str, AnyValue]:
        """The JSON form: the message's own with `@type` added, or its special form under `value`."""
        message = self.unpack()
        if message is None:
            return {}
        form = message.to_dict(**options)
        if type(message).to_dict is betterproto2.Message.to_dict:
            return {"@type": self.type_url, **form}
        return {"@type": self.type_url, "value": form}

    @classmethod
    def from_dict(cls, value: Mapping[str, AnyValue], *, ignore_unknown_fields: bool = False) -> Self:
        """The inverse of `to_dict`."""
        fields = dict(value)
        url = fields.pop("@type", None)
        if url is None:
            return cls()
        kind = _type_for(url, None)
        form: AnyValue = fields
        if kind.to_dict is not betterproto2.Message.to_dict:
            form = fields["value"]
        message = kind.from_dict(form, ignore_unknown_fields=ignore_unknown_fields)
        return cls(type_url=url, value=bytes(message))  # type: ignore[call-arg]


class Timestamp:
    """A point in time; as a field, an aware datetime, which keeps whole microseconds."""

    if TYPE_CHECKING:
        seconds: int
        nanos: int

    @classmethod
    def from_datetime(cls, when: datetime) -> Self:
        """From an aware datetime."""
        if when.tzinfo is None:
            raise ValueError("a timestamp needs an aware datetime")
        seconds, microseconds = divmod((when - _EPOCH) // _MICROSECOND, 1_000_000)
        return cls(seconds=seconds, nanos=microseconds * 1000)  # type: ignore[call-arg]

    def to_datetime(self) -> datetime:
        """As a datetime in UTC. OverflowError outside the years 1 to 9999."""
        return _EPOCH + timedelta(seconds=self.seconds, microseconds=self.nanos // 1000)

    from_wrapped = from_datetime
    to_wrapped = to_datetime

    def to_dict(self, **_options: AnyValue) -> str:
        """The JSON form, RFC 3339 in UTC."""
        whole = (_EPOCH + timedelta(seconds=self.seconds)).replace(tzinfo=None).isoformat()
        return f"{whole}{_fraction(self.nanos)}Z"

    @classmethod
    def from_dict(cls, value: AnyValue, *, ignore_unknown_fields: bool = False) -> Self:
        """From RFC 3339 with any offset."""
        if not isinstance(value, str):
            return _from_mapping(cls, value, ignore_unknown_fields)
        match = _TIMESTAMP.fullmatch(value)
        if match is None:
            raise ValueError(f"not an RFC 3339 timestamp: {value!r}")
        whole, fraction, zone = match.groups()
        offset = datetime.fromisoformat(whole + zone) - _EPOCH
        nanos = int((fraction or "0").ljust(9, "0"))
        return cls(seconds=offset // timedelta(seconds=1), nanos=nanos)  # type: ignore[call-arg]


class Duration:
    """A span of time; as a field, a timedelta, which keeps whole microseconds."""

    if TYPE_CHECKING:
        seconds: int
        nanos: int

    @classmethod
    def from_timedelta(cls, span: timedelta) -> Self:
        """From a timedelta. Both parts have the sign of the whole."""
        microseconds = span // _MICROSECOND
        sign = -1 if microseconds < 0 else 1
        seconds, rest = divmod(abs(microseconds), 1_000_000)
        return cls(seconds=sign * seconds, nanos=sign * rest * 1000)  # type: ignore[call-arg]

    def to_timedelta(self) -> timedelta:
        """As a timedelta, rounded towards zero."""
        microseconds = abs(self.nanos) // 1000
        return timedelta(seconds=self.seconds, microseconds=-microseconds if self.nanos < 0 else microseconds)

    from_wrapped = from_timedelta
    to_wrapped = to_timedelta

    def to_dict(self, **_options: AnyValue) -> str:
        """The JSON form: seconds with a fraction and an `s`."""
        sign = "-" if self.seconds < 0 or self.nanos < 0 else ""
        return f"{sign}{abs(self.seconds)}{_fraction(abs(self.nanos))}s"

    @classmethod
    def from_dict(cls, value: AnyValue, *, ignore_unknown_fields: bool = False) -> Self:
        """The inverse of `to_dict`."""
        if not isinstance(value, str):
            return _from_mapping(cls, value, ignore_unknown_fields)
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError(f"not a duration: {value!r}")
        sign = -1 if match[1] else 1
        nanos = int((match[3] or "0").ljust(9, "0"))
        return cls(seconds=sign * int(match[2]), nanos=sign * nanos)  # type: ignore[call-arg]


class _Wrapper:
    """A scalar that may be absent; as a field, the scalar or None."""

    if TYPE_CHECKING:
        value: AnyValue

    @classmethod
    def from_wrapped(cls, value: AnyValue) -> Self:
        """From the scalar."""
        return cls(value=value)  # type: ignore[call-arg]

    def to_wrapped(self) -> AnyValue:
        """The scalar."""
        return self.value

    def to_dict(self, **_options: AnyValue) -> AnyValue:
        """The JSON form is the scalar's."""
        form = betterproto2.Message.to_dict(self, **_options)  # type: ignore[arg-type]
        return form.get("value", self.value)

    @classmethod
    def from_dict(cls, value: AnyValue, *, ignore_unknown_fields: bool = False) -> Self:
        """The inverse of `to_dict`."""
        return _from_mapping(cls, {"value": value}, ignore_unknown_fields)


class BoolValue(_Wrapper): ...


class BytesValue(_Wrapper): ...


class DoubleValue(_Wrapper): ...


class FloatValue(_Wrapper): ...


class Int32Value(_Wrapper): ...


class Int64Value(_Wrapper): ...


class StringValue(_Wrapper): ...


class UInt32Value(_Wrapper): ...


class UInt64Value(_Wrapper): ...


class Value:
    """Any JSON value."""

    def to_dict(self, **options: AnyValue) -> AnyValue:
        """The JSON value itself. ValueError when no kind is set."""
        kind, value = betterproto2.which_one_of(self, "kind")  # type: ignore[arg-type]
        if not kind:
            raise ValueError("a google.protobuf.Value without a kind has no JSON form")
        if kind == "null_value":
            return None
        if kind in ("struct_value", "list_value"):
            return value.to_dict(**options)  # type: ignore[union-attr]
        return value

    @classmethod
    def from_dict(cls, value: AnyValue, *, ignore_unknown_fields: bool = False) -> Self:
        """From any JSON value."""
        names = cls._betterproto.cls_by_field  # type: ignore[attr-defined]
        if value is None:
            fields: dict[str, AnyValue] = {"null_value": names["null_value"](0)}
        elif isinstance(value, bool):
            fields = {"bool_value": value}
        elif isinstance(value, int | float):
            fields = {"number_value": float(value)}
        elif isinstance(value, str):
            fields = {"string_value": value}
        elif isinstance(value, Mapping):
            fields = {"struct_value": names["struct_value"].from_dict(value)}
        elif isinstance(value, list | tuple):
            fields = {"list_value": names["list_value"].from_dict(value)}
        else:
            raise TypeError(f"not a JSON value: {type(value).__name__}")
        return cls(**fields)


class Struct:
    """A JSON object."""

    if TYPE_CHECKING:
        fields: dict[str, AnyValue]

    def to_dict(self, **options: AnyValue) -> dict[str, AnyValue]:
        """The object as a dict."""
        return {key: value.to_dict(**options) for key, value in self.fields.items()}

    @classmethod
    def from_dict(cls, value: Mapping[str, AnyValue], *, ignore_unknown_fields: bool = False) -> Self:
        """From a dict of JSON values."""
        kind = cls._betterproto.cls_by_field["fields.value"]  # type: ignore[attr-defined]
        return cls(fields={key: kind.from_dict(item) for key, item in value.items()})  # type: ignore[call-arg]


class ListValue:
    """A JSON array."""

    if TYPE_CHECKING:
        values: list[AnyValue]

    def to_dict(self, **options: AnyValue) -> list[AnyValue]:
        """The array as a list."""
        return [value.to_dict(**options) for value in self.values]

    @classmethod
    def from_dict(cls, value: AnyValue, *, ignore_unknown_fields: bool = False) -> Self:
        """From a list of JSON values."""
        kind = cls._betterproto.cls_by_field["values"]  # type: ignore[attr-defined]
        return cls(values=[kind.from_dict(item) for item in value])  # type: ignore[call-arg]


def _fraction(nanos: int) -> str:
    """Nothing, or three, six or nine digits."""
    digits = f"{nanos:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}" if digits else ""


def _from_mapping(cls: type[T], value: AnyValue, ignore_unknown_fields: bool) -> T:
    return cls(**cls._from_dict_init(value, ignore_unknown_fields=ignore_unknown_fields))  # type: ignore[attr-defined]


def _pool() -> betterproto2.MessagePool:
    from meshnode.wire.message_pool import default_message_pool

    return default_message_pool


def _type_for(url: str, pool: betterproto2.MessagePool | None) -> type[betterproto2.Message]:
    known = (_pool() if pool is None else pool).url_to_type.get(url)
    if known is None:
        raise TypeError(f"no message class is loaded for {url!r}")
    return known
