"""Personal data out of texts: what looks like it gives way to its name, as `<EMAIL_ADDRESS>`.

The entities are those that Dapr's documentation names, and zip codes, which it scrubs too. Every repetition
in the expressions is bounded, so a hostile text costs time in proportion to its length. Rather too much is
taken out than too little: a number of ten digits counts as a phone's.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["scrub"]

_STREETS = (
    "street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|square|sq|way|place|pl|"
    "terrace|parkway|pkwy|highway|hwy"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"

# In this order: what is longer or more particular first, so that no part of it is taken for something else.
_ENTITIES: Final = (
    ("<EMAIL_ADDRESS>", r"(?<![\w.%+-])[\w.%+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}"),
    ("<SHA_256_HEX>", r"\b[0-9a-f]{64}\b"),
    ("<SHA1_HEX>", r"\b[0-9a-f]{40}\b"),
    ("<MD5_HEX>", r"\b[0-9a-f]{32}\b"),
    ("<MAC_ADDRESS>", r"\b[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}\b"),
    ("<IP_ADDRESS>", rf"(?<![\d.]){_OCTET}(?:\.{_OCTET}){{3}}(?!\.?\d)"),
    ("<IP_ADDRESS>", r"(?<![:\w])[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){7}(?![:\w])"),
    (
        "<IP_ADDRESS>",
        r"(?<![:\w])(?=[0-9a-f:]{0,38}::)(?=:{0,2}[0-9a-f])"
        r"(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![:\w])",
    ),
    ("<ISBN>", r"\b(?:isbn(?:-1[03])?:? ?)?97[89](?:[ -]?\d){10}\b"),
    ("<ISBN>", r"\bisbn(?:-10)?:? ?\d(?:[ -]?\d){8}[ -]?[\dx]\b"),
    ("<PHONE_NUMBER>", r"(?<![\w+])\+\d(?:[ .()-]{0,2}\d){6,14}(?!\d)"),
    ("<CREDIT_CARD>", r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])"),
    ("<US_SSN>", r"(?<![\w-])\d{3}[- ]\d{2}[- ]\d{4}(?![\w-])"),
    ("<PHONE_NUMBER>", r"(?<![\w-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-]?)\d{3}[ .-]?\d{4}(?![\w-])"),
    ("<STREET_ADDRESS>", rf"\b\d{{1,6}}(?: [a-z0-9.'-]{{1,24}}){{1,4}} (?:{_STREETS})\b"),
    ("<ZIP_CODE>", r"(?<![\w.,-])\d{5}(?:-\d{4})?(?![\w-]|[.,]\d)"),
)
_FLAGS: Final = re.ASCII | re.IGNORECASE


def scrub(text: str) -> str:
    """The text without what looks like personal data.

    A megabyte takes the better part of a second: not for the event loop's thread. No expression goes beyond
    a line, so lines are taken one by one, between which the interpreter lets other threads go on.
    """
    return "\n".join(map(_scrub_line, text.split("\n")))


def _scrub_line(line: str) -> str:
    for mask, expression in _ENTITIES:
        line = re.sub(expression, mask, line, flags=_FLAGS)  # compiled by its first use
    return line
