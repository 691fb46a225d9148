"""A headless Chromium for the tests of pages that are opened from the disk."""

import shutil
from collections.abc import Iterator
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
