"""Many calls at once, against upstreams that fail and stores that go away."""
