"""The building blocks, one readable module each. They receive what they need by constructor and never import
`api`, `node` or `cli`.
"""
