"""The bindings block: `output` asks outside systems for something, `input` brings what they have to tell.

`components` has what both share: a component, its directions and its policies.
"""

from meshnode.blocks.bindings.components import Binding, build_bindings
from meshnode.blocks.bindings.input import InputBindings
from meshnode.blocks.bindings.output import OutputBindings

__all__ = ["Binding", "InputBindings", "OutputBindings", "build_bindings"]
