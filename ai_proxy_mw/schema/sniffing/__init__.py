"""What a file really is, from its first bytes and its structure, without decoding it.

No I/O, and never more work than grows with the size of the file. Each reader takes a `Source`.
"""
