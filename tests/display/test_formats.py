"""Formats for a paper: LaTeX is read back by a parser of its own, PDF by its objects; notes of tables."""

import inspect
import io
import json
import re
import shutil
import subprocess
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from verbs import RUNS, bundled, words_of

from flows.cli import commands, main
from flows.display.drawing import Sheet, encode_figure, new_figure
from flows.display.formats import Formats, write_tables, write_vectors
from flows.display.latex import as_latex, escape
from flows.display.page import heat_map, save_sheet, write_page
from flows.display.table import Noted, Table
from flows.errors import UserError

NOTED = Table(
    [
        "model_a & b",
        "test, dB",
        Noted("seconds / image", "searches minimise 50 % of $x^2$"),
        "bit-exact",
        "error",
    ],
    [
        ["glow_#1 ~ \\a{b}", "28.8 (27.1 … 30.2)", "0.00032", "100 %", "1e-05"],
        ["[x] *y* <z|>", Noted("–", "impossible: σ ≥ ½"), "–", "–", "-2"],
        ["Müller & Čapek", "∞", "1.4", "0 %", "12.5"],
        ["--identity", Noted("9.5", "impossible: σ ≥ ½"), Noted("2", "another"), "5 %", "0"],
    ],
)


# Reading LaTeX back -------------------------------------------------------------------------------

READ = {
    r"\textbackslash": "\\", r"\textasciitilde": "~", r"\textasciicircum": "^", r"\textless": "<",
    r"\textgreater": ">", r"\textbar": "|", r"\ldots": "…", r"\pm": "±", r"\times": "×", r"\geq": "≥",
    r"\leq": "≤", r"\alpha": "α", r"\sigma": "σ", r"\Omega": "Ω", r"\lambda": "λ", r"\infty": "∞",
    r"\cdot": "·", r"\surd": "√", r"\to": "→", r"\ss": "ß", r"\approx": "≈", r"\circ": "∘",
}  # fmt: skip
"""Meaning of the commands that the tests use, written down independently of the writer."""
COMBINING = {"'": "\u0301", '"': "\u0308", "v": "\u030c", "~": "\u0303", "`": "\u0300", "c": "\u0327"}


class Reader:
    """Strict reader of the LaTeX of tables: unknown commands, loose braces and bare signs are errors."""

    def __init__(self, text):
        assert text.isascii() and "\0" not in text
        self.text, self.at = text, 0

    def rest(self):
        return self.text[self.at :]

    def group(self):
        """Text of a group in braces, raw."""
        assert self.text[self.at] == "{", self.rest()[:40]
        depth, start = 0, self.at + 1
        while True:
            sign = self.text[self.at]
            self.at += 2 if sign == "\\" else 1
            depth += {"{": 1, "}": -1}.get(sign, 0)
            if depth == 0:
                return self.text[start : self.at - 1]

    def command(self):
        name = re.match(r"\\([A-Za-z]+\*?|.)", self.rest(), re.S)[0]
        self.at += len(name)
        return name


def plain(text):
    """Text that LaTeX typesets, in Unicode."""
    reader, said = Reader(text), ""
    while reader.at < len(text):
        sign = text[reader.at]
        if sign == "\\":
            name = reader.command()
            if name[1] in "&%_#${}":
                said += name[1]
            elif name == r"\ensuremath":
                said += formula(reader.group())
            elif name == r"\texttt":
                said += chr(int(reader.group().removeprefix("U+"), 16))
            elif name[1] in COMBINING and len(name) == 2:
                said += unicodedata.normalize("NFC", reader.group() + COMBINING[name[1]])
            else:
                said += READ[name]
                assert reader.rest().startswith("{}"), "a command would swallow the space behind it"
                reader.group()
        elif sign == "{":
            said += plain(reader.group())
        else:
            assert sign not in "}&%_#$^", f"a bare {sign} in {text!r}"
            assert sign not in '<>|"', f"{sign} is another sign in LaTeX's old fonts"
            double = re.match("---?", reader.rest())
            said += {None: sign, 2: "–", 3: "—"}[double and len(double[0])]
            reader.at += len(double[0]) if double else 1
    return said


