"""`make site` builds the website, which opens from the disk; the documentation can be searched."""

import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import uebench
import uebench.testing
from tests.browser import browser, check_quiet, needs_chromium

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site that the make target builds with this environment."""
    folder = tmp_path_factory.mktemp("site")
    environment = folder / "venv"
    (environment / "bin").mkdir(parents=True)
    (environment / ".installed").touch()
    for name in ("python", "uebench"):
        script = environment / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{Path(sys.executable).parent / name}" "$@"\n')
        script.chmod(0o755)
    command = ["make", "site", f"VENV={environment}", f"SITE={folder / 'built'}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "WARNING" not in made.stderr
    return folder / "built"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from browser(tmp_path_factory.mktemp("profile"))


def resize(driver: Any, width: int, scheme: str) -> None:
    """Leave the present page, and give the window a width in px and a colour scheme."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    driver.get("about:blank")
    driver.get_log("performance")  # forget what earlier pages asked for


def test_every_page_and_every_public_name_is_in_the_documentation(site: Path) -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        page = path.relative_to(ROOT / "docs").with_suffix(".html")
        page = page.with_name(page.name.replace("README", "index"))
        assert (site / "docs" / page).exists()
    for page in ("changelog", "contributing", "results-folders", "published"):
        assert (site / "docs" / f"{page}.html").exists()
    for page, module in (("reference", uebench), ("reference-testing", uebench.testing)):
        text = unescape((site / "docs" / f"{page}.html").read_text())
        for name in module.__all__:
            place = "suite.look.write_report" if name == "report" else name
            assert name.startswith("__") or f'id="{module.__name__}.{place}"' in text, name


def test_the_results_of_the_repository_are_shown_and_lead_to_the_documentation(site: Path) -> None:
    front = (site / "index.html").read_text()
    assert 'href="docs/index.html"' in front
    for folder in ROOT.glob("results/*/records.json"):
        assert f"<code>results/{folder.parent.name}</code>" in front
    pages = [path for path in site.rglob("*") if path.is_file() and "docs" not in path.parts]
    assert sum(path.stat().st_size for path in pages) < 20e6


def test_links_between_files_of_the_repository_lead_to_pages(site: Path) -> None:
    contributing = (site / "docs" / "contributing.html").read_text()
    assert 'href="architecture.html"' in contributing
    assert 'href="results-folders.html"' in contributing
    assert "attacks/none.py" in contributing, "a file without a page is still named"
    assert 'href="attacks/none.py"' not in contributing
    assert '<a href="../published.html">' in (site / "docs" / "attacks" / "em.html").read_text()


@needs_chromium
def test_leaderboards_and_documentation_link_to_each_other(site: Path, driver: Any) -> None:
    resize(driver, 1400, "light")
    driver.get((site / "docs" / "attacks" / "em.html").as_uri())
    script = "return [...document.links].map(link => link.href)"
    front = (site / "index.html").as_uri()
    assert front in driver.execute_script(script)
    driver.get(front)
    assert (site / "docs" / "index.html").as_uri() in driver.execute_script(script)
    check_quiet(driver)


@needs_chromium
def test_a_word_is_found_from_the_disk(site: Path, driver: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    resize(driver, 1400, "light")
    driver.get((site / "docs" / "attacks" / "em.html").as_uri())
    box = driver.find_element("css selector", "input.md-search__input")
    box.click()
    box.send_keys("availability attack")
    found = ".md-search-result__item a"
    WebDriverWait(driver, 30).until(lambda d: d.find_elements("css selector", found))
    links = [a.get_attribute("href") for a in driver.find_elements("css selector", found)]
    assert any("docs/glossary.html" in link for link in links), links
    check_quiet(driver)
    driver.get(next(link for link in links if "docs/glossary.html" in link))
    assert driver.find_element("css selector", "h1").text.startswith("Glossary")


@needs_chromium
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_their_window_in_light_and_dark(
    site: Path, driver: Any, width: int, scheme: str
) -> None:
    resize(driver, width, scheme)
    for page in ("index", "attacks/em", "reference", "results", "architecture", "glossary"):
        driver.get((site / "docs" / f"{page}.html").as_uri())
        read = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert driver.execute_script(read), f"{page} is wider than its window"
        name = driver.execute_script("return document.body.dataset.mdColorScheme")
        assert name == {"light": "default", "dark": "slate"}[scheme], page
    check_quiet(driver)
