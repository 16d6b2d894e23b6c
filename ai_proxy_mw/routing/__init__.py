"""Which upstream is asked, how often, and when to stop."""
