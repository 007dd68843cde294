"""The metadata fields of `bindings.http`."""

from __future__ import annotations

from datetime import timedelta
from typing import final

import httpx
from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option
from meshnode_bindings_http._request import header_problem

__all__ = ["Options"]

_PEM = "in PEM, or the name of a file that holds it"


@final
@frozen
class Options:
    """Metadata of `bindings.http`."""

    url: str = option("url", "The endpoint; a request's `path` is put behind it.")
    response_timeout: timedelta | None = option(
        "responseTimeout",
        "How long one request may take; without it as long as the caller waits.",
        default=None,
    )
    max_response_body_size: int = option(
        "maxResponseBodySize",
        "How much of an answer's body is read; 0 or less: all of it.",
        default=100 << 20,
    )
    root_ca: str = option(
        "MTLSRootCA", f"The authority to trust instead of the system's, {_PEM}.", default=""
    )
    client_cert: str = option("MTLSClientCert", f"Certificate to show to the server, {_PEM}.", default="")
    client_key: str = option("MTLSClientKey", f"Its key, {_PEM}.", default="", secret=True)
    renegotiation: str = option(
        "MTLSRenegotiation",
        "Whether the server may ask for a new handshake (before TLS 1.3). OpenSSL cannot count: "
        "RenegotiateOnceAsClient means the same as RenegotiateFreelyAsClient.",
        default="RenegotiateNever",
        allowed=("RenegotiateNever", "RenegotiateOnceAsClient", "RenegotiateFreelyAsClient"),
    )
    security_token: str = option(
        "securityToken", "Token to send in the header `securityTokenHeader`.", default="", secret=True
    )
    security_token_header: str = option("securityTokenHeader", "The name of that header.", default="")
    error_if_not_2xx: bool = option(
        "errorIfNot2XX",
        "Whether an answer with another status is an error. A request may say otherwise.",
        default=True,
    )

    def __attrs_post_init__(self) -> None:
        problems = [*self._url_problems(), *self._pairs()]
        if self.response_timeout is not None and self.response_timeout <= timedelta(0):
            problems.append(Problem("must be above 0", field="responseTimeout"))
        if self.security_token_header and self.security_token:
            wrong = header_problem(self.security_token_header, self.security_token)
            if wrong:
                problems.append(Problem(wrong, field="securityTokenHeader"))
        if problems:
            raise ConfigError(problems)

    def _url_problems(self) -> list[Problem]:
        remedy = "such as http://host:8080/path"
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            return [Problem(f"is no URL: {error}", field="url", remedy=remedy)]
        if url.scheme not in ("http", "https") or not url.host:
            return [Problem("is no http or https URL with a host", field="url", remedy=remedy)]
        return []

    def _pairs(self) -> list[Problem]:
        """One without the other, which Dapr ignores: a request would go out without what it should have."""
        pairs = (
            ("MTLSClientCert", self.client_cert, "MTLSClientKey", self.client_key),
            ("securityTokenHeader", self.security_token_header, "securityToken", self.security_token),
        )
        return [
            Problem(f"is missing, but {name if value else other} is given", field=other if value else name)
            for name, value, other, other_value in pairs
            if bool(value) != bool(other_value)
        ]
