"""How long until the page shows itself, in a real Chromium before a real server.

    python -m benchmarks.first_paint                       # two minutes

Serves a 5M model by `apps.serve run`, opens the page ROUNDS times with an empty cache and as often
with a full one, and prints the median of what the browser itself noted: first and largest paint,
when the page could be used, requests, and bytes over the wire. `near` is loopback; `far` is the
slow mobile network of Lighthouse, 150 ms and 1.6 Mbit/s, which shows what waits for what.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.results import save
from benchmarks.serve import our_server
from benchmarks.serve_model import make_model
from tests.serve.browser import Browser

ROUNDS = 5
NETWORKS = {"near": (0, -1), "far": (150, 1_638_400 // 8)}
"""latency in ms, bytes/s down"""
NOTED = """
const paint = performance.getEntriesByName('first-contentful-paint')[0];
const page = performance.getEntriesByType('navigation')[0];
const files = performance.getEntriesByType('resource');
const largest = window.largestPaint_ms;
return {
    server_ms: page.responseStart, first_paint_ms: paint.startTime, largest_paint_ms: largest,
    usable_ms: files.find((file) => file.name.endsWith('/run/start')).responseEnd,
    requests: 1 + files.filter((file) => file.transferSize > 0).length,
    bytes: files.reduce((sum, file) => sum + file.transferSize, page.transferSize),
    unpacked_bytes: files.reduce((sum, file) => sum + file.decodedBodySize, page.decodedBodySize),
};
"""
WATCH_LARGEST = """
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.largestPaint_ms = entry.startTime;
}).observe({type: 'largest-contentful-paint', buffered: true});
"""


def measured(browser: Browser, url: str, empties_cache: bool) -> dict[str, float]:
    browser.open("about:blank")
    if empties_cache:
        browser.driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        browser.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    browser.open(url)
    browser.wait_for(".box textarea")
    browser.wait_until(lambda: browser.driver.execute_script("return window.largestPaint_ms > 0"))
    return browser.driver.execute_script(NOTED)


def page(url: str) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    with contextlib.closing(Browser(60)) as browser:
        command = browser.driver.execute_cdp_cmd
        command("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH_LARGEST})
        command("Network.enable", {})
        measured(browser, url, True)  # the server's own first time
        for network, (latency_ms, bytes_per_s) in NETWORKS.items():
            limits = {"latency": latency_ms, "downloadThroughput": bytes_per_s}
            command(
                "Network.emulateNetworkConditions",
                {"offline": False, "uploadThroughput": -1, **limits},
            )
            for cache in ("empty", "full"):
                runs = [measured(browser, url, cache == "empty") for _ in range(ROUNDS)]
                results[f"{network}, cache {cache}"] = {
                    key: round(statistics.median(run[key] for run in runs)) for key in runs[0]
                }
    return results


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "vicuna-5M", "5M")
        with our_server(model, threads=1) as api_url:
            results = page(api_url.removesuffix("/v1") + "/ui/")
    for name, noted in results.items():
        print(f"{name}: {json.dumps(noted)}")
    save("first_paint", results)


if __name__ == "__main__":
    main()
