"""`flows steer rank`: rank directions of several methods, spaces and models by leakage."""

from pathlib import Path

from flows.commands.common import check_outputs, write_json
from flows.display.formats import Formats
from flows.errors import UserError
from flows.steering.ranking import ranking_table, read_scores, worse_in_z, write_ranking


def rank(
    scores: list[Path],
    out: Path = Path("ranking"),
    formats: Formats = Formats(),
    json: Path | None = None,
) -> None:
    """Rank directions by leakage for each factor, in one table of several results of `steer score`.

    Args:
        scores: Files scores.json of `flows steer score`, for any models, spaces and methods.
        out: Output folder for index.html, leakage.png and ranking.json.
        formats: Additional formats of tables and figures.
        json: Additional file for the contents of ranking.json.
    """
    check_outputs(out=out, json=json)
    entries = sorted((entry for path in scores for entry in read_scores(path)), key=lambda each: each.order())
    if not entries:
        raise UserError("scores: none of the files contains a direction")
    written = write_ranking(out, entries, formats.chosen)
    notes = worse_in_z(entries)
    for path in (out / "ranking.json", json):
        write_json(path, {"entries": [vars(entry) for entry in entries], "worse_in_z": notes})
    ranking_table(entries).print()
    for text in notes:
        print(text)
    print(f"written to {out}: {', '.join(written)}, ranking.json")
