"""The cryptography block. `subtle` has the operations on single values, `streams` encrypts and decrypts
documents of any size in Dapr's scheme `dapr.io/enc/v1`, which `scheme`, `manifest` and `segments` describe
without any I/O; `providers` has what both share.
"""

from meshnode.blocks.crypto.providers import CryptoProviders, Provider, build_providers
from meshnode.blocks.crypto.streams import CryptoStreams
from meshnode.blocks.crypto.subtle import SubtleCrypto

__all__ = ["CryptoProviders", "CryptoStreams", "Provider", "SubtleCrypto", "build_providers"]
