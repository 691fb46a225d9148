"""LaTeX: tables compile, alone and inside a paper, whatever the names are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uebench.report.latex import escape_latex, to_latex
from uebench.report.tables import leaderboard, leaderboards

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
