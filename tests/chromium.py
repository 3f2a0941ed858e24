"""Headless Chromium over its debugging pipe: a page opened, pressed, measured and pictured."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One page; `told` is what it wrote to its console, and every request that it made."""

    def __init__(self, ask: int, answers: int):
        self._ask, self._answers = ask, answers
        self._number, self._session, self._left = 0, None, b""
        self.told: list[str] = []
        self.requested: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the Chrome DevTools protocol."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": params}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._ask, json.dumps(asked).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]

    def open(self, path: Path) -> None:
        """Opens a file, and waits until it is there."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.of("document.readyState") != "complete":
            pass

    def of(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **({"text": text} if kind == "keyDown" and text else {}),
            )

    def show(self, width: int, scheme: str = "light", media: str = "screen") -> None:
        """The page as wide as that, light or dark, on the screen or in print."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def picture(self, out: Path) -> None:
        """The whole page as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        out.write_bytes(base64.b64decode(found["data"]))

    def printed(self, out: Path) -> None:
        """The page as PDF."""
        out.write_bytes(
            base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])
        )

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            read = os.read(self._answers, 1 << 16)
            assert read, "the browser ended"
            self._left += read
        one, _, self._left = self._left.partition(b"\0")
        found = json.loads(one)
        if found.get("method") in ("Runtime.consoleAPICalled", "Log.entryAdded"):
            self.told.append(json.dumps(found["params"]))
        if found.get("method") == "Runtime.exceptionThrown":
            self.told.append(json.dumps(found["params"]))
        if found.get("method") == "Network.requestWillBeSent":
            self.requested.append(found["params"]["request"]["url"])
        return found


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with a page that is not open yet; its files are in the folder `profile`."""
    assert BROWSER is not None, "this test needs a browser: apt-get install chromium"
    ask_read, ask = os.pipe()
    answers, answers_write = os.pipe()
    command = f'exec "{BROWSER}" --headless --no-sandbox --disable-gpu --remote-debugging-pipe'
    process = subprocess.Popen(
        ["bash", "-c", f'{command} "--user-data-dir={profile}" 3<&{ask_read} 4>&{answers_write}'],
        pass_fds=(ask_read, answers_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(ask_read)
    os.close(answers_write)
    try:
        yield Page(ask, answers)
    finally:
        os.close(ask)
        process.terminate()
        process.wait(20)
        os.close(answers)
