"""The decoding half of the codec: one function per message, one branch per field.

A decoder keeps the fields in local variables, named `f_<field>`, until the message ends. It is given a
message to merge into when a field of message type comes more than once.
"""

from __future__ import annotations

from meshnode.wire._generate.model import Field, Message
from meshnode.wire._generate.scope import Scope
from meshnode.wire._generate.writer import Writer

__all__ = ["write_decoder"]

_DEFAULTS = {"string": '""', "bytes": 'b""', "bool": "False", "double": "0.0", "float": "0.0"}


def write_decoder(out: Writer, scope: Scope, message: Message) -> None:
    """Write `decode_<Message>(b, at, end, depth, m) -> message`."""
    for field in message.fields:
        if field.key is not None and field.value is not None and not _is_string_map(field):
            _write_entry_decoder(out, scope, message, field.key, field.value, _entry_name(message, field))
    with out.block(f"def decode_{message.ref.name}(b, at, end, depth, m=None)"):
        with out.block("if depth < 0"):
            out.line(f"raise {scope.runtime('too_deep')}()")
        _start(out, scope, message)
        with out.block("while at < end"):
            out.line("start = at", "tag = b[at]", "at += 1")
            with out.block("if tag > 127"):
                out.line(f"tag, at = {scope.runtime('long_tag')}(b, start)")
            _branches(out, scope, message)
        with out.block("if at != end"):
            out.line(f"raise {scope.runtime('truncated')}()")
        for field in message.fields:
            out.line(f"m.{field.name} = {_finished(field)}")
        out.line('m._unknown_fields = b"" if unknown is None else unknown', "return m", "")


def _start(out: Writer, scope: Scope, message: Message) -> None:
    with out.block("if m is None"):
        out.line(f"m = {scope.new()}({scope.cls(message.ref)})")
        for field in message.fields:
            out.line(f"f_{field.name} = {_initial(scope, field)}")
        out.line("unknown = None")
    with out.block("else"):
        for field in message.fields:
            out.line(f"f_{field.name} = {_resumed(scope, field)}")
        # A bytearray from here on, so that merging many times does not copy it as many times.
        out.line("unknown = m._unknown_fields")
        with out.block("if type(unknown) is bytes"):
            out.line("unknown = bytearray(unknown)")


def _initial(scope: Scope, field: Field) -> str:
    if field.key is not None:
        return "{}"
    if field.repeated:
        return "[]"
    if field.nullable:
        return "None"
    return _default(scope, field)


def _default(scope: Scope, field: Field) -> str:
    if field.type == "enum":
        assert field.target is not None
        name = scope.cls(field.target)
        return scope.constant(f"_{name}_0", f"{name}(0)")
    return _DEFAULTS.get(field.type, "0")


def _resumed(scope: Scope, field: Field) -> str:
    if field.wrapped is None or field.repeated:
        return f"m.{field.name}"
    assert field.target is not None
    return f"None if m.{field.name} is None else {scope.cls(field.target)}.from_wrapped(m.{field.name})"


def _finished(field: Field) -> str:
    name = f"f_{field.name}"
    if field.wrapped is None or field.repeated:
        return name
    return f"None if {name} is None else {name}.to_wrapped()"


def _branches(out: Writer, scope: Scope, message: Message) -> None:
    word = "if"
    for field in message.fields:
        with out.block(f"{word} tag == {field.tag}"):
            _branch(out, scope, message, field)
        word = "elif"
        if field.repeated and field.packable:
            with out.block(f"elif tag == {field.number << 3 | 2}"):
                _packed(out, scope, field)
    unknown = (f"at = {scope.runtime('skip')}(b, at, tag, depth)", *_KEEP_UNKNOWN)
    if word == "if":
        out.line(*unknown)
        return
    with out.block("else"):
        out.line(*unknown)


_KEEP_UNKNOWN = ("if unknown is None:", "    unknown = bytearray()", "unknown += b[start:at]")


def _branch(out: Writer, scope: Scope, message: Message, field: Field) -> None:
    name = f"f_{field.name}"
    if field.key is not None:
        decode = scope.runtime("string_entry") if _is_string_map(field) else _entry_name(message, field)
        _stop(out, scope)
        with out.block(f"if not {decode}(b, at, stop, depth - 1, {name})"):
            out.line("if unknown is None:", "    unknown = bytearray()", "unknown += b[start:stop]")
        out.line("at = stop")
    elif field.repeated:
        _value(out, scope, field, "v", "None")
        if field.wrapped is not None:
            out.line("v = v.to_wrapped()")
        out.line(f"{name}.append(v)")
    else:
        _value(out, scope, field, name, name)
        if field.rivals:
            out.line(" = ".join([f"f_{rival}" for rival in field.rivals]) + " = None")


