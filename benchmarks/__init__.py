"""What a request through the proxy costs, against a yardstick measured in the same run."""
