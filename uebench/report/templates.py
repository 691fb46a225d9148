"""The templates of the page and of the site: HTML in which everything foreign is only text.

Autoescape covers whatever comes from a results folder (names, labels, errors), and none of it
enters a script or a style sheet.
"""

import functools
import json
from importlib import resources

import jinja2
from markupsafe import Markup

from ..common.text import plain_text
from .colors import DASHES, LINES, MARKS, RAMP, ramp_steps
from .confusion_page import MOST_PIXELS
from .latex import latex_escapes
from .statistics import SETTLED


def asset(name: str) -> str:
    """Return a template, a script or a style sheet by its file name."""
    return (resources.files("uebench.report") / "page" / name).read_text(encoding="utf-8")


def rendered(template: str, **values: object) -> str:
    """Return the text of a template with these values."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: plain_text(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(asset),
    )
    environment.globals |= {
        "style": Markup(asset("page.css")),
        "lines": LINES,
        "dashes": DASHES,
        "marks": MARKS,
        "ramp": RAMP,
        "steps": ramp_steps(),
        "most_pixels": MOST_PIXELS,
        "settled": SETTLED,
        "escapes": json.dumps(latex_escapes()),
    }
    return environment
