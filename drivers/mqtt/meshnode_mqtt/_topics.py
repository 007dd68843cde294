"""Topics and topic filters. No I/O."""

from __future__ import annotations

import re

__all__ = ["check_filter", "check_topic", "matches", "without_share"]

_SHARE = re.compile(r"\$share/[^/+#]+/(?=.)")


def without_share(pattern: str) -> str:
    """`$share/GROUP/topic` asks for a part of `topic`'s messages, which come as `topic`'s."""
    return _SHARE.sub("", pattern, count=1) if pattern.startswith("$share/") else pattern


def matches(pattern: str, topic: str) -> bool:
    """`+` stands for one level, a final `#` for any number of them, and neither for a first one with `$`."""
    wanted, levels = without_share(pattern).split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(levels) or level not in ("+", levels[position]):
            return False
    return len(wanted) == len(levels)


def check_topic(topic: str) -> str:
    """What is wrong with a topic to publish to; empty if nothing is."""
    if not topic:
        return "the topic is empty"
    if any(sign in topic for sign in "+#\0"):
        return f"{topic!r}: a topic to publish to has no wildcards"
    return ""


def check_filter(pattern: str) -> str:
    """What is wrong with a topic to subscribe to."""
    levels = pattern.split("/")
    if not pattern:
        return "the topic is empty"
    if "\0" in pattern or without_share(pattern).startswith("$share/"):
        return f"{pattern!r} is no topic"
    if any(("#" in level or "+" in level) and len(level) > 1 for level in levels) or "#" in levels[:-1]:
        return f"{pattern!r}: + is a level of its own, and # the last one"
    return ""
