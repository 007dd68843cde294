"""JSON Web Keys (RFC 7517, 7518, 8037): `oct`, `RSA`, `EC` and `OKP` with Ed25519. No I/O."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshnode.errors import InvalidArgument
from meshnode_crypto_dapr._keys import Key, PrivateKey, PublicPart, key_of_pem, symmetric_key

__all__ = ["jwk_of", "key_of_jwk", "keys_of_set", "parse_key"]

_CURVES: Mapping[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
_NAMES = {curve.name: name for name, curve in _CURVES.items()}
_KEY_SIZES = (16, 24, 32)


def parse_key(data: bytes, kind: str = "") -> Key:
    """A key in whatever form it has; `kind` is `json` or `pem` where that is known. Raises
    `InvalidArgument`.
    """
    if not data:
        raise InvalidArgument("key is empty")
    if kind == "json" or (not kind and data.startswith(b"{") and len(data) not in _KEY_SIZES):
        try:
            return key_of_jwk(json.loads(data))
        except (ValueError, RecursionError):
            raise InvalidArgument("the key is not JSON") from None
    if kind == "pem" or (len(data) > 10 and data.startswith(b"-----")):
        return key_of_pem(data)
    return symmetric_key(data)


def keys_of_set(text: str | bytes) -> dict[str, Key]:
    """The keys of a JWKS that can be used, by `kid`. Raises `InvalidArgument` when the text is none."""
    try:
        content = json.loads(text)
        listed = content["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidArgument("is not a JSON Web Key Set") from None
    if not isinstance(listed, list):
        raise InvalidArgument("is not a JSON Web Key Set")
    found: dict[str, Key] = {}
    for fields in listed:
        try:
            key = key_of_jwk(fields)
        except InvalidArgument:
            continue  # RFC 7517 section 5: kinds of keys that are not understood are passed over
        if key.kid:
            found.setdefault(key.kid, key)
    return found


def key_of_jwk(fields: Any) -> Key:
    """Raises `InvalidArgument`."""
    try:
        material = _MATERIAL[fields["kty"]](fields)
        kid, algorithm, use = (fields.get(name, "") for name in ("kid", "alg", "use"))
        operations = fields.get("key_ops", [])
        if not all(isinstance(one, str) for one in (kid, algorithm, use, *operations)):
            raise ValueError("not text")
        return Key(material, kid, algorithm, use, frozenset(operations))
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm):
        # No part of the key may get into a message.
        raise InvalidArgument("the key is not a JWK that can be read") from None


def jwk_of(public: PublicPart, kid: str) -> str:
    """The JWK of a public key, as compact JSON."""
    fields: dict[str, str]
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        fields = {"kty": "RSA", "e": _text(numbers.e), "n": _text(numbers.n)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        point, size = public.public_numbers(), (public.curve.key_size + 7) // 8
        name = _NAMES.get(public.curve.name, public.curve.name)
        fields = {"kty": "EC", "crv": name, "x": _text(point.x, size), "y": _text(point.y, size)}
    else:
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        fields = {"kty": "OKP", "crv": "Ed25519", "x": _encoded(raw)}
    return json.dumps({**fields, "kid": kid} if kid else fields, separators=(",", ":"))


def _oct(fields: Mapping[str, Any]) -> bytes:
    return _bytes(fields["k"])


def _rsa(fields: Mapping[str, Any]) -> PrivateKey | PublicPart:
    public = rsa.RSAPublicNumbers(_int(fields["e"]), _int(fields["n"]))
    if "d" not in fields:
        return public.public_key()
    d = _int(fields["d"])
    if "p" in fields and "q" in fields:
        p, q = _int(fields["p"]), _int(fields["q"])
    else:
        p, q = rsa.rsa_recover_prime_factors(public.n, public.e, d)
    dmp1, dmq1, iqmp = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, dmp1, dmq1, iqmp, public).private_key()


def _ec(fields: Mapping[str, Any]) -> PrivateKey | PublicPart:
    curve = _CURVES[fields["crv"]]
    public = ec.EllipticCurvePublicNumbers(_int(fields["x"]), _int(fields["y"]), curve)
    if "d" not in fields:
        return public.public_key()
    return ec.EllipticCurvePrivateNumbers(_int(fields["d"]), public).private_key()


def _okp(fields: Mapping[str, Any]) -> PrivateKey | PublicPart:
    if fields["crv"] != "Ed25519":
        raise ValueError("unknown curve")
    if "d" in fields:
        return ed25519.Ed25519PrivateKey.from_private_bytes(_bytes(fields["d"]))
    return ed25519.Ed25519PublicKey.from_public_bytes(_bytes(fields["x"]))


_MATERIAL: Mapping[str, Any] = {"oct": _oct, "RSA": _rsa, "EC": _ec, "OKP": _okp}


def _bytes(text: str) -> bytes:
    padded = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)


def _int(text: str) -> int:
    return int.from_bytes(_bytes(text), "big")


def _text(number: int, size: int = 0) -> str:
    return _encoded(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
