"""Who is told of the calls that are over."""
