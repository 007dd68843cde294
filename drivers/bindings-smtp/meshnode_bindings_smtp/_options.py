"""The metadata fields of `bindings.smtp`."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["HIGHEST", "LOWEST", "Options"]

LOWEST, HIGHEST = 1, 5
_PER_REQUEST = "A request's metadata may say otherwise."


@final
@frozen
class Options:
    """Metadata of `bindings.smtp`."""

    host: str = option("host", "Name or address of the server.")
    port: int = option("port", "Its port; on 465 TLS begins with the connection.", default=587)
    user: str = option("user", "Whom to log in as; without it nobody logs in.", default="")
    password: str = option("password", "The user's password.", default="", secret=True)
    skip_tls_verify: bool = option(
        "skipTLSVerify", "Take any certificate the server shows. For tests only.", default=False
    )
    email_from: str = option("emailFrom", f"The sender. {_PER_REQUEST}", default="")
    email_to: str = option("emailTo", f"The receivers, separated by `;`. {_PER_REQUEST}", default="")
    email_cc: str = option("emailCC", f"Receivers of a copy. {_PER_REQUEST}", default="")
    email_bcc: str = option("emailBCC", f"Receivers whom nobody sees. {_PER_REQUEST}", default="")
    subject: str = option("subject", f"The subject. {_PER_REQUEST}", default="")
    priority: int = option("priority", f"`X-priority`, 1 to 5. {_PER_REQUEST}", default=3)

    def __attrs_post_init__(self) -> None:
        problems = []
        if not self.host:
            problems.append(Problem("is empty", field="host"))
        if not 0 < self.port < 65536:
            problems.append(Problem("is no port", field="port"))
        if bool(self.user) != bool(self.password):
            given, missing = ("user", "password") if self.user else ("password", "user")
            problems.append(Problem(f"is missing, but {given} is given", field=missing))
        if not LOWEST <= self.priority <= HIGHEST:
            problems.append(Problem(f"must be {LOWEST} to {HIGHEST}", field="priority"))
        if problems:
            raise ConfigError(problems)
