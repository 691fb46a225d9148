r"""Leaderboards as LaTeX tables with booktabs, for a paper or as a document of their own.

pandas' Styler does not do: it draws no rules between the parts of a table, puts no note under it,
and does not escape what stops pdflatex (CJK letters, a row that starts with "["). Without these,
all it would do is join cells with "&".
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ..common.text import one_line
from .arrange import Arrangement, compact
from .cells import SUPERVISED_VICTIM
from .layout import Layout, Shown, layout
from .over_victims import by_victim_layouts
from .paper_width import COLUMN_SEP_PT, WIDTHS, width_of
from .tables import Boards, Leaderboard, several
from .words import Label, Titles

PACKAGES = (
    r"% Needs \usepackage{booktabs}, and \usepackage{graphicx} if a table is wider than the line."
)
SCALED = r"  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"
FITTED_PACKAGES = r"% Needs \usepackage{booktabs}."

_PREAMBLE = r"""\documentclass{article}
\usepackage[margin=2cm,landscape]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\begin{document}
"""

_TWO_COLUMNS = rf"""\documentclass[twocolumn]{{article}}
\usepackage[textwidth={WIDTHS["page"]}in,textheight=9in]{{geometry}}
\setlength{{\columnsep}}{{{WIDTHS["page"] - 2 * WIDTHS["column"]}in}}
\usepackage{{booktabs}}
\begin{{document}}
"""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",  # a command letter in German babel
    "`": r"\symbol{96}",
    "-": "{-}",  # -- would become a dash
    "[": "{[}",  # a row that starts with [ or * would be an option of the \\ before it
    "]": "{]}",
    "*": "{*}",
    "\u2014": "---",
    "\u2013": "--",
    "\u2019": "'",
    "\u2018": "`",
    "\u00d7": r"$\times$",
    "…": r"\dots{}",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "∞": r"$\infty$",
    "→": r"$\to$",
    "ß": r"\ss{}",
} | {character: "\\" + character for character in "&%$#_{}"}
_LETTERS = frozenset("ÄÅÁÀÂÃÆÇÉÈÊËÍÌÎÏÑÓÒÔÕÖØÚÙÛÜÝäåáàâãæçéèêëíìîïñóòôõöøúùûüýÿŒœŠšŽž")
_GREEK = {
    chr(code): f"$\\{unicodedata.name(chr(code)).split()[-1].lower()}$"
    for code in range(0x3B1, 0x3CA)
    if code not in (0x3BB, 0x3BF, 0x3C2)  # lamda, omicron, final sigma
} | {"λ": r"$\lambda$", "Δ": r"$\Delta$"}


def to_latex(
    boards: Boards,
    titles: Titles | None = None,
    *,
    caption: str | None = None,
    label: str | None = None,
    standalone: bool = False,
    arrangement: Arrangement | None = None,
    note: bool = True,
) -> str:
    r"""Return a `table` environment for each leaderboard, at the size of footnotes.

    Unless the arrangement has a width, a table that is wider than the line is scaled to it.

    Args:
        boards: One leaderboard or several.
        titles: Display names.
        caption: Plain text, escaped here; by default the contents of the table and the data set.
        label: What to give to `\ref`; by default derived from the settings. Labels that would
            be repeated get -2, -3 and so on.
        standalone: Return a whole document instead of something to `\input`.
        arrangement: Its width, whether it is transposed, and whether it has worst cases.
        note: Whether the settings stand below a table.

    Raises:
        UserError: A table does not fit the width, or cannot be transposed.
    """
    arrangement = arrangement or Arrangement()
    laid_out = [
        (arrangement.of(partial(layout, board, titles)), label or board_label(board))
        for board in several(boards)
    ]
    laid_out += by_victim_layouts(several(boards), titles)
    return latex_tables(laid_out, caption, standalone, width=arrangement.width, note=note)


def latex_tables(
    tables: Sequence[tuple[Layout, str]],
    caption: str | None = None,
    standalone: bool = False,
    *,
    width: float | None = None,
    note: bool = True,
) -> str:
    """Return a `table` environment for each layout and its label, or a document of them.

    Args:
        tables: the layouts and what to give to `ref` for each.
        caption: by default that of the layout.
        standalone: return a document.
        width: the width in inches for which the tables were arranged; by default, tables that are
            wider than the line are scaled to it.
        note: whether the settings stand below a table.
    """
    used: list[str] = []
    environments = []
    for table, name in tables:
        used.append(name)
        times = used.count(name)
        label = name if times == 1 else f"{name}-{times}"
        environments.append(_table(table, caption, label, width, note))
    if not standalone:
        return "\n".join([PACKAGES if width is None else FITTED_PACKAGES, *environments])
    body = "\\clearpage\n".join(environments) or "No leaderboard."
    preamble = _PREAMBLE if width is None else _TWO_COLUMNS
    return f"{preamble}{body}\n\\end{{document}}\n"


def board_label(board: Leaderboard) -> str:
    r"""Return what `\ref` takes for the table of a leaderboard: its data set, network, protocol."""
    s = board.settings
    victim = "" if s.victim == SUPERVISED_VICTIM else f"-{s.victim}"
    words = f"{s.dataset}-{s.arch}-{s.protocol}{victim}"
    return "tab:uebench-" + re.sub("[^a-z0-9]+", "-", words.lower()).strip("-")


def latex_escapes() -> dict[str, str]:
    """Return what LaTeX needs for each character that it does not print as it stands.

    Letters outside of ASCII that it prints are included, so that a script can escape by this table.
    """
    return {letter: letter for letter in sorted(_LETTERS)} | _GREEK | _SPECIAL


def escape_latex(text: str) -> str:
    """Return `text` so that pdflatex prints it unchanged.

    A letter for which pdflatex has no glyph is printed as its code point, such as U+6F22.
    """
    return "".join(_escaped(c) for c in unicodedata.normalize("NFC", one_line(text)))


def _escaped(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii() or character in _LETTERS:
        return character
    return _GREEK.get(character) or f"U+{ord(character):04X}"


def _table(table: Layout, caption: str | None, label: str, width: float | None, note: bool) -> str:
    """Return a table at the size of footnotes; one that is wider than a column spans both.

    Without a width, nothing is known of its place: a line that is narrower than the table then
    scales it.
    """
    if width is None:
        table = compact(table, 0, 0)
    wide = width_of(table) if width is None else width
    environment = "table*" if wide > WIDTHS["column"] * 1.2 else "table"
    columns = [_marked(replace(column, options="", aside="")) for column in table.columns]
    footnotes = [
        rf"\textsuperscript{{{letter}}}\,{escape_latex(options.replace(',', ', '))}."
        for letter, options in table.footnotes
    ]
    below = [
        *(rf"\textbf{{{escape_latex(warning)}}}" for warning in table.warnings),
        *([escape_latex(table.note)] if note else []),
        *([" ".join(footnotes)] if footnotes else []),
    ]
    lines = [
        rf"\begin{{{environment}}}[tbp]",
        r"  \centering\footnotesize",
        r"  \setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{5pt}",
        rf"  \caption{{{escape_latex(caption or table.caption)}.}}",
        rf"  \label{{{label}}}",
        rf"  \setlength{{\tabcolsep}}{{{COLUMN_SEP_PT:g}pt}}",
        *([r"  \sbox0{%"] if width is None else []),
        rf"  \begin{{tabular}}{{@{{}}{'l' * len(table.heads)}{'r' * len(columns)}@{{}}}}",
        r"    \toprule",
        *_groups(table),
        f"    {' & '.join([*map(escape_latex, table.heads), *columns])} \\\\",
        *_body(table),
        r"    \bottomrule",
        r"  \end{tabular}" + ("}%" if width is None else ""),
        *([SCALED] if width is None else []),
        *(rf"  \par\smallskip{{\raggedright {text}\par}}" for text in below),
        rf"\end{{{environment}}}",
        "",
    ]
    return "\n".join(lines)


def _marked(label: Label) -> str:
    """Return a label whose mark, if it has one, is that of a footnote."""
    mark = rf"\textsuperscript{{{label.mark}}}" if label.mark else ""
    return escape_latex(str(replace(label, mark=""))) + mark


def _groups(table: Layout) -> list[str]:
    """Return the line of headings above the columns, with a rule under each, if there are any."""
    if not table.groups:
        return []
    heads, rules = [""] * len(table.heads), []
    column = len(heads) + 1
    for head, n in table.groups:
        heads.append(rf"\multicolumn{{{n}}}{{c}}{{{escape_latex(head)}}}")
        rules.append(rf"\cmidrule(lr){{{column}-{column + n - 1}}}" if head else "")
        column += n
    return [f"    {' & '.join(heads)} \\\\", f"    {' '.join(filter(None, rules))}"]


def _body(table: Layout) -> list[str]:
    """Return the rows with a rule between parts."""
    lines = []
    for part in table.parts():
        lines.append(r"    \midrule")
        for labels, row in part:
            cells = [*map(escape_latex, labels[:-1]), _marked(row.label)]
            cells += [_cell(cell) for cell in row.cells]
            lines.append(f"    {' & '.join(cells)} \\\\")
    return lines


def _cell(cell: Shown) -> str:
    if cell.value == "—":
        return "--"
    text = escape_latex(cell.value)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    if cell.bound:
        text = f"{escape_latex(cell.bound)} {text}"
    if cell.spread:
        text += rf" $\pm$ {cell.spread}"
    return text + (rf" {{({escape_latex(cell.remark)})}}" if cell.remark else "")
