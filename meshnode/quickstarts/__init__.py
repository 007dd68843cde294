"""Small meshes that ship with the program.

`meshnode new NAME` copies one out, `meshnode quickstart` runs one.
Their applications are ordinary programs written with Dapr's Python SDK; nothing in them imports meshnode's
node.
"""
