"""`flows completion`: print the script with which a shell completes verbs, options, models and configs."""

from pathlib import Path
from typing import Literal

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
    return script_file(shell).read_text(encoding="utf-8")


def script_file(shell: str) -> Path:
    """File of the script for a shell."""
    return FOLDER / f"flows.{shell}"
