"""Package of one's own, which adds to flows by entry points; see docs/tutorials/add-a-model.md."""
