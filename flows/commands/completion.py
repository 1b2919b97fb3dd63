"""`flows completion`: print the script with which a shell completes verbs, options, models and configs."""

from pathlib import Path
from typing import Literal

from flows.errors import UserError

FOLDER = Path(__file__).parent / "completions"
Shell = Literal["bash", "zsh"]


def completion(shell: Shell) -> None:
    """Print the script with which a shell completes verbs, options, names of models and configs.

    In bash, `eval "$(flows completion bash)"` in ~/.bashrc; in zsh, `flows completion zsh > _flows` in a
    folder of `$fpath`.

    Args:
        shell: Name of the shell.
    """
    print(script(shell), end="")


def script(shell: str) -> str:
    """Script for a shell, which `python -m flows.help` wrote."""
    path = FOLDER / f"flows.{shell}"
    if not path.is_file():
        raise UserError(f"there is no completion for {shell}, expected bash or zsh")
    return path.read_text(encoding="utf-8")
