"""A headless Chromium that types, clicks and waits."""

from collections.abc import Callable, Sequence

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
)


_WATCH = """
clearInterval(window.watching);
window.watchedLengths = [];
const selector = arguments[0];
window.watching = setInterval(() => {
    const element = document.querySelector(selector);
    window.watchedLengths.push(element ? element.textContent.length : 0);
}, 10);
"""

_CLICK_DURING = """
const [button, text] = arguments;
const clicking = setInterval(() => {
    const found = document.querySelector(button);
    if (found && document.querySelector(text)?.textContent) {
        clearInterval(clicking);
        found.click();
    }
}, 10);
"""


class Browser:
    def __init__(self, timeout_s: float = 60, arguments: Sequence[str] = ()) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in (*_ARGUMENTS, *arguments):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self._wait = WebDriverWait(
            self.driver, timeout_s, 0.05, ignored_exceptions=(StaleElementReferenceException,)
        )

    def open(self, url: str) -> None:
        self.driver.get(url)

    def close(self) -> None:
        self.driver.quit()

    def find(self, selector: str) -> WebElement | None:
        return next(iter(self.all(selector)), None)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait_for(self, selector: str) -> WebElement:
        return self._wait.until(lambda _: self.find(selector))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        self._wait.until(lambda _: condition())

    def value(self, selector: str) -> str:
        element = self.find(selector)
        return (element.get_attribute("value") or "") if element else ""

    def text(self, selector: str) -> str:
        return self._wait.until(lambda _: (e := self.find(selector)) and e.text)

    def type(self, selector: str, text: str) -> None:
        self._act(selector, lambda element: element.send_keys(text))

    def click(self, selector: str) -> None:
        self._act(selector, WebElement.click)

    def _act(self, selector: str, action: Callable[[WebElement], None]) -> None:
        """Waits until the element is enabled; one that the page redraws meanwhile is found anew."""

        def acted(_: object) -> bool:
            element = self.find(selector)
            if element is None or not element.is_enabled():
                return False
            action(element)
            return True

        self._wait.until(acted)

    def press(self, keys: str) -> None:
        """To whatever has the focus."""
        ActionChains(self.driver).send_keys(keys).perform()

    def shape(self, width: int, height: int, scheme: str) -> None:
        """The window of a desk or of a phone, in a system that is light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def shows(self, selector: str) -> bool:
        return any(element.is_displayed() for element in self.all(selector))

    def watch(self, selector: str) -> None:
        """Have the page itself note the length of an element's text, every 10 ms from now on."""
        self.driver.execute_script(_WATCH, selector)

    def click_during(self, button: str, text: str) -> None:
        """Have the page itself click a button once there is text: the driver may come too late."""
        self.driver.execute_script(_CLICK_DURING, button, text)

    def watched(self, until: int) -> list[int]:
        """The lengths so far, once they have stood still above `until` for a second."""

        def settled(_: object) -> list[int] | None:
            lengths = self.driver.execute_script("return window.watchedLengths")
            last = lengths[-100:]
            return lengths if len(last) == 100 and len({*last}) == 1 and last[0] > until else None

        return self._wait.until(settled)

    def errors(self) -> list[str]:
        return [
            line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"
        ]
