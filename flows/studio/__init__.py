"""The studio: a page on which a person inverts, steers, paints and compares a picture."""
