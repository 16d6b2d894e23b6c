"""The rooms of the corridor. Each is one file, and none knows another."""
