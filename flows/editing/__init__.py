"""One picture, edited: its code moved, its layers painted on, all of it undone and drawn again."""
