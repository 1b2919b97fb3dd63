"""One loop, resumable bit for bit, and what it needs."""
