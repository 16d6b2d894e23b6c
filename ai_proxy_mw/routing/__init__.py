"""Which upstream is asked, how often, and when to stop."""
"""Which upstream a call goes to, and what is done when it fails."""