def _value(out: Writer, scope: Scope, field: Field, to: str, existing: str) -> None:
    """Decode one value into the variable `to`; a message is merged into `existing`."""
    if field.type == "message":
        assert field.target is not None
        _stop(out, scope)
        decode = scope.function("decode", field.target)
        more = "" if existing == "None" else f", {existing}"
        out.line(f"{to} = {decode}(b, at, stop, depth - 1{more})", "at = stop")
    elif field.scalar.wire_type == 2:
        _length(out, scope)
        decode_text = ".decode()" if field.type == "string" else ""
        out.line(f"{to} = b[at : at + n]{decode_text}", "at += n")
    elif field.scalar.code:
        unpack = scope.standard("struct", "unpack_from")
        out.line(f"({to},) = {unpack}('<{field.scalar.code}', b, at)", f"at += {field.scalar.width}")
    else:
        _number(out, scope, field, to)


def _number(out: Writer, scope: Scope, field: Field, to: str) -> None:
    read = scope.runtime(_reader(field))
    out.line(f"{to} = b[at]")
    with out.block(f"if {to} < 128"):
        out.line("at += 1")
        if field.type == "bool":
            out.line(f"{to} = {to} != 0")
        elif field.type.startswith("sint"):
            out.line(f"{to} = {to} >> 1 ^ -({to} & 1)")
    with out.block("else"):
        out.line(f"{to}, at = {read}(b, at)")
    if field.type == "enum":
        assert field.target is not None
        name = scope.cls(field.target)
        members = scope.constant(f"_{name}_members", f"{name}._value2member_map_")
        out.line(f"e = {members}.get({to})", f"{to} = {name}({to}) if e is None else e")


def _reader(field: Field) -> str:
    return "read_int32" if field.type == "enum" else f"read_{field.type}"


def _packed(out: Writer, scope: Scope, field: Field) -> None:
    _stop(out, scope)
    name = f"f_{field.name}"
    if field.scalar.code:
        code, width = field.scalar.code, field.scalar.width
        call = f"{scope.runtime('packed_fixed')}(b, at, stop, '{code}', {width}, {name})"
    else:
        read = scope.runtime(_reader(field))
        call = f"{scope.runtime('packed_varints')}(b, at, stop, {read}, {name})"
    if field.type == "enum":
        assert field.target is not None
        out.line("v = []", call.replace(f", {name})", ", v)"))
        call = f"{name}.extend([{scope.cls(field.target)}(x) for x in v])"
    out.line(call, "at = stop")


def _length(out: Writer, scope: Scope) -> None:
    """The length of a field into `n`."""
    out.line("n = b[at]")
    with out.block("if n < 128"):
        out.line("at += 1")
    with out.block("else"):
        out.line(f"n, at = {scope.runtime('size')}(b, at)")


def _stop(out: Writer, scope: Scope) -> None:
    """The end of a field into `stop`, which must lie in the message."""
    _length(out, scope)
    out.line("stop = at + n")
    with out.block("if stop > end"):
        out.line(f"raise {scope.runtime('truncated')}()")


def _is_string_map(field: Field) -> bool:
    return (
        field.key is not None and field.value is not None and field.key.type == field.value.type == "string"
    )


def _entry_name(message: Message, field: Field) -> str:
    return f"_decode_{message.ref.name}_{field.name}"


def _write_entry_decoder(
    out: Writer, scope: Scope, message: Message, key: Field, value: Field, name: str
) -> None:
    """Write the function that adds one entry to a map; see `_runtime.string_entry` for its rules."""
    with out.block(f"def {name}(b, at, end, depth, mapping)"):
        with out.block("if depth < 0"):
            out.line(f"raise {scope.runtime('too_deep')}()")
        out.line(f"key = {_default(scope, key)}")
        out.line(f"value = {'None' if value.type == 'message' else _default(scope, value)}", "whole = True")
        with out.block("while at < end"):
            out.line("start = at", "tag = b[at]", "at += 1")
            with out.block("if tag > 127"):
                out.line(f"tag, at = {scope.runtime('long_tag')}(b, start)")
            with out.block(f"if tag == {key.tag}"):
                _value(out, scope, key, "key", "None")
            with out.block(f"elif tag == {value.tag}"):
                _value(out, scope, value, "value", "value")
            with out.block("else"):
                out.line(f"at = {scope.runtime('skip')}(b, at, tag, depth)", "whole = False")
        with out.block("if at != end"):
            out.line(f"raise {scope.runtime('truncated')}()")
        with out.block("if whole"):
            if value.type == "message":
                assert value.target is not None
                decode = scope.function("decode", value.target)
                with out.block("if value is None"):
                    out.line(f'value = {decode}(b"", 0, 0, depth - 1)')
            out.line(f"mapping[key] = value{'' if value.wrapped is None else '.to_wrapped()'}")
        out.line("return whole", "")
