"""The verbs of the `flows` command: one file each, with a function of the file's name.

To add one: a new file with a function whose signature is the command line. Arguments without a default are
positional, the docstring is the help; nothing else is edited.
"""
