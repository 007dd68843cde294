"""Cryptography with keys that the node has: `crypto.dapr.localstorage` and `crypto.dapr.jwks`.

Imports meshnode.interfaces and meshnode.errors only.

    _keys.py          a key, and how it is read from PEM, base64 and bytes
    _jwk.py           JSON Web Keys
    _symmetric.py     algorithms of symmetric keys
    _asymmetric.py    algorithms of key pairs
    _provider.py      the operations, whatever the keys come from
    _localstorage.py  keys in files
    _jwks.py          keys in a set
"""

from meshnode_crypto_dapr._jwks import JwksOptions, jwks_driver
from meshnode_crypto_dapr._localstorage import LocalStorageOptions, localstorage_driver
from meshnode_crypto_dapr._provider import KeyProvider

__all__ = ["JwksOptions", "KeyProvider", "LocalStorageOptions", "jwks_driver", "localstorage_driver"]
