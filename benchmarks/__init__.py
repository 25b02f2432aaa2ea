"""How fast raftkv is beside others, and what the machine itself allows. ``scripts/bench`` is its door.

Measured, never assumed: no figure stands in here, and what cannot be started is named and left out.
"""
