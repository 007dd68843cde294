"""The scheme `dapr.io/enc/v1`, without I/O: against bytes that an independent reading of the specification
makes here, and against every kind of damage.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.blocks.crypto.manifest import CIPHERS, Manifest, SchemeError, wrapping_named
from meshnode.blocks.crypto.scheme import DocumentKeys, HeaderReader, header_of
from meshnode.blocks.crypto.segments import SEGMENT, TAG, Segments

FILE_KEY, PREFIX = bytes(range(32)), b"prefix7"
SIZES = [0, 1, 15, 16, 17, SEGMENT - 17, SEGMENT - 16, SEGMENT - 1, SEGMENT, SEGMENT + 1, SEGMENT + 16]
SIZES += [SEGMENT + 17, 2 * SEGMENT - 1, 2 * SEGMENT, 2 * SEGMENT + 1, 3 * SEGMENT]


# --- the specification once more, in other words and on other primitives


def derived(info: bytes, salt: bytes | None) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(FILE_KEY)


def sealed_by_the_book(cipher: str, plain: bytes) -> bytes:
    key, out = derived(b"payload", PREFIX), b""
    pieces = [plain[at : at + 65536] for at in range(0, len(plain), 65536)]
    for number, piece in enumerate(pieces):
        nonce = PREFIX + number.to_bytes(4, "big") + (b"\1" if number == len(pieces) - 1 else b"\0")
        if cipher == "AES-GCM":
            worker = Cipher(AES(key), GCM(nonce)).encryptor()
            out += worker.update(piece) + worker.finalize() + worker.tag
        else:
            out += ChaCha20Poly1305(key).encrypt(nonce, piece, None)
    return out


def header_by_the_book(manifest: dict[str, Any]) -> bytes:
    signed = b"dapr.io/enc/v1\n" + json.dumps(manifest, separators=(",", ":")).encode() + b"\n"
    mac = hmac.new(derived(b"header", None), signed, hashlib.sha256).digest()
    return signed + base64.b64encode(mac) + b"\n"


# --- ours


def segments(cipher: str = "AES-GCM", *, decrypt: bool = False, key: bytes = FILE_KEY) -> Segments:
    return Segments(cipher, DocumentKeys.derive(key, PREFIX).payload, PREFIX, decrypt=decrypt)


def through(work: Segments, data: bytes, step: int = 0) -> bytes:
    step = step or max(len(data), 1)
    out = b"".join(one for at in range(0, len(data), step) for one in work.feed(data[at : at + step]))
    return out + work.finish()


def content(size: int) -> bytes:
    return hashlib.shake_128(b"content").digest(size)


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("size", SIZES)
def test_segments_are_those_of_the_specification(cipher: str, size: int) -> None:
    plain = content(size)
    expected = sealed_by_the_book(cipher, plain)
    assert through(segments(cipher), plain) == expected
    assert through(segments(cipher, decrypt=True), expected) == plain


@pytest.mark.parametrize("step", [1000, 2048, SEGMENT - 1, SEGMENT, SEGMENT + TAG, SEGMENT + 1])
def test_how_a_document_is_cut_up_makes_no_difference(step: int) -> None:
    plain = content(2 * SEGMENT + 5)
    sealed = sealed_by_the_book("AES-GCM", plain)
    assert through(segments(), plain, step) == sealed
    assert through(segments(decrypt=True), sealed, step) == plain


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(0, 2 * SEGMENT + 40) | st.integers(SEGMENT - 40, SEGMENT + 40),
    cipher=st.sampled_from(sorted(CIPHERS)),
    step=st.integers(500, 3 * SEGMENT),
    key=st.binary(min_size=32, max_size=32),
)
def test_what_is_encrypted_decrypts(size: int, cipher: str, step: int, key: bytes) -> None:
    sealed = through(segments(cipher, key=key), content(size), step)
    assert through(segments(cipher, decrypt=True, key=key), sealed, step) == content(size)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), cipher=st.sampled_from(sorted(CIPHERS)))
def test_a_flipped_bit_releases_nothing_of_its_segment(data: st.DataObject, cipher: str) -> None:
    plain = content(SEGMENT + 1000)
    sealed = bytearray(sealed_by_the_book(cipher, plain))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= 1 << data.draw(st.integers(0, 7))
    work, out = segments(cipher, decrypt=True), b""
    with pytest.raises(SchemeError, match="failed to decrypt segment"):
        for one in work.feed(bytes(sealed)):
            out += one
        out += work.finish()
    assert out == (b"" if at < SEGMENT + TAG else plain[:SEGMENT])


def test_a_document_that_was_cut_reordered_or_extended_does_not_decrypt() -> None:
    sealed = sealed_by_the_book("AES-GCM", content(3 * SEGMENT))
    whole = SEGMENT + TAG
    one, two, three = (sealed[at : at + whole] for at in range(0, len(sealed), whole))
    for wrong in (one, one + two, two + one + three, one + three, one + one + two + three, sealed + b"x"):
        with pytest.raises(SchemeError):
            through(segments(decrypt=True), wrong)
    for cut in (1, TAG, whole - 1, whole + 1, len(sealed) - 1):
        with pytest.raises(SchemeError):
            through(segments(decrypt=True), sealed[:cut])


def test_another_key_does_not_decrypt() -> None:
    with pytest.raises(SchemeError):
        through(segments(decrypt=True, key=bytes(32)), sealed_by_the_book("AES-GCM", b"secret"))


def test_no_more_than_a_segment_is_held() -> None:
    work, held = segments(), 0
    for _ in range(40):
        held += 10_000 - sum(len(one) - TAG for one in work.feed(content(10_000)))
        assert held <= SEGMENT


# --- headers

MANIFEST = {
    "k": "mykey",
    "kw": 5,
    "wfk": base64.b64encode(b"wrapped").decode(),
    "cph": 2,
    "np": base64.b64encode(PREFIX).decode(),
}
OURS = Manifest("RSA-OAEP-256", b"wrapped", "CHACHA20-POLY1305", PREFIX, "mykey")
KEYS = DocumentKeys.derive(FILE_KEY, PREFIX)


def test_a_header_is_that_of_the_specification() -> None:
    assert header_of(OURS, KEYS) == header_by_the_book(MANIFEST)
    without = Manifest("A256KW", b"w", "AES-GCM", PREFIX)
    fields = {"kw": 1, "wfk": "dw==", "cph": 1, "np": MANIFEST["np"]}
    assert header_of(without, KEYS) == header_by_the_book(fields)


@given(step=st.integers(1, 200))
def test_a_header_is_read_however_it_comes(step: int) -> None:
    data = header_by_the_book(MANIFEST) + b"segments\nand more"
    reader = HeaderReader()
    for at in range(0, len(data), step):
        found = reader.feed(data[at : at + step])
        if found is not None:
            header, rest = found
            assert header.manifest == OURS
            header.verify(KEYS)
            assert rest + data[at + step :] == b"segments\nand more"
            return
    pytest.fail("the header was not found")


@given(st.data())
def test_a_header_with_a_flipped_bit_is_refused(data: st.DataObject) -> None:
    good = header_by_the_book(MANIFEST)
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    reader = HeaderReader()
    try:
        found = reader.feed(bytes(changed))
        if found is None:
            raise reader.finish()
        found[0].verify(KEYS)
    except SchemeError:
        return
    # Base64 has bits behind its last byte that mean nothing.
    assert base64.b64decode(bytes(changed).split(b"\n")[2]) == base64.b64decode(good.split(b"\n")[2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"kw": 6}, {"kw": True}, {"kw": "5"}, {"cph": 3}, {"np": "AAAA"}, {"np": 7}, {"wfk": ""},
        {"wfk": "?"},
        {"k": 1},
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SchemeError, match="invalid manifest"):
        HeaderReader().feed(header_by_the_book({**MANIFEST, **wrong}))


@pytest.mark.parametrize("line", [b"{}", b"[]", b"1", b"null", b"\xff", b"{", b"[" * 5000])
def test_what_is_no_manifest_is_refused(line: bytes) -> None:
    with pytest.raises(SchemeError, match="invalid manifest"):
        HeaderReader().feed(b"dapr.io/enc/v1\n" + line + b"\nbWFj\n")


@given(st.binary(max_size=300))
def test_anything_may_come(data: bytes) -> None:
    for start in (b"", b"dapr.io/enc/v1\n"):
        try:
            assert HeaderReader().feed(start + data) is None
        except SchemeError:
            pass


def test_a_header_without_end_is_refused() -> None:
    reader = HeaderReader()
    assert reader.feed(b"dapr.io/enc/v1\n{") is None
    with pytest.raises(SchemeError):
        for _ in range(70):
            reader.feed(b" " * 1000)


def test_names_of_algorithms() -> None:
    assert wrapping_named("rsa") == wrapping_named("RSA-OAEP-256") == "RSA-OAEP-256"
    assert wrapping_named("AES") == "A256KW"
    with pytest.raises(SchemeError, match="A128KW is not supported"):
        wrapping_named("a128kw")
