"""Editing of one picture: moves of its code, strokes on layers, undo, and reproducible records."""
