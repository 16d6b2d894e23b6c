"""The page that shows the owner what the calls are like, and the data under it."""
