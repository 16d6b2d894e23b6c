"""What the rows serve: one module each, with `make(upstream)` giving the application.

A module each, so that a row's process imports only what the row is about.
"""
