"""flows steer rank: methods, spaces and models side by side, for each factor."""

from pathlib import Path

from flows.commands.common import print_table, write_json
from flows.errors import UserError
from flows.steering.ranking import HEAD, read_scores, worse_in_z, write_ranking


def rank(scores: list[Path], out: Path = Path("ranking"), json: Path | None = None) -> None:
    """One table of what `steer score` measured: for each factor, what leaks least first.

    Args:
        scores: files scores.json of `flows steer score`, of any models, spaces and methods.
        out: folder for index.html, leakage.png and ranking.json.
        json: file for the result, beside the one in `out`.
    """
    entries = sorted((entry for path in scores for entry in read_scores(path)), key=lambda each: each.order())
    if not entries:
        raise UserError("scores: none of the files has a direction")
    written = write_ranking(out, entries)
    notes = worse_in_z(entries)
    for path in (out / "ranking.json", json):
        write_json(path, {"entries": [vars(entry) for entry in entries], "worse_in_z": notes})
    print_table(list(HEAD), [entry.row() for entry in entries])
    for text in notes:
        print(text)
    print(f"written to {out}: {', '.join(written)}, ranking.json")
