"""bindings.smtp against aiosmtpd, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from hypothesis import given
from hypothesis import strategies as st
from meshnode_bindings_smtp import Options, driver
from meshnode_bindings_smtp._mail import compose
from support.certificates import Authority
from support.redis_servers import free_port

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import BindingError, ComponentUnavailable, ConfigError, InvalidArgument
from meshnode.interfaces import BindingRequest, DriverContext, OutputBinding
from meshnode.registry import load_options
from meshnode.testing.conformance import bindings

CONTEXT = DriverContext("mail", "app", wall=lambda: 1_800_000_000.0)
WHO = {"email_from": "Shop <shop@example.com>", "email_to": "ann@example.com", "subject": "Order"}


class Mailbox:
    """Keeps what the server took."""

    def __init__(self) -> None:
        self.envelopes = []

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused"):
            return "550 no such mailbox"
        if address.startswith("later"):
            return "451 try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.envelopes.append((envelope, session.ssl is not None, session.auth_data))
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    assert isinstance(data, LoginPassword)
    good = (data.login, data.password) == (b"me", b"secret")
    return AuthResult(success=good, handled=False, auth_data=(mechanism, data.login))


@pytest.fixture
def serve():
    """Starts servers; those that still run at the end are stopped."""
    running = []

    def start(*, port=None, **options):
        box = Mailbox()
        # A loop of its own kind: within trio-asyncio `asyncio.new_event_loop` makes trio's.
        loop = asyncio.SelectorEventLoop()
        controller = Controller(box, loop=loop, hostname="127.0.0.1", port=port or free_port(), **options)
        controller.start()
        running.append(controller)
        return controller, box

    yield start
    for controller in running:
        if controller.loop.is_running():
            controller.stop()


@pytest.fixture
def tls(tmp_path):
    _, certificate, key = Authority().write(tmp_path, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@asynccontextmanager
async def opened(port, **options):
    given_options = Options(host="127.0.0.1", port=port, **{**WHO, **options})
    async with asyncio_loop(True), driver.open(given_options, CONTEXT) as binding:
        yield binding


async def create(binding, data=b"<b>Hello</b>", **metadata):
    return await binding.invoke(BindingRequest("create", data, metadata))


def parsed(box):
    ((envelope, _, _),) = box.envelopes
    return envelope, email.message_from_bytes(envelope.content, policy=email.policy.default)


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_conformance(check, serve):
    server, _ = serve()
    example = BindingRequest("create", b"Hello")
    assert await check.run(bindings.OutputSetup(lambda: opened(server.port), example))


async def test_a_message_arrives(serve):
    server, box = serve()
    async with opened(
        server.port, email_cc="Bob <bob@example.com>; carl@example.com;", email_bcc="dora@example.com"
    ) as binding:
        assert isinstance(binding, OutputBinding)
        assert binding.operations == ("create",)
        result = await create(binding, "Grüße\n.\nund mehr".encode())
    assert (result.data, result.metadata) == (b"", {})
    envelope, message = parsed(box)
    assert envelope.mail_from == "shop@example.com"
    assert envelope.rcpt_tos == ["ann@example.com", "bob@example.com", "carl@example.com", "dora@example.com"]
    assert message["From"] == "Shop <shop@example.com>"
    assert message["To"] == "ann@example.com"
    assert message["Cc"] == "Bob <bob@example.com>, carl@example.com"
    assert message["Bcc"] is None
    assert message["Subject"] == "Order"
    assert message["X-priority"] == "3"
    assert message["Date"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    assert message.get_content_type() == "text/html"
    assert message.get_content() == "Grüße\r\n.\r\nund mehr\r\n"
    assert b"dora" not in envelope.content


async def test_a_request_has_the_last_word(serve):
    server, box = serve()
    async with opened(server.port, priority=2) as binding:
        await create(
            binding,
            b'"a \\"quoted\\" body"',
            emailFrom="other@example.com",
            emailTo="eve@example.com; fred@example.com",
            emailCC="gus@example.com",
            emailBCC="hal@example.com",
            subject="Ümläute ✓",
            priority="5",
        )
    envelope, message = parsed(box)
    assert envelope.mail_from == "other@example.com"
    assert envelope.rcpt_tos == ["eve@example.com", "fred@example.com", "gus@example.com", "hal@example.com"]
    assert message["Subject"] == "Ümläute ✓"
    assert message["X-priority"] == "5"
    assert message.get_content() == 'a "quoted" body\r\n'


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({"emailTo": " ; "}, "emailTo is missing"),
        ({"emailTo": "nobody"}, "emailTo: 'nobody' is no mail address"),
        ({"emailTo": "ann@exämple.com"}, "is no mail address that can be used"),
        ({"emailTo": "ann@example.com\r\nBcc: eve@example.com"}, "is no mail address"),
        ({"emailTo": "Ann\n <ann@example.com>"}, "is no mail address"),
        ({"emailFrom": "a@example.com; b@example.com"}, "emailFrom must be one address"),
        ({"emailCC": "@"}, "emailCC: '@' is no mail address"),
        ({"subject": "Order\r\nBcc: eve@example.com"}, "subject must be a single line"),
        ({"subject": "Order\n"}, "subject must be a single line"),
        ({"subject": "Order\u2028"}, "subject must be a single line"),
        ({"priority": "6"}, "priority: '6' is not a number from 1 to 5"),
        ({"priority": "high"}, "priority: 'high'"),
    ],
)
async def test_requests_that_can_never_be_right(metadata, complaint):
    async with opened(free_port()) as binding:
        with pytest.raises(InvalidArgument, match=complaint):
            await create(binding, **metadata)


async def test_what_is_missing_in_both_places():
    for name, attribute in [("emailFrom", "email_from"), ("emailTo", "email_to"), ("subject", "subject")]:
        async with opened(free_port(), **{attribute: ""}) as binding:
            with pytest.raises(InvalidArgument, match=f"{name} is missing"):
                await create(binding)


async def test_other_requests_that_are_wrong():
    async with opened(free_port()) as binding:
        with pytest.raises(InvalidArgument, match="must be text in UTF-8"):
            await create(binding, b"\xff\xfe")
        with pytest.raises(InvalidArgument, match="unsupported operation get"):
            await binding.invoke(BindingRequest("get"))


async def test_starttls_is_used_where_it_is_offered(serve, tls):
    server, box = serve(tls_context=tls, authenticator=authenticate)
    async with opened(server.port, user="me", password="secret", skip_tls_verify=True) as binding:
        await create(binding)
    ((_, encrypted, who),) = box.envelopes
    assert encrypted
    assert who[1] == b"me"


async def test_an_unknown_certificate_is_refused(serve, tls):
    server, box = serve(tls_context=tls)
    async with opened(server.port) as binding:
        with pytest.raises(ComponentUnavailable, match=r"(?i)certificate verify failed"):
            await create(binding)
    assert box.envelopes == []


async def test_tls_from_the_beginning(serve, tls, monkeypatch):
    server, box = serve(ssl_context=tls)
    monkeypatch.setattr("meshnode_bindings_smtp._send._TLS_PORT", server.port)
    async with opened(server.port, skip_tls_verify=True) as binding:
        await create(binding)
    assert len(box.envelopes) == 1


async def test_a_wrong_password(serve, tls):
    server, box = serve(tls_context=tls, authenticator=authenticate)
    async with opened(server.port, user="me", password="wrong", skip_tls_verify=True) as binding:
        with pytest.raises(BindingError, match="535") as caught:
            await create(binding)
    assert not isinstance(caught.value, ComponentUnavailable)
    assert "wrong" not in str(caught.value)
    assert box.envelopes == []


async def test_a_password_does_not_travel_in_the_clear(serve, monkeypatch):
    server, box = serve(authenticator=authenticate, auth_require_tls=False)
    async with opened(server.port, user="me", password="secret") as binding:
        await create(binding)  # to this machine it may
        monkeypatch.setattr("meshnode_bindings_smtp._send._LOCAL", ())
        with pytest.raises(BindingError, match="the password is not sent in the clear"):
            await create(binding)
    assert len(box.envelopes) == 1


async def test_a_server_without_log_in_gets_none(serve):
    server, box = serve()
    async with opened(server.port, user="me", password="secret") as binding:
        await create(binding)
    assert len(box.envelopes) == 1


async def test_all_recipients_or_none(serve):
    server, box = serve()
    async with opened(server.port) as binding:
        with pytest.raises(BindingError, match="no such mailbox") as refused:
            await create(binding, emailCC="refused@example.com")
        with pytest.raises(ComponentUnavailable, match="try again"):
            await create(binding, emailCC="later@example.com")
    assert not isinstance(refused.value, ComponentUnavailable)
    assert box.envelopes == []


async def test_the_server_goes_and_comes_back(serve):
    server, _ = serve()
    async with opened(server.port) as binding:
        await create(binding)
        server.stop()
        with pytest.raises(ComponentUnavailable, match="failed"):
            await create(binding)
        _, box = serve(port=server.port)
        await create(binding)
    assert len(box.envelopes) == 1


async def test_many_at_once(serve):
    server, box = serve()
    async with opened(server.port) as binding, trio.open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(create, binding, b"%d" % n)
    bodies = {envelope.content.rpartition(b"\r\n\r\n")[2].strip() for envelope, _, _ in box.envelopes}
    assert bodies == {b"%d" % n for n in range(10)}


@asynccontextmanager
async def scripted(*answers):
    """A server that gives these answers, one per line it reads, then falls silent.

    Yields its port, and events for its silence and for the client's going.
    """
    silent, gone = trio.Event(), trio.Event()

    async def talk(stream):
        try:
            for answer in answers:
                await stream.send_all(answer + b"\r\n")
                await stream.receive_some()
            silent.set()
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        gone.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, talk, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1], silent, gone
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answers", [(), (b"220 hello",), (b"220 hello", b"250 me", b"250 ok", b"250 ok", b"354 go")]
)
async def test_cancelled_it_goes_at_once(answers):
    async with scripted(*answers) as (port, silent, gone), opened(port) as binding:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(create, binding)
            await silent.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await gone.wait()


async def test_a_server_that_speaks_another_language():
    async with scripted(b"HTTP/1.1 400 Bad Request") as (port, _, _), opened(port) as binding:
        with pytest.raises((BindingError, ComponentUnavailable), match="failed"):
            await create(binding)


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({}, "host: is missing"),
        ({"host": ""}, "host: is empty"),
        ({"host": "h", "port": "0"}, "port: is no port"),
        ({"host": "h", "port": "many"}, "expected a whole number"),
        ({"host": "h", "user": "u"}, "password: is missing, but user is given"),
        ({"host": "h", "password": "p"}, "user: is missing, but password is given"),
        ({"host": "h", "priority": "6"}, "priority: must be 1 to 5"),
        ({"host": "h", "emailfrm": "x"}, "unknown metadata name .*emailFrom"),
        ({"host": "h", "skipTLSVerify": "perhaps"}, "expected true or false"),
    ],
)
def test_mistakes_in_the_metadata(metadata, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_options(Options, metadata)


def test_dapr_s_own_example_is_understood():
    options = load_options(
        Options,
        {
            "host": "h",
            "port": "25",
            "user": "u",
            "password": "p",
            "skipTLSVerify": "true",
            "emailFrom": "a@b.c",
        }
        | {"emailTo": "a@b.c", "emailCC": "a@b.c", "emailBCC": "a@b.c", "subject": "s", "priority": "1"},
    )
    assert (options.port, options.skip_tls_verify, options.priority) == (25, True, 1)
    assert "p'" not in repr(options)


@given(st.text(max_size=60), st.text(max_size=40))
def test_no_text_gets_into_the_header(subject, body):
    """Whatever a request says: it is refused, or it is one message with the headers it should have."""
    options = Options(host="h", **WHO)
    metadata = {"subject": subject, "emailCC": f"{subject} <cc@example.com>"}
    try:
        mail = compose(options, metadata, body.encode(errors="surrogatepass"), 0)
    except InvalidArgument:
        return
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    names = [
        "Cc",
        "From",
        "To",
        "Subject",
        "X-priority",
        "Date",
        "Content-Type",
        "Content-Transfer-Encoding",
        "MIME-Version",
    ]
    assert sorted(message.keys()) == sorted(names)
    assert mail.recipients == ("ann@example.com", "cc@example.com")
