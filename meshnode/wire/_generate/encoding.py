"""The encoding half of the codec: one function per message, a few straight lines per field.

An encoder appends the parts of the encoding to a list and returns their length. The head of a nested message
is a slot in that list, filled once the length is known.
"""

from __future__ import annotations

from meshnode.wire._generate.model import Field, Message
from meshnode.wire._generate.scope import Scope
from meshnode.wire._generate.writer import Writer

__all__ = ["write_encoder"]


def write_encoder(out: Writer, scope: Scope, message: Message) -> None:
    """Write `encode_<Message>(message, parts) -> size`."""
    with out.block(f"def encode_{message.ref.name}(m, parts)"):
        out.line("add = parts.append", "size = 0")
        for field in message.fields:
            out.line(f"v = m.{field.name}")
            if field.key is not None and field.value is not None:
                _map(out, scope, field, field.key, field.value)
            elif field.repeated:
                with out.block("if v"):
                    _repeated(out, scope, field)
            else:
                with out.block(f"if {_is_set(scope, field)}"):
                    _single(out, scope, field, field.tag)
        out.line("v = m._unknown_fields")
        with out.block("if v"):
            out.line("add(v)", "size += len(v)")
        out.line("return size", "")


def _is_set(scope: Scope, field: Field) -> str:
    if field.nullable:
        return "v is not None"
    if field.type in ("double", "float"):
        # Negative zero is not the default.
        return f"v or {scope.standard('math', 'copysign')}(1.0, v) < 0"
    return "v"


def _repeated(out: Writer, scope: Scope, field: Field) -> None:
    if not field.packable:
        with out.block("for v in v"):
            _single(out, scope, field, field.tag)
        return
    tag = field.number << 3 | 2
    if field.scalar.code:
        pack = scope.standard("struct", "pack")
        out.line(f'data = {pack}(f"<{{len(v)}}{field.scalar.code}", *v)')
    else:
        out.line(f'data = b"".join([{_varint(scope, field, "x")} for x in v])')
    _delimited(out, scope, tag, "data")


def _single(out: Writer, scope: Scope, field: Field, tag: int) -> None:
    """One value, which is in `v`."""
    if field.type == "message":
        _message(out, scope, field, tag)
    elif field.type == "string":
        out.line("v = v.encode()")
        _delimited(out, scope, tag, "v")
    elif field.type == "bytes":
        _delimited(out, scope, tag, "v")
    elif field.type == "bool" and not field.nullable and not field.repeated:
        true = _varint_bytes(tag) + b"\x01"
        out.line(f"add({true!r})", f"size += {len(true)}")
    elif field.scalar.code:
        pack = scope.standard("struct", "pack")
        head = _varint_bytes(tag)
        out.line(f"add({head!r} + {pack}('<{field.scalar.code}', v))")
        out.line(f"size += {len(head) + field.scalar.width}")
    else:
        out.line(f"v = {_varint_bytes(tag)!r} + {_varint(scope, field, 'v')}", "add(v)", "size += len(v)")


def _varint(scope: Scope, field: Field, value: str) -> str:
    """The expression for the bytes of a number."""
    if field.type == "bool":
        return f'(b"\\x01" if {value} else b"\\x00")'
    convert = scope.runtime("int32" if field.type == "enum" else field.type)
    if field.type.startswith("sint"):
        return f"{convert}({value})"
    small = scope.runtime("VARINT")
    return f"({small}[{value}] if 0 <= {value} < 128 else {convert}({value}))"


def _delimited(out: Writer, scope: Scope, tag: int, value: str) -> None:
    out.line(f"n = len({value})", f"head = {_head(scope, tag, 'n')}", "add(head)", f"add({value})")
    out.line("size += n + len(head)")


def _head(scope: Scope, tag: int, length: str) -> str:
    prefix = _varint_bytes(tag)
    small, large = scope.runtime("VARINT"), scope.runtime("varint")
    return f"{prefix!r} + ({small}[{length}] if {length} < 128 else {large}({length}))"


def _message(out: Writer, scope: Scope, field: Field, tag: int) -> None:
    assert field.target is not None
    encode = scope.function("encode", field.target)
    out.line("slot = len(parts)", 'add(b"")')
    out.line(f"n = {encode}({_unwrapped(scope, field)}, parts)")
    out.line(f"parts[slot] = head = {_head(scope, tag, 'n')}", "size += n + len(head)")


def _unwrapped(scope: Scope, field: Field) -> str:
    """The message for a plain value that betterproto2 puts in its place."""
    if field.wrapped is None:
        return "v"
    assert field.target is not None
    return f"{scope.cls(field.target)}.from_wrapped(v)"


def _map(out: Writer, scope: Scope, field: Field, key: Field, value: Field) -> None:
    with out.block("if v"):
        if key.type == value.type == "string":
            out.line(f"size += {scope.runtime('string_map')}({_varint_bytes(field.tag)!r}, v, parts)")
            return
        with out.block("for k, v in v.items()"):
            out.line("entry = len(parts)", 'add(b"")', "before = size")
            out.line("value = v", "v = k")
            _entry_part(out, scope, key)
            out.line("v = value")
            _entry_part(out, scope, value)
            out.line("n = size - before", f"parts[entry] = head = {_head(scope, field.tag, 'n')}")
            out.line("size += len(head)")


def _entry_part(out: Writer, scope: Scope, part: Field) -> None:
    """A key or a value: written even when it is the default, as protobuf does."""
    if part.type == "bool":
        out.line(f"add({_varint_bytes(part.tag)!r} + {_varint(scope, part, 'v')})", "size += 2")
    else:
        _single(out, scope, part, part.tag)


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
