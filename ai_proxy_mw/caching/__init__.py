"""Keeping answers, and giving them again to who asks the same."""
