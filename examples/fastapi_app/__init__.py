"""A package for type checkers only: they would take the two examples' `app` for one module."""
