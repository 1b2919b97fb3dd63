"""`flows` command, also as `python -m flows`."""

from flows.errors import program


def main() -> None:
    """Import and run the command; an interruption while it is imported is one line, too."""
    with program():
        from flows.cli import main as run

        run()


if __name__ == "__main__":
    main()
