"""A headless Chromium for the tests of pages that are opened from the disk."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = next(filter(None, map(shutil.which, ("chromedriver", "chromium-driver"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)


def browser(profile: Path) -> Iterator[Any]:
    """Yield a browser without a window and without a network, and close it afterwards."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")  # whatever it asks for fails
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # the path of the driver is given, so selenium looks for nothing and fetches nothing
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=DRIVER)
    )
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def check_quiet(driver: Any) -> None:
    """Check that the pages opened since the last look reported no error and asked no host."""
    assert not driver.get_log("browser"), "errors on the console"
    requests = [
        entry["message"]
        for entry in driver.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert requests, "the page itself is asked for"
    for message in requests:
        asked = message.partition('"request":{')[2]
        assert '"url":"http' not in asked, message
        assert '"url":"ws' not in asked, message


@contextmanager
def opened_page(driver: Any, address: str) -> Iterator[Any]:
    """Open a page; afterwards nothing may be on its console, and no host may have been asked."""
    driver.get_log("performance")
    driver.get("about:blank")
    driver.get(address)
    yield driver
    check_quiet(driver)


def css(driver: Any, selector: str) -> list[Any]:
    """Return the elements that are seen, in one call: each call costs."""
    seen = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility())"
    return list(driver.execute_script(seen, selector))


def texts(driver: Any, selector: str) -> list[str]:
    """Return what is read in the elements that are seen, white space as one space."""
    read = (
        "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility())"
        ".map(e => e.innerText ?? e.textContent)"
    )
    return [" ".join(text.split()) for text in driver.execute_script(read, selector)]


def click(driver: Any, selector: str, text: str = "") -> None:
    """Click on the first that is seen and has the text."""
    pairs = zip(css(driver, selector), texts(driver, selector), strict=True)
    found = [element for element, read in pairs if text in read]
    assert found, f"no {selector} with {text!r}"
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found[0])
    found[0].click()


def wait_until(driver: Any, done: Callable[[], object]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 10).until(lambda _: done())


def look(driver: Any, width: int, theme: str) -> None:
    """Show the page at a width in pixels, in the light or the dark theme."""
    media = {"name": "prefers-color-scheme", "value": theme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [media]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wider_than_the_window(driver: Any) -> list[str]:
    """Return what makes the page itself scroll sideways; tables that scroll alone may."""
    return list(
        driver.execute_script(
            "const wide = document.documentElement.scrollWidth > innerWidth;"
            "return wide ? [...document.querySelectorAll('body *')]"
            ".filter(e => e.getBoundingClientRect().right > innerWidth && e.checkVisibility())"
            ".map(e => e.outerHTML.slice(0, 200)) : []"
        )
    )
