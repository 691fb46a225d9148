"""What a notebook needs: whether this is one, and text and pictures as HTML without any script."""

import base64
import io
import os
import sys
from collections.abc import Sequence
from html import escape
from typing import Any

from .errors import UserError


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, which displays HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def display(shown: Any, **options: Any) -> Any:
    """Display an object in the notebook that this process is the kernel of; see IPython's."""
    return sys.modules["IPython"].display.display(shown, **options)


def show_picture(picture: Any, call: str) -> None:
    """Show a PIL image in the notebook or, outside of one, in the system's viewer of images.

    Args:
        picture: the image.
        call: what returned it, for the advice how to write it to a file.

    Raises:
        UserError: there is neither a notebook nor a display.
    """
    if in_notebook():
        display(picture)
        return
    has_display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if sys.platform == "linux" and not has_display:  # the viewer would fail, or nothing happens
        raise UserError(
            "there is neither a notebook nor a display; write the picture to a file with "
            f"{call}.save('picture.png')"
        )
    picture.show()


def pictures_html(heading: str, pictures: Sequence[tuple[str, bytes]]) -> str:
    """Return a heading and PNG pictures, each with its description for who cannot see it."""
    images = "".join(
        f'<img alt="{escape(text)}" style="max-width: 100%; display: block" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for text, png in pictures
    )
    return f"<div><p>{escape(heading)}</p>{images}</div>"


def png_bytes(image: Any) -> bytes:
    """Return a PIL image as the contents of a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()
