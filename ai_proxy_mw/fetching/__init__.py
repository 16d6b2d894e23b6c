"""Fetching pictures from addresses that a caller has written, without being led inside."""
