"""The stores, each by itself."""