def formula(text):
    for name, sign in READ.items():
        text = re.sub(rf"\{name}(?![A-Za-z])", lambda _, sign=sign: sign, text)
    power = re.fullmatch(r"· 10\^\{(-?\d+)\}", text)
    if power:
        return f"e{power[1]}"
    raised = re.fullmatch(r"\^\{(\d)\}", text)
    text = {"2": "²", "3": "³"}[raised[1]] if raised else text
    assert "\\" not in text, text
    return text


def split_cells(line):
    """Cells of a line of a tabular, at its bare &."""
    reader, cells = Reader(line), [""]
    while reader.at < len(line):
        if line[reader.at] == "\\":
            cells[-1] += reader.command()
        elif line[reader.at] == "{":
            cells[-1] += f"{{{reader.group()}}}"
        elif line[reader.at] == "&":
            cells.append("")
            reader.at += 1
        else:
            cells[-1] += line[reader.at]
            reader.at += 1
    return [cell.strip() for cell in cells]


def read_latex(text):
    """Kinds of columns, head, rows and notes of a table that `as_latex` wrote; cells as (text, note)."""
    comment, *lines = text.splitlines()
    assert comment.startswith("% ") and not any("%" in line.replace(r"\%", "") for line in lines)
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened and text.count(r"\begingroup") == text.count(r"\endgroup")
    inner = re.search(
        r"^\\begin\{tabular\}\{(.*)\}\n\\toprule\n(.*)\\\\\n\\midrule\n(.*)\n\\bottomrule", text, re.M | re.S
    )
    kinds = re.findall(r"r@\{\}l|[lr]", inner[1])
    assert "".join(kinds) == inner[1], "no rule and no space that booktabs advises against"
    width = sum(len(kind) > 1 for kind in kinds) + len(kinds)
    notes = [plain(note) for note in re.findall(r"^\\item\[\d+\] (.*)$", text, re.M)]
    numbers = [int(number) for number in re.findall(r"^\\item\[(\d+)\]", text, re.M)]
    assert numbers == list(range(1, len(notes) + 1)) and ("threeparttable" in comment) == bool(notes)

    def noted(cell):
        mark = re.search(r"\\tnote\{(\d+)\}$", cell)
        cell = cell[: mark.start()] if mark else cell
        stacked = re.fullmatch(
            r"\\begin\{tabular\}\[b\]\{@\{\}[lcr]@\{\}\}(.*?)(?:\\tnote\{(\d+)\})?\\end\{tabular\}", cell
        )
        if stacked:
            mark = mark or (stacked[2] and [None, stacked[2]])
            cell = stacked[1].replace(r" \\ ", " ")
        return plain(cell.strip()), notes[int(mark[1]) - 1] if mark else ""

    names = []
    for cell, kind in zip(split_cells(inner[2]), kinds, strict=True):
        spanning = re.fullmatch(r"\\multicolumn\{2\}\{c\}\{(.*)\}", cell)
        assert bool(spanning) == (len(kind) > 1)
        names.append(noted(spanning[1] if spanning else cell))
    rows = []
    for line in inner[3].splitlines():
        assert line.endswith(r" \\") and not line.startswith(("[", "*"))
        cells = split_cells(line.removesuffix(r"\\"))
        assert len(cells) == width
        row = []
        for kind in kinds:
            whole = cells.pop(0)
            row.append(noted(whole + cells.pop(0) if len(kind) > 1 else whole))
        rows.append(row)
    return kinds, names, rows, notes


def shown(cell):
    """Text of a cell as a reader of the paper sees it, with numbers as Python writes them."""
    text = re.sub(r" ?%", "", cell)
    return re.sub(r"e-0?(\d+)", r"e-\1", text)


