"""LaTeX: tables compile, alone and inside a paper, whatever the names are."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from uebench.common.errors import UserError
from uebench.report.arrange import Arrangement, transposed
from uebench.report.display import Leaderboards
from uebench.report.latex import escape_latex, latex_tables, to_latex
from uebench.report.layout import Layout, layout
from uebench.report.paper_width import WIDTHS, inches, width_of
from uebench.report.tables import Leaderboard, leaderboards
from uebench.report.tables import only_leaderboard as leaderboard
from uebench.report.words import Label

needs_pdflatex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="pdflatex is missing: install texlive-latex-recommended to compile the tables",
)


def _compile(text: str, folder: Path) -> str:
    """Return pdflatex's log; fails where pdflatex does."""
    (folder / "table.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, timeout=60, check=False, encoding="latin-1"
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "table.pdf").stat().st_size > 1000
    return (folder / "table.log").read_text(encoding="latin-1")


@needs_pdflatex
def test_odd_names_compile_as_a_standalone_document(odd, tmp_path):
    log = _compile(to_latex(leaderboard(odd), standalone=True), tmp_path)
    assert "Overfull" not in log
    assert "Missing character" not in log


@needs_pdflatex
@pytest.mark.parametrize("options", ["", "[twocolumn]"])
def test_tables_compile_inside_a_paper(odd, cells, tmp_path, options):
    wide = cells(*({"defense": f"defense_{k}", "defense_options": "a=1,b=2"} for k in range(14)))
    boards = [leaderboard(odd), leaderboard(wide)]
    paper = rf"""\documentclass{options}{{article}}
\usepackage{{booktabs,graphicx}}
\begin{{document}}
See Table~\ref{{tab:mine}}.
\input{{leaderboard.tex}}
\end{{document}}
"""
    text = to_latex(boards, label="tab:mine", caption="50% of a_b & \\c")
    (tmp_path / "leaderboard.tex").write_text(text, encoding="utf-8")
    log = _compile(paper, tmp_path)
    log = _compile(paper, tmp_path)  # the second run reads the captions of the first
    assert "undefined references" not in log
    assert "multiply defined" not in log
    assert "Overfull" not in log


@needs_pdflatex
def test_every_letter_compiles(tmp_path):
    letters = [
        chr(code) for code in [*range(0x20, 0x250), *range(0x370, 0x400), *range(0x2000, 0x2070)]
    ]
    lines = [
        escape_latex("".join(letters[k : k + 40])) + r"\par" for k in range(0, len(letters), 40)
    ]
    body = "\n".join(lines)
    log = _compile(
        f"\\documentclass{{article}}\\begin{{document}}\n{body}\n\\end{{document}}", tmp_path
    )
    assert "Missing character" not in log


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("ueraser_lite", r"ueraser\_lite"),
        ("50% & $1 #2 {x}", r"50\% \& \$1 \#2 \{x\}"),
        ("a\\b~c^d", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"),
        ("\\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("é λ 漢", r"é $\lambda$ U+6F22"),
        ("e\u0301", "é"),
        ("a\n\nb\x1b[1m", "a b"),
        ("[x]*--", "{[}x{]}{*}{-}{-}"),
    ],
)
def test_escaped_latex(text, escaped):
    assert escape_latex(text) == escaped


def test_numbers_and_missing_cells(odd, cells):
    text = to_latex(leaderboard(odd))
    assert "failed" in text
    assert "skipped" in text
    assert "& --" in text
    assert re.search(r"\\textbf\{\d+\.\d\} \$\\pm\$ 1\.8", text)
    assert r"\textbf" not in to_latex(leaderboard(cells({})))  # the only one is not the best


def test_labels_are_unique(cells):
    boards = leaderboards(cells({}, {"ratio": 0.5}, {"protocol": "my_own"}))
    labels = re.findall(r"\\label\{(.*?)\}", to_latex(boards))
    assert labels == [
        "tab:uebench-synthetic-resnet18-quick",
        "tab:uebench-synthetic-resnet18-quick-2",
        "tab:uebench-synthetic-resnet18-my-own",
    ]


def test_reports_need_no_torch():
    code = "import uebench.report, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


COLUMN, PAGE = WIDTHS["column"], WIDTHS["page"]
TWO_COLUMNS = rf"""\documentclass[twocolumn]{{article}}
\usepackage[textwidth={PAGE}in]{{geometry}}
\setlength{{\columnsep}}{{{PAGE - 2 * COLUMN}in}}
\usepackage{{booktabs}}
\begin{{document}}
\input{{leaderboard.tex}}
\end{{document}}
"""


