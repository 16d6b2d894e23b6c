"""What calls use, and what it costs."""
