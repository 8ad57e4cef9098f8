"""A picture of Ray's dashboard while a job of ours runs, for cluster/README.md.

python -m tests.cluster.pictures docs/dashboard.png
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selenium.webdriver.support.ui import WebDriverWait

from tests.cluster.machines import lone_machine
from tests.serve.browser import Browser

LINE = "the old sea is wide and its water cold so a boat needs a crew that knows the wind"
NUM_CHATS = 60_000


def write_dump(path: Path) -> None:
    """A made-up one that takes a while."""

    words = LINE.split()

    def say(number: int, length: int) -> str:
        return " ".join(words[(number * (i + 3) + i * i) % len(words)] for i in range(length))

    chats = [
        {
            "id": str(n),
            "conversations": [
                {"from": "human", "value": f"Chat {n}: {say(n, 20)}?"},
                {"from": "gpt", "value": f"<p>{say(n + 7, 120)}.</p>"},
            ],
        }
        for n in range(NUM_CHATS)
    ]
    path.write_text(json.dumps(chats))


def main(picture: str) -> None:
    with tempfile.TemporaryDirectory(prefix="dashboard-") as name:
        folder = Path(name)
        write_dump(folder / "sharegpt.json")
        with lone_machine(folder / "home") as env:
            run = f"{env['HOME']}/sky_workdir/cluster/run_ray.sh"
            clean = ["python", "-m", "apps.data", "clean", str(folder / "sharegpt.json")]
            options = ["--out", str(folder / "clean"), "--unit-mb", "1"]
            with subprocess.Popen([run, *clean, *options], env=env) as job:
                url = f"http://127.0.0.1:{env['RAY_DASHBOARD_PORT']}"
                token = Path(env["HOME"], ".cria-ray-token")
                while not token.exists():
                    time.sleep(0.2)
                take(url, token, Path(picture))
                job.wait()


def take(url: str, token: Path, picture: Path) -> None:
    browser = Browser()
    try:
        while True:
            try:
                browser.open(f"{url}/#/jobs")
                break
            except Exception:  # Ray is starting
                time.sleep(1)
        cookie = {"name": "ray-authentication-token", "value": token.read_text()}
        browser.driver.add_cookie(cookie)
        browser.shape(1280, 900, "light")
        browser.open(f"{url}/#/jobs")
        browser.driver.refresh()
        link = "table a[href*='jobs/']"
        WebDriverWait(browser.driver, 90).until(lambda _: browser.find(link))
        time.sleep(10)  # so that some ranges are done
        browser.click(link)
        time.sleep(10)
        browser.driver.save_screenshot(str(picture))
    except Exception:
        browser.driver.save_screenshot(str(picture.with_suffix(".failed.png")))
        raise
    finally:
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