def test_a_table_is_read_back_from_its_latex():
    kinds, names, rows, notes = read_latex(as_latex(NOTED))
    assert kinds == ["l", "r@{}l", "r@{}l", "r", "r@{}l"]
    assert [name for name, _ in names] == [
        "model_a & b",
        "test, dB",
        "seconds / image",
        "bit-exact, %",
        "error",
    ]
    assert [[text for text, _ in row] for row in rows] == [
        [shown(cell) for cell in row] for row in NOTED.rows
    ]
    assert notes == [note.replace("½", "1/2") for note in NOTED.notes()] and len(notes) == 3
    assert (
        names[2][1] == notes[0] and rows[1][1][1] == rows[3][1][1] == notes[1] and rows[3][2][1] == notes[2]
    )


def test_figures_are_aligned_at_their_decimal_points():
    lines = [
        line for line in as_latex(NOTED).splitlines() if line.endswith(r" \\") and "multicolumn" not in line
    ]
    before, after = zip(*(split_cells(line.removesuffix(r"\\"))[3:5] for line in lines), strict=True)
    assert before == ("0", "--", "1", "2") and after == (".00032", "", ".4", r"\tnote{3}")


@pytest.mark.parametrize(
    "text",
    [
        "50 % of A_b & c#d $5 {e} ~f ^g \\h", "± × ≥ ≤ σ Ω λ √ ∞ → ≈ ∘ ß", "a – b — c …", "[0] *x* <y> |z|",
        "--option ---x", "Çelik, Señor, Čapek, naïve à", "R² m³", "日本", "🙂", "a\tb",
        "\\textbf{x}\\input{y}",
    ],
)  # fmt: skip
def test_any_text_is_pure_ascii_that_says_the_same(text):
    assert plain(escape(text)) == text.replace("\t", " ")


def test_every_letter_of_unicode_can_be_typeset():
    """Nothing but ASCII, balanced braces, and no command that LaTeX lacks."""
    greek = (
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon "
    )
    greek += "phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
    others = "ensuremath texttt u r H v c ae AE o O oe OE l L i S copyright div neq partial in leftarrow "
    others += "leftrightarrow mapsto sum prod int nabla Vert varsigma"
    signs = "&%_#${}`'^~=.\""
    known = {*READ, *(rf"\{sign}" for sign in signs), *(rf"\{name}" for name in f"{greek} {others}".split())}
    for code in [*range(0x20, 0x3000), *range(0xFB00, 0xFB10)]:
        made = escape(f"x {chr(code)} y")
        assert made.isascii() and made[0] == "x" and made[-1] == "y", hex(code)
        names = re.findall(r"\\(?:[A-Za-z]+|.)", made)
        assert set(names) <= known, (hex(code), made)
        bare = re.sub(r"\\[{}]", "", made)
        assert bare.count("{") == bare.count("}"), made


