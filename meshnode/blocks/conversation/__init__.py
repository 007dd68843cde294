"""The conversation block: language models asked under their components' policies.

    components.py   from opened components to models
    converse.py     the two calls
    requests.py     from the wire to what a driver is asked
    results.py      and back
    scrub.py        personal data out of texts

The last three do no I/O.
"""

from meshnode.blocks.conversation.components import Model, build_models
from meshnode.blocks.conversation.converse import Conversing

__all__ = ["Conversing", "Model", "build_models"]
