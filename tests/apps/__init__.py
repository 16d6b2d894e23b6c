"""Apps that the tests serve as a user would, configured by environment."""
