"""What is written down of a call while it goes on."""

from __future__ import annotations


class Note:
    """One for each call; its record is made of it when the call is over."""