@pytest.fixture
def optioned(cells) -> Leaderboard:
    """Return a leaderboard with long options, several seeds and its worst cases."""
    rows = [
        {"attack": attack, "attack_options": options, "defense": d, "seed": s, "test_acc": 0.1 + s}
        for attack, options in (("none", ""), ("em", ""), ("rem", "train_steps=300,adv_steps=4"))
        for d in ("at", "iss")
        for s in (0, 0.5)
    ]
    return leaderboard(cells(*({**row, "seed": int(2 * row["seed"])} for row in rows)))


@needs_pdflatex
@pytest.mark.parametrize("arranged", [Arrangement(), Arrangement(True, False)], ids=str)
def test_a_fitted_table_is_as_wide_as_promised_and_no_smaller_than_footnotes(
    optioned, tmp_path, arranged
):
    table = replace(arranged, width=COLUMN).of(partial(layout, optioned, None))
    text = latex_tables([(table, "tab:mine")], width=COLUMN)
    assert not re.search(r"resizebox|scriptsize|tiny", text)
    assert text.count(r"train\_steps") == 1, "options stand in the footnote alone"
    assert r"rem\textsuperscript{a} " in text
    measured = text.replace(r"\begin{tabular}", r"\setbox0\hbox\bgroup\begin{tabular}").replace(
        r"\end{tabular}", r"\end{tabular}\egroup\typeout{WIDTH \the\wd0}\usebox0"
    )
    (tmp_path / "leaderboard.tex").write_text(measured, encoding="utf-8")
    log = _compile(TWO_COLUMNS, tmp_path)
    points = float(re.search(r"WIDTH ([\d.]+)pt", log)[1])
    assert points <= 72.27 * width_of(table) <= 1.05 * points
    assert "Overfull" not in log


@needs_pdflatex
def test_a_page_wide_table_spans_both_columns_and_a_document_has_two(optioned, tmp_path):
    table = Arrangement(width=PAGE).of(partial(layout, optioned, None))
    text = latex_tables([(table, "tab:a"), (table, "tab:a")], standalone=True, width=PAGE)
    assert text.count(r"\begin{table*}") == 2
    assert r"\documentclass[twocolumn]" in text
    assert "Overfull" not in _compile(text, tmp_path)
    bare = latex_tables([(table, "tab:a")], width=PAGE, note=False)
    assert "synthetic, resnet18" in text
    assert "synthetic, resnet18" not in bare
    assert r"\textsuperscript{a}\,train" in bare, "marks keep their meaning"


def test_a_column_that_cannot_hold_the_table_says_what_would_fit(cells):
    names = [f"defense_{k}" for k in range(7)]
    board = leaderboard(cells(*({"attack": a, "defense": d} for a in ("em", "lsp") for d in names)))
    with pytest.raises(ValueError, match=r"needs 5\.\d\d in at the size of footnotes") as refused:
        Arrangement(width=COLUMN).of(partial(layout, board, None))
    message = str(refused.value)
    assert "3.25 in are available" in message
    assert "--transpose (" in message
    assert "--width page" in message
    assert "--no-worst-cases (" not in message, "it would still be too wide"
    fitting = Arrangement(transpose=True, width=COLUMN).of(partial(layout, board, None))
    assert [row.label.title for row in fitting.rows][:2] == names[:2]
    assert fitting.caption.endswith("defenses in rows, attacks in columns")


@pytest.mark.parametrize("width", ["wide", "0", "nan", "500", "", "3,25"])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match=r"--width must be column \(3.25 in\), page \(6.75 in\)"):
        inches(width)


def test_grids_with_headings_are_not_transposed():
    table = Layout("t", "a", (Label("x"),), (), "", groups=(("over", 1),))
    with pytest.raises(ValueError, match="cannot be transposed; leave out --transpose"):
        transposed(table)


def test_the_latex_of_python_is_that_of_the_command_line(cells):
    """One form: options of methods in footnotes, the size of footnotes, and one choice of width."""
    frame = cells(
        *(
            {"attack": attack, "attack_options": options, "defense": defense}
            for attack, options in (("none", ""), ("rem", "train_steps=300,adv_steps=4"))
            for defense in ("standard", "iss")
        )
    )
    boards = Leaderboards(tuple(leaderboards(frame)), {})
    fitted, free = boards.to_latex(width="column"), boards.to_latex()
    body = re.compile(r"(?s)\\begin\{tabular\}.*?\\end\{tabular\}")
    assert body.findall(fitted) == body.findall(free) != []
    assert r"rem\textsuperscript{a}" in free
    assert r"\footnotesize" in free
    assert "resizebox" not in fitted
    turned = boards.to_latex(width="column", transpose=True, worst_cases=False, note=False)
    assert r"defense & clean & rem\textsuperscript{a} \\" in turned
    with pytest.raises(UserError, match=r"needs \d\.\d\d in at the size of footnotes"):
        boards.to_latex(width=1.5)
