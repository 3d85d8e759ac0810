"""A headless Chromium that benches and tests drive over WebDriver, and what it logs and fetches while they do."""

import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

MISSING = "needs chromium and chromedriver (Debian: apt-get install chromium-driver)"


def installed() -> tuple[str, str] | None:
    """(chromedriver, chromium), where both are."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    return (driver, chromium) if driver and chromium else None


class Browser:
    """A session. `console` and the other lists have what `read_logs` found."""

    def __init__(self, client: httpx.Client, session: str, downloads: Path) -> None:
        self.client = client
        self.session = session
        self.downloads = downloads
        self.console: list[str] = []
        self.requests: dict[str, str] = {}  # addresses by the id of the request
        self.blocked: list[str] = []  # addresses that the page asked for and the browser refused it
        self.dialogs: list[str] = []

    def send(self, path: str, **body: Any) -> Any:
        """A WebDriver command (https://www.w3.org/TR/webdriver2/) that is a POST."""
        reply = self.client.post(f"/session/{self.session}/{path}", json=body)
        if reply.status_code != 200:
            raise RuntimeError(f"{path}: {reply.text[:2000]}")
        return reply.json()["value"]

    def open(self, address: str) -> None:
        self.send("url", url=address)

    def script(self, code: str, *arguments: Any) -> Any:
        """What the body of a function returns, in the page."""
        return self.send("execute/sync", script=code, args=list(arguments))

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """The first true value of an expression in the page. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.script(f"return {expression}"):
                return value
            time.sleep(0.02)
        raise TimeoutError(f"{expression} is not true after {seconds} s")

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the Chrome DevTools protocol."""
        return self.send("goog/cdp/execute", cmd=name, params=parameters)

    def press(self, *keys: str) -> None:
        """Keys as WebDriver names them (\\ue015 is the arrow down), pressed one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.send("actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def screenshot(
        self, path: Path, *, width: int = 1440, height: int = 900, dark: bool = False, whole: bool = False
    ) -> None:
        """A PNG of the window, or of the whole page."""
        self.command("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])  # fmt: skip
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        if whole:
            height = self.script("return Math.ceil(document.documentElement.scrollHeight)")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        options = {"captureBeyondViewport": True, "clip": clip} if whole else {}
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png", **options)["data"]))

    def forget(self) -> None:
        """Leave the page, and empty the logs."""
        self.open("about:blank")
        self.read_logs()
        for log in (self.console, self.requests, self.blocked, self.dialogs):
            log.clear()

    def read_logs(self) -> None:
        """Add what happened since the last call: messages of level warning and above, requests, dialogs."""
        for entry in self.send("se/log", type="browser"):
            if entry["level"] in ("WARNING", "SEVERE"):
                self.console.append(entry["message"])
        for entry in self.send("se/log", type="performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests[message["params"]["requestId"]] = message["params"]["request"]["url"]
            elif message["method"] == "Network.loadingFailed" and "blockedReason" in message["params"]:
                self.blocked.append(self.requests.pop(message["params"]["requestId"], "?"))
            elif message["method"] == "Page.javascriptDialogOpening":
                self.dialogs.append(message["params"]["message"])


@contextmanager
def opened(downloads: Path) -> Iterator[Browser]:
    """A browser that ends with the block. Raises RuntimeError where there is none (`installed`)."""
    found = installed()
    if found is None:
        raise RuntimeError(MISSING)
    driver, chromium = found
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    port = next(
        match[1] for line in process.stdout if (match := re.search(r"started successfully on port (\d+)", line))
    )
    options = {
        "binary": chromium,
        "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1440,900",
                 "--enable-precise-memory-info"],
        "prefs": {"download.default_directory": str(downloads), "download.prompt_for_download": False},
    }  # fmt: skip
    capabilities = {
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        "unhandledPromptBehavior": "ignore",
    }
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as client:
            answer = client.post("/session", json={"capabilities": {"alwaysMatch": capabilities}})
            browser = Browser(client, answer.json()["value"]["sessionId"], downloads)
            yield browser
            client.delete(f"/session/{browser.session}")
    finally:
        process.terminate()
        process.wait()
