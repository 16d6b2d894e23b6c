"""From the bytes of a request to the call that they mean, or to an error that names the mistake."""
