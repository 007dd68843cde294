"""A request as a message, without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import final
from unicodedata import category

from attrs import frozen

from meshnode.errors import InvalidArgument
from meshnode.interfaces import unquoted
from meshnode_bindings_smtp._options import HIGHEST, LOWEST, Options

__all__ = ["Mail", "compose"]


@final
@frozen
class Mail:
    """What goes to the server: the envelope, and the message as it is sent."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


def compose(options: Options, metadata: Mapping[str, str], data: bytes, now: float) -> Mail:
    """Raises `InvalidArgument` for what can never be sent."""
    sender = _addresses("emailFrom", metadata.get("emailFrom") or options.email_from, needed=True)
    to = _addresses("emailTo", metadata.get("emailTo") or options.email_to, needed=True)
    cc = _addresses("emailCC", metadata.get("emailCC") or options.email_cc)
    bcc = _addresses("emailBCC", metadata.get("emailBCC") or options.email_bcc)
    subject = metadata.get("subject") or options.subject
    if not subject:
        raise InvalidArgument("subject is missing in the component's metadata and in the request's")
    if len(sender) > 1:
        raise InvalidArgument("emailFrom must be one address")
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"] = sender, to
    if cc:
        message["Cc"] = cc
    if not _one_line(subject):
        raise InvalidArgument("subject must be a single line")
    message["Subject"] = subject
    message["X-priority"] = str(_priority(metadata.get("priority", ""), options.priority))
    message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    message.set_content(_text(data), subtype="html", charset="utf-8", cte="quoted-printable")
    recipients = tuple(dict.fromkeys(one.addr_spec for one in (*to, *cc, *bcc)))
    return Mail(sender[0].addr_spec, recipients, message.as_bytes())


def _addresses(name: str, text: str, *, needed: bool = False) -> Sequence[Address]:
    found = [_address(name, one.strip()) for one in text.split(";") if one.strip()]
    if needed and not found:
        raise InvalidArgument(f"{name} is missing in the component's metadata and in the request's")
    return found


def _address(name: str, text: str) -> Address:
    display, spec = parseaddr(text)
    try:
        if not _one_line(text) or "@" not in spec or not spec.isascii():
            raise ValueError(text)
        return Address(display_name=display, addr_spec=spec)
    except (ValueError, IndexError, MessageError):
        raise InvalidArgument(f"{name}: {text!r} is no mail address that can be used") from None


def _one_line(text: str) -> bool:
    """Whether it has neither line ends nor control characters of any kind."""
    return not any(category(one) in ("Cc", "Zl", "Zp") for one in text)


def _priority(text: str, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and LOWEST <= int(text[:9]) <= HIGHEST):
        raise InvalidArgument(f"priority: {text!r} is not a number from {LOWEST} to {HIGHEST}")
    return int(text)


def _text(data: bytes) -> str:
    try:
        return unquoted(data).decode()
    except UnicodeDecodeError:
        raise InvalidArgument("the data of a mail must be text in UTF-8") from None