@pytest.mark.long
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX here")
def test_latex_typesets_the_table(tmp_path):
    (tmp_path / "t.tex").write_text(as_latex(NOTED))
    head = r"\documentclass{article}\usepackage{booktabs,threeparttable}\begin{document}"
    (tmp_path / "x.tex").write_text(head + r"\begin{table}\input{t}\caption{A}\end{table}\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


# Notes --------------------------------------------------------------------------------------------


def test_equal_sentences_share_a_number_in_every_form(capsys):
    table = Table(
        ["a", "b"], [["x", Noted("–", "why not")], ["y", Noted("–", "other")], ["z", Noted("–", "why not")]]
    )
    table.print()
    printed = capsys.readouterr().out
    text, page, latex = table.markdown(), table.html(), as_latex(table)
    forms = {"– [{}]": (printed, text), "–<sup>{}</sup>": (page,), r"--\tnote{{{}}}": (latex,)}
    for mark, form in ((mark, form) for mark, some in forms.items() for form in some):
        assert form.count("why not") == form.count("other") == 1, "a sentence stands once, below the table"
        places = [form.index(mark.format(1)), form.index(mark.format(2)), form.rindex(mark.format(1))]
        assert places == sorted(places) and places[2] < form.index("why not") < form.index("other")


def test_a_table_without_notes_has_neither_marks_nor_their_package():
    table = Table(["a", "b"], [["x", "1"]])
    assert table.markdown() == "| a | b |\n| --- | --: |\n| x | 1 |\n" and "<p>" not in table.html()
    assert "threeparttable" not in as_latex(table)


# Figures ------------------------------------------------------------------------------------------


def streams(pdf):
    """Dictionary and content of every stream of a PDF of matplotlib, decompressed."""
    for found in re.finditer(rb"<<((?:(?!endobj).)*?)>>\s*stream\r?\n(.*?)\r?\nendstream", pdf, re.S):
        yield found[1], zlib.decompress(found[2]) if b"FlateDecode" in found[1] else found[2]


def images_of(pdf):
    return [(head, content) for head, content in streams(pdf) if b"/Subtype /Image" in head]


def curves():
    figure = new_figure(3, 2)
    axes = figure.subplots()
    axes.plot([0, 1, 2], [0, 1, 4])
    axes.set_title("change, in σ ± ½")
    return figure


def test_a_figure_of_curves_is_vectors_and_text_in_type_42():
    pdf = encode_figure(curves(), "pdf")
    assert pdf.startswith(b"%PDF-1.") and pdf.rstrip().endswith(b"%%EOF")
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf, "a font of TrueType, whole and no bitmap"
    assert not images_of(pdf), "no pixels"
    page = next(content for head, content in streams(pdf) if re.search(rb"\d l\n", content))
    assert re.search(rb"\d m\n", page) and b"\nS\n" in page and b"BT" in page
    assert encode_figure(curves(), "pdf") == pdf, "the same figure has the same bytes"
    svg = encode_figure(curves(), "svg")
    assert b"<svg" in svg and b"<image" not in svg and svg == encode_figure(curves(), "svg")


def test_a_heat_map_is_cells_and_no_image():
    pdf = encode_figure(heat_map(torch.tensor([[1.0, float("nan")]]), ["a"], ["b", "c"], "t"), "pdf")
    assert not images_of(pdf) and b"/FontFile2" in pdf


def test_a_sheet_has_its_names_as_text_and_exactly_the_pixels_of_its_images():
    pictures = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    pdf = encode_figure(Sheet([("input, $x_1$ × σ", pictures)]), "pdf")
    ((head, content),) = images_of(pdf)
    assert b"DCTDecode" not in head, "JPEG would change the pixels"
    width, height = (int(re.search(rb"/%s (\d+)" % name, head)[1]) for name in (b"Width", b"Height"))
    lines = np.frombuffer(content, np.uint8).reshape(height, -1)
    upright = np.asarray(png(width, height, lines.tobytes()))[::-1]  # a PDF of matplotlib draws them upwards
    shown = upright.transpose(2, 0, 1)
    for i, picture in enumerate(pictures):
        assert np.array_equal(shown[:, :64, i * 66 : i * 66 + 64], picture.numpy())
    assert b"/FontFile2" in pdf and any(b"BT" in content for _, content in streams(pdf))


def png(width, height, filtered):
    """Picture of the lines of a PNG with their filters, which PDF stores as they are."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + parts)).convert("RGB")


def test_a_figure_and_a_picture_of_a_sheet_have_the_same_layout():
    sheet = Sheet(
        [
            ("input", torch.zeros(2, 3, 32, 32, dtype=torch.uint8)),
            ("a name", torch.zeros(3, 3, 32, 32).byte()),
        ]
    )
    drawn = np.asarray(sheet.draw().convert("L"))
    content = io.BytesIO()
    sheet.figure().savefig(content, dpi=100)
    figure = np.asarray(Image.open(content).convert("L"))
    assert figure.shape == drawn.shape
    left = drawn.shape[1] - 3 * 66
    assert np.array_equal(figure[:, left:] < 128, drawn[:, left:] < 128)
    dark = (figure[:, :left] < 128).sum() / (drawn[:, :left] < 128).sum()
    assert 0.5 < dark < 2, "the names are there, in letters of about the same size"


# Files --------------------------------------------------------------------------------------------


def test_a_page_writes_the_formats_and_removes_those_of_before(tmp_path):
    sheet, table = Sheet([("a", torch.zeros(1, 3, 8, 8).byte())]), Table(["a"], [["1"]])
    (tmp_path / "notes.tex").write_text("mine")
    written = write_page(tmp_path, "T", {"x": sheet}, tables={"t": table, "empty": Table(["a"], [])},
                         formats=("latex", "pdf", "svg"))  # fmt: skip
    assert written == ["index.html", "x.png", "x.pdf", "x.svg", "table-t.tex"]
    assert {path.name for path in tmp_path.iterdir()} == {*written, "notes.tex"}
    assert write_page(tmp_path, "T", {"x": sheet}, tables={"t": table}) == ["index.html", "x.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "x.png", "notes.tex"}
    save_sheet(sheet, tmp_path / "y.png", ("svg",))
    assert (
        write_vectors(sheet, tmp_path / "y.png", ("pdf",)) == ["y.pdf"] and not (tmp_path / "y.svg").exists()
    )


def test_formats_are_words_of_a_list_or_joined_by_commas():
    assert Formats(format=["latex,pdf", "svg", "pdf"]).chosen == ("latex", "pdf", "svg")
    assert Formats().chosen == () and Formats(format=["latex, pdf"]).chosen == ("latex", "pdf")
    with pytest.raises(UserError, match="--format: expected some of latex, pdf, svg, got 'PDF'"):
        Formats(format=["PDF"])


def test_an_unknown_format_in_python_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="got 'docx'"):
        write_page(tmp_path / "out", "T", {}, formats=("docx",))
    with pytest.raises(UserError, match="Did you mean 'latex'"):
        write_tables(tmp_path / "out", {}, ("latx",))
    assert not (tmp_path / "out").exists()


STUDIES = ["atlas", "compare", "data", "dissect", "omissions", "steer levels", "steer rank", "steer score"]


def test_every_study_takes_formats():
    """Verbs with a folder of tables and figures, `--out`."""
    parameters = {verb: inspect.signature(act).parameters for verb, act in commands().items()}
    assert sorted(verb for verb, names in parameters.items() if "format" in names) == STUDIES
    written = {
        verb
        for verb, names in parameters.items()
        if "out" in names and names["out"].default is not inspect._empty
    }
    assert written == set(STUDIES)


@pytest.mark.parametrize("verb", STUDIES)
def test_an_unknown_format_is_refused_before_the_work(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word if word != "scenes-glow" else bundled(word) for word in words_of(RUNS[verb][0], 4)]
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), *words, "--format", "latex,docx"])
    said = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(said) == 1
    assert said[0].endswith(
        "--format: expected some of latex, pdf, svg, got 'docx'; Markdown, JSON and PNG do not depend on it."
    )
    assert not list(tmp_path.iterdir())


def entry(leakage):
    """Direction of a scores.json."""
    return {
        "method": "Boundary", "effect": 1.0, "monotone": 1.0, "leakage": leakage, "worst": "wood",
        "kept": 0.9, "reach": 1.0, "distances": [0.1], "faithful": None,
    }  # fmt: skip


def test_a_ranking_is_written_for_a_paper(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores = {
        "scores_version": 1, "checkpoint": "a_model", "of": "samples", "space": "z",
        "directions": {"daylight": entry(0.25), "lamp_on": entry(0.5)},
    }  # fmt: skip
    Path("scores.json").write_text(json.dumps(scores))
    main(["steer", "rank", "scores.json", "--format", "latex,pdf", "--out", "out"])
    _, names, rows, _ = read_latex(Path("out/table-ranking.tex").read_text())
    assert names[0][0] == "direction" and names[-1][0] == "R² of re-render"
    assert [row[0][0] for row in rows] == ["daylight", "lamp_on"] and {row[1][0] for row in rows} == {
        "a_model"
    }
    assert not images_of(Path("out/leakage.pdf").read_bytes())
