"""Room for the bodies that are being read, on however many connections. Pure."""

from __future__ import annotations


class BodyRoom:
    """So many bytes, and who asks for more than is left is told so before a byte of the body is read."""

    __slots__ = ("_bytes_max", "taken_bytes")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.taken_bytes = 0
        """Of all bodies that are being read."""

    def take(self, body_bytes: int) -> bool:
        """Sets room aside; false: there is not so much left."""
        if self.taken_bytes + body_bytes > self._bytes_max:
            return False
        self.taken_bytes += body_bytes
        return True

    def give_back(self, body_bytes: int) -> None:
        """The body is there, or will not come."""
        self.taken_bytes -= body_bytes
