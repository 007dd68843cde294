"""One message to the server, over a connection of its own, as Dapr does it. Runs on the asyncio side."""

from __future__ import annotations

import asyncio
import ssl

from aiosmtplib import SMTP, SMTPException

from meshnode.errors import BindingError
from meshnode_bindings_smtp._mail import Mail
from meshnode_bindings_smtp._options import Options

__all__ = ["send", "tls_context"]

_CONNECTING = 10.0
"""Seconds, as in Dapr."""

_SILENCE = 60.0
"""A server that does not answer for as long as this is gone. (The caller's deadline comes first.)"""

_GOODBYE = 2.0

_TLS_PORT = 465
_LOCAL = ("localhost", "127.0.0.1", "::1")


async def send(options: Options, tls: ssl.SSLContext, mail: Mail) -> None:
    """Returns once the server has taken the message; it goes to all recipients or to none."""
    smtp = SMTP(
        hostname=options.host,
        port=options.port,
        local_hostname="localhost",
        timeout=_SILENCE,
        use_tls=options.port == _TLS_PORT,
        start_tls=False if options.port == _TLS_PORT else None,  # None: where the server offers it
        tls_context=tls,
    )
    try:
        await smtp.connect(timeout=_CONNECTING)
        await _log_in(smtp, options)
        await smtp.mail(mail.sender)
        for recipient in mail.recipients:
            await smtp.rcpt(recipient)
        await smtp.data(mail.content)
        try:
            await smtp.quit(timeout=_GOODBYE)
        except (SMTPException, OSError):
            pass  # the message is taken
    finally:
        await _hang_up(smtp)


async def _hang_up(smtp: SMTP) -> None:
    """The socket is closed when this returns; a server that does not answer is not asked for its consent."""
    transport = smtp.transport
    smtp.close()
    if isinstance(transport, asyncio.Transport):
        transport.abort()
    await asyncio.sleep(0)  # the loop closes sockets in its next pass, those too that the library has dropped


async def _log_in(smtp: SMTP, options: Options) -> None:
    """Like Go's client: a server that knows no log-in gets none, and a password does not travel in the
    clear.
    """
    if not options.user:
        return
    if smtp.is_ehlo_or_helo_needed:  # what the server said before TLS is forgotten
        await smtp.ehlo()
    if not smtp.supports_extension("auth"):
        return
    if smtp.get_transport_info("sslcontext") is not None or options.host in _LOCAL:
        await smtp.login(options.user, options.password)
    elif "cram-md5" in smtp.supported_auth_methods:
        await smtp.auth_crammd5(options.user, options.password)
    else:
        raise BindingError(f"{options.host} offers no TLS; the password is not sent in the clear")


def tls_context(options: Options) -> ssl.SSLContext:
    """Reads the system's authorities, which takes a while."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
