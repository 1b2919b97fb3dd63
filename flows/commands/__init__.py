"""Verbs of the `flows` command, one per file, as a function with the name of the file.

To add a verb, add a file with such a function; no other file changes. The signature defines the options and
the docstring the help. Arguments without a default are positional, except lists of strings.
"""
