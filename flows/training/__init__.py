"""Training loop, resumable bit for bit, and its parts."""
