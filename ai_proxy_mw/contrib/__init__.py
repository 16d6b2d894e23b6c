"""Ready-made ways into frameworks: the app's own users, by its own means."""
