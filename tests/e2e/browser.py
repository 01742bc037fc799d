"""A headless Chromium that looks at the page of a screen."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from tests.e2e import screen

#: Seconds between two keys: an emulated guest is slow to fetch them, and its keyboard keeps few.
_KEY: Final = 0.1


class Page:
    """The page in a window of its own."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    @property
    def title(self) -> str:
        return self.driver.title

    @property
    def state(self) -> str:
        """What has become of the connection; empty: this is not the page."""
        return self.driver.find_element(By.TAG_NAME, "body").get_dom_attribute("data-state") or ""

    @property
    def text(self) -> str:
        """All that is written beside the screen."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def screen(self) -> str:
        """What the guest has written, as the browser shows it."""
        try:
            return screen.text(self._canvas.screenshot_as_png)
        except WebDriverException:
            return ""  # between two connections

    def press(self, button: str) -> None:
        """One of the page's buttons."""
        self.driver.find_element(By.ID, button).click()

    def type(self, text: str) -> None:
        """By the keys of a US keyboard, as fingers do it."""
        keys = ActionChains(self.driver)
        for character in text:
            key = Keys.ENTER if character == "\n" else character.lower()
            if character.isupper():
                keys = keys.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT)
            else:
                keys = keys.send_keys(key)
            keys = keys.pause(_KEY)
        keys.perform()

    def until(self, what: str, holds: Callable[[], bool], deadline: float = 60) -> None:
        """:raise AssertionError: not in time; the message has what is to be seen."""
        end = time.monotonic() + deadline
        while not holds():
            shown = f"{self.state}: {self.text}\n{self.screen()}"
            assert time.monotonic() < end, f"{what}: not within {deadline} s\n{shown}"
            time.sleep(0.5)

    def complaints(self) -> list[str]:
        """What the browser refused to do by the page's policy."""
        logged = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in logged if "Content Security" in entry["message"]]

    @property
    def _canvas(self) -> webdriver.remote.webelement.WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, "#screen canvas")


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """Debian's, with a profile that goes with it.

    :raise AssertionError: it is not installed.
    """
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    assert all(found.values()), f"{found}; install what is in tests/e2e/packages.txt"
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"] or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,1000")
        for flag in (*flags, f"user-data-dir={Path(profile)}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=Service(found["chromedriver"]))
        try:
            yield Page(driver)
        finally:
            driver.quit()
