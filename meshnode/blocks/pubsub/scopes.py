"""Which topics an application may publish to and subscribe to: the metadata `allowedTopics`,
`protectedTopics`, `publishingScopes` and `subscriptionScopes` of a pub/sub component. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

__all__ = ["SCOPE_METADATA", "TopicScopes"]

SCOPE_METADATA = ("allowedTopics", "protectedTopics", "publishingScopes", "subscriptionScopes")


@frozen
class TopicScopes:
    """The rules of one component for one application. None for a scope: the application is not named in it,
    so it may use every topic that is not protected.
    """

    allowed: frozenset[str] = frozenset()
    protected: frozenset[str] = frozenset()
    publishing: frozenset[str] | None = None
    subscribing: frozenset[str] | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, str], app_id: str) -> TopicScopes:
        return cls(
            _topics(metadata.get("allowedTopics", "")),
            _topics(metadata.get("protectedTopics", "")),
            _scope(metadata.get("publishingScopes", ""), app_id),
            _scope(metadata.get("subscriptionScopes", ""), app_id),
        )

    def may_publish(self, topic: str) -> bool:
        return self._may(topic, self.publishing)

    def may_subscribe(self, topic: str) -> bool:
        return self._may(topic, self.subscribing)

    def _may(self, topic: str, scope: frozenset[str] | None) -> bool:
        if self.allowed and topic not in self.allowed:
            return False
        if scope is None:
            return topic not in self.protected
        return topic in scope


def _topics(text: str) -> frozenset[str]:
    return frozenset(filter(None, (topic.strip() for topic in text.split(","))))


def _scope(text: str, app_id: str) -> frozenset[str] | None:
    """`app1=topic1,topic2;app2=`: the topics of one application; an empty list lets it use none."""
    found: frozenset[str] | None = None
    for part in text.split(";"):
        app, equals, topics = part.partition("=")
        if equals and app.strip() == app_id:
            found = (found or frozenset()) | _topics(topics)
    return found
