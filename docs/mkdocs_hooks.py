"""Hooks of mkdocs: pages from outside `docs/`, the API reference, and links between them.

The pages are written to be read on GitHub as well, where a link is the path of a file of the
repository. A link to a file that the site has no page for becomes plain text.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import uebench
import uebench.testing

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "results-folders.md": "results/README.md",
    "published.md": "results/published/README.md",
}
"""Pages whose files are outside `docs/`, by their path in the site."""
WRITTEN_OUT = {"report": "::: uebench.suite.look.write_report\n    options: {heading: report}\n"}
"""The name of a function that is the name of a package as well, whose contents are private."""
INTRODUCTION = (
    "Generated from the docstrings. [The Python API](api.md) introduces these names by example."
)


def on_config(config: Any) -> None:
    """Add the pages of all methods to the navigation."""
    for section in config["nav"]:
        for title, entries in section.items() if isinstance(section, dict) else ():
            folder = Path(config["docs_dir"], title.lower())
            if folder.is_dir():
                pages = sorted(
                    path.name for path in folder.glob("*.md") if path.name != "README.md"
                )
                entries += [{Path(page).stem: f"{folder.name}/{page}"} for page in pages]


def on_files(files: Any, config: Any) -> None:
    """Add the pages from outside `docs/` and the API reference."""
    from mkdocs.structure.files import File

    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "notebook.md", content=notebook(ROOT / "docs")))
    for page, module in (("reference.md", uebench), ("reference-testing.md", uebench.testing)):
        files.append(File.generated(config, page, content=reference(module)))


def notebook(folder: Path) -> str:
    """Return the notebook with its outputs as Markdown."""
    parts = []
    for cell in json.loads((folder / "notebook.ipynb").read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                parts.append(" ".join("".join(data["text/html"]).split("\n")))
            else:
                text = "".join(data.get("text/plain", output.get("text", "")))
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts)


def on_nav(nav: Any, config: Any, files: Any) -> None:
    """Add the leaderboards, which `uebench site` writes into the folder above the documentation."""
    from mkdocs.structure.nav import Link

    nav.items.append(Link("Leaderboards", "../index.html"))


def reference(module: Any) -> str:
    """Return the Markdown of a module's reference, which mkdocstrings fills from docstrings."""
    names = [name for name in module.__all__ if not name.startswith("__")]
    functions = [name for name in names if name[0].islower()]
    constants = [name for name in names if name.isupper()]
    classes = [name for name in names if name not in functions and name not in constants]
    lines = [f"# Reference: `{module.__name__}`", "", INTRODUCTION, ""]
    for title, group in (("Functions", functions), ("Classes", classes), ("Data", constants)):
        lines += [f"## {title}", ""] if group else []
        lines += [WRITTEN_OUT.get(name, f"::: {module.__name__}.{name}\n") for name in group]
    return "\n".join(lines)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    if page.file.abs_src_path is None:  # a generated page links to pages of the site already
        return markdown
    here = Path(page.file.abs_src_path).parent
    uris = {Path(file.abs_src_path): file.src_uri for file in files if file.abs_src_path}

    def relink(match: re.Match[str]) -> str:
        text, target, anchor = match.groups("")
        path = (here / target).resolve()
        if path in uris:
            relative = os.path.relpath(uris[path], Path(page.file.src_uri).parent)
            return f"[{text}]({relative}{anchor})"
        return match[0] if path.is_relative_to(config["docs_dir"]) else text

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)", relink, markdown)
