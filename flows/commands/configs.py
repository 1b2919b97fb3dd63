"""`flows configs`: list the configs that come with flows."""

import re
import textwrap
from pathlib import Path

from flows.core.checks import check_name
from flows.errors import UserError
from flows.storage.configs import config_names, header, packaged_config

WIDTH = 100
INDENT = "    "


def configs(show: str | None = None, json: Path | None = None) -> None:
    """List the configs that come with flows, with their measured figures.

    `flows train --config fashion/glow` trains with one of them; `steering/pca` is for `flows steer find`, and
    the header of each config has its command.

    Args:
        show: Name of a config whose text is printed, for a copy to change: `--show digits/glow > mine.yaml`.
        json: File for the list: the sentences on each config by its name.
    """
    if show is not None and json is not None:
        raise UserError("--json is for the list, and --show prints one config: give one of both")
    if show is not None:
        check_name("--show ", show, config_names(), "flows configs")
        print(packaged_config(show).read_text(encoding="utf-8"), end="")
        return
    known = {name: _summary(header(packaged_config(name))) for name in config_names()}
    if json is not None:
        from flows.commands.common import check_outputs, write_json  # here, because they import torch

        check_outputs(json=json)
        write_json(json, {"configs": known})
    for name, texts in known.items():
        print(name)
        for text in texts:
            print(textwrap.fill(text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT))


def _summary(paragraphs: list[str]) -> list[str]:
    """First sentence of a header, and the first sentence of its paragraph of figures."""
    figures = [text for text in paragraphs[1:] if text.startswith(("Measured", "Figure"))]
    return [
        re.split(r"(?<=[a-z0-9)\]])\. (?=[A-Z])", text)[0].rstrip(".") + "."
        for text in [*paragraphs[:1], *figures]
    ]
