"""Tables and texts for LaTeX: pure ASCII, which every engine typesets, with the package booktabs."""

import re
import unicodedata
from collections.abc import Sequence

from flows.display.table import NUMBER, Table, note_of

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "{''}", "`": "{`}",
    "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    # After a line break, brackets and stars would be read as its arguments.
    "[": "{[}", "]": "{]}", "*": "{*}", "\0": "{}",
}  # fmt: skip
"""Signs of ASCII that LaTeX reads as commands, or that its old fonts do not have."""
SIGNS = {
    "–": "--", "—": "---", "…": r"\ldots{}", "‘": "`", "’": "'", "“": "``", "”": "''",
    "\N{NO-BREAK SPACE}": "~", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "œ": r"\oe{}", "Œ": r"\OE{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "§": r"\S{}",
    "©": r"\copyright{}",
}  # fmt: skip
"""Other signs that have commands outside formulas."""
FORMULAS = {
    "±": r"\pm", "×": r"\times", "·": r"\cdot", "÷": r"\div", "−": "-", "≤": r"\leq", "≥": r"\geq",
    "≠": r"\neq", "≈": r"\approx", "∞": r"\infty", "√": r"\surd", "∂": r"\partial", "∈": r"\in", "→": r"\to",
    "←": r"\leftarrow", "↔": r"\leftrightarrow", "↦": r"\mapsto", "°": r"^{\circ}", "∑": r"\sum",
    "∏": r"\prod", "∫": r"\int", "∇": r"\nabla", "∘": r"\circ", "‖": r"\Vert", "ς": r"\varsigma",
    "ϕ": r"\phi",
}  # fmt: skip
"""Signs that have commands inside formulas."""
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
"""Commands of combining accents."""
GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
    "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
)  # fmt: skip
"""Greek letters that have commands, by these names."""
CAPITALS = {"gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "upsilon", "phi", "psi", "omega"}
"""Greek letters whose capitals have commands; the other capitals look like Latin ones."""
WIDTHS = ((75, ""), (95, r"\footnotesize"), (10_000, r"\scriptsize"))
"""Number of characters in a line up to which a size of the font fits on a page of one column."""
HEAD = 14
"""Number of characters from which the name of a column is broken into lines."""


def escape(text: str) -> str:
    """Text as LaTeX, in ASCII; a sign that its fonts lack, as those of Chinese, is its code point."""
    text = re.sub(r"[\s\0]+", " ", unicodedata.normalize("NFC", text))
    text = re.sub(r"([-,'])(?=\1)", "\\1\0", text)  # no ligatures: `--identity` is an option
    return "".join(map(_sign, text))


def _sign(sign: str) -> str:
    """One sign as LaTeX."""
    if sign in SPECIAL or sign in SIGNS:
        return SPECIAL.get(sign) or SIGNS[sign]
    if sign in FORMULAS:
        return rf"\ensuremath{{{FORMULAS[sign]}}}"
    if sign.isascii():
        return sign if sign.isprintable() else " "
    case, _, letter = unicodedata.name(sign, "").removeprefix("GREEK ").partition(" LETTER ")
    name = letter.lower().replace("lamda", "lambda")
    if name in GREEK and (case == "SMALL" or (case == "CAPITAL" and name in CAPITALS)):
        return rf"\ensuremath{{\{name if case == 'SMALL' else name.capitalize()}}}"
    kind, _, parts = unicodedata.decomposition(sign).rpartition(">")
    letters = "".join(chr(int(part, 16)) for part in parts.split())
    if kind in ("<super", "<sub"):
        return rf"\ensuremath{{{'^' if kind == '<super' else '_'}{{{_formula(letters)}}}}}"
    if len(letters) == 2 and letters[0].isascii() and letters[1] in ACCENTS:
        return rf"\{ACCENTS[letters[1]]}{{{letters[0]}}}"
    if kind and letters:  # a form of other signs, such as a ligature or a fraction
        return "".join(map(_sign, letters.replace("\N{FRACTION SLASH}", "/")))
    return rf"\texttt{{U+{ord(sign):04X}}}"


def _formula(text: str) -> str:
    """Signs inside a formula."""
    return "".join(FORMULAS.get(sign, sign if sign.isascii() else "") for sign in text)


# Tables -------------------------------------------------------------------------------------------


def as_latex(table: Table) -> str:
    r"""Table for `\input` in a `table` environment: a `tabular` with rules of booktabs, and notes.

    Figures of a column are aligned at their decimal points, by two columns without space in between. A unit
    that all figures of a column have stands in its head.

    Args:
        table: Table.
    """
    names, columns, kinds = [], [], []
    for i, right in enumerate(table.numeric()):
        name, cells = table.columns[i], [row[i] for row in table.rows]
        unit = common_unit(cells) if right else ""
        pairs = [split_figure(cell, unit) if right else (escape(cell), "") for cell in cells]
        wide = any(after for _, after in pairs)
        names.append(_head(name, unit, _mark(table, name), 2 if wide else 1, right))
        columns.append(
            [_joined(pair, _mark(table, cell), wide) for pair, cell in zip(pairs, cells, strict=True)]
        )
        kinds.append("r@{}l" if wide else "r" if right else "l")
    lines = [r"\toprule", _row(names), r"\midrule", *map(_row, zip(*columns, strict=True)), r"\bottomrule"]
    body = [rf"\begin{{tabular}}{{{''.join(kinds)}}}", *lines, r"\end{tabular}"]
    packages = "booktabs, threeparttable" if table.notes() else "booktabs"
    whole = in_size(with_notes(body, table.notes()), table)
    return "\n".join([rf"% \usepackage{{{packages}}}", *whole, ""])


def in_size(lines: list[str], table: Table) -> list[str]:
    """Lines of a table, in a smaller font if it is wide."""
    widths = [max(map(len, column)) for column in zip(*table.rows, strict=True)]
    size = next(size for most, size in WIDTHS if sum(widths) + 2 * len(widths) <= most)
    opening = rf"\begingroup{size}\setlength{{\tabcolsep}}{{4pt}}"
    return [opening, *lines, r"\endgroup"] if size else lines


def with_notes(body: list[str], notes: Sequence[str]) -> list[str]:
    """Lines of a table with numbered notes below it, as wide as the table."""
    if not notes:
        return body
    items = [rf"\item[{i}] {escape(note)}" for i, note in enumerate(notes, 1)]
    inner = [r"\begin{tablenotes}\footnotesize", *items, r"\end{tablenotes}"]
    return [r"\begin{threeparttable}", *body, *inner, r"\end{threeparttable}"]


def common_unit(cells: Sequence[str]) -> str:
    """Unit behind every figure of a column, "%" or "dB"; empty if there is none, or not behind all."""
    figures = [cell for cell in cells if cell not in ("", "–", "∞")]
    return next((unit for unit in ("%", "dB") if figures and all(f"{unit}" in each for each in figures)), "")


def split_figure(cell: str, unit: str = "") -> tuple[str, str]:
    """Figure as LaTeX, split at its decimal point: before it, and the rest.

    Args:
        cell: Text of the figure; see `table.NUMBER`.
        unit: Unit that is left out.
    """
    if not NUMBER.fullmatch(cell) or cell == "–":
        return escape(cell), ""
    text = cell.replace(f" {unit}", "") if unit else cell
    whole = re.match(r"[-+±]?(?:[\d,]+|[–∞])", text)
    end = whole.end() if whole else 0
    return _figure(text[:end]), _figure(text[end:])


def _figure(text: str) -> str:
    """Part of a figure, with minus signs and powers of ten as formulas."""
    pieces = re.split(r"(e[-+]?\d+|-(?=\d))", text)
    made = [
        rf"\ensuremath{{\cdot 10^{{{int(piece[1:])}}}}}" if piece.startswith("e") else r"\ensuremath{-}"
        for piece in pieces[1::2]
    ]
    plain = [escape(piece) for piece in pieces[::2]]
    return "".join(before + after for before, after in zip(plain, [*made, ""], strict=True))


def _mark(table: Table, cell: str) -> str:
    note = note_of(cell)
    return rf"\tnote{{{table.notes().index(note) + 1}}}" if note else ""


def _head(name: str, unit: str, mark: str, columns: int, right: bool) -> str:
    """Name of a column over its one or two columns, with the unit, in lines."""
    words = f"{name}, {unit}" if unit and not name.endswith(f", {unit}") else str(name)
    lines = [""]
    for word in words.split(" "):
        if lines[-1] and len(f"{lines[-1]} {word}") > HEAD:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    place = "c" if columns > 1 else "r" if right else "l"
    text = r" \\ ".join(map(escape, lines)) + mark
    if len(lines) > 1:
        text = rf"\begin{{tabular}}[b]{{@{{}}{place}@{{}}}}{text}\end{{tabular}}"
    return rf"\multicolumn{{{columns}}}{{c}}{{{text}}}" if columns > 1 else text


def _joined(pair: tuple[str, str], mark: str, wide: bool) -> str:
    before, after = pair
    return f"{before} & {after}{mark}" if wide else f"{before}{mark}"


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
