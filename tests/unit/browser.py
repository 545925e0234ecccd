"""A real headless Chromium, driven over its debugging pipe (the DevTools protocol) with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
)


class Browser:
    """One page at a time; every call waits until the page has answered."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number, self._session, self._rest = 0, "", b""
        self.complaints: list[str] = []
        """Errors and warnings of the console, and exceptions, since the page was opened."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, page: Path, width: int = 1100, height: int = 900) -> None:
        """Show a file and wait until its figures are drawn. Below 600 pixels it is a phone."""
        mobile = width < 600
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.prefer("light")
        self.complaints = []
        self._ask("Page.navigate", url="about:blank")
        self._ask("Page.navigate", url=page.absolute().as_uri())
        self.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")
        self.settle()

    def prefer(self, colours: str) -> None:
        """`light` or `dark`."""
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise's when it is kept."""
        answer = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def settle(self) -> None:
        """Two frames, in which figures draw what has changed."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def click(self, x: float, y: float) -> None:
        """A click of the mouse at a place of the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            count = 0 if kind == "mouseMoved" else 1
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)
            self.run("new Promise(done => setTimeout(done, 60))")

    def press(self, key: str) -> None:
        """A key of the keyboard, such as `ArrowRight` or ` `."""
        text = key if len(key) == 1 else ""
        self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, code="Space" if key == " " else key, text=text)
        self._ask("Input.dispatchKeyEvent", type="keyUp", key=key, code="Space" if key == " " else key)
        self.settle()

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """The window, or the whole page, as a PNG."""
        answer = self._ask("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(answer["data"]))

    def on_paper(self) -> None:
        """The open page with the style that a printer gets."""
        self._ask("Emulation.setEmulatedMedia", media="print")

    def printed(self, file: Path) -> None:
        """The page as a printer gets it, as a PDF."""
        file.write_bytes(base64.b64decode(self._ask("Page.printToPDF")["data"]))

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, (method, said["error"])
                return said["result"]
            self._note(said)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(line))

    def _note(self, said: dict[str, Any]) -> None:
        match said.get("method"), said.get("params"):
            case "Runtime.exceptionThrown", dict(happened):
                self.complaints.append(str(happened["exceptionDetails"]))
            case "Runtime.consoleAPICalled", {"type": "error" | "warning" | "assert", "args": args}:
                self.complaints.append(str(args))
            case "Log.entryAdded", {"entry": {"level": "error" | "warning", "text": text}}:
                self.complaints.append(text)


@contextmanager
def browser(options: Sequence[str] = ()) -> Iterator[Browser]:
    """Start Chromium with a profile of its own, and end it."""
    assert CHROMIUM is not None
    to_it, from_us = os.pipe()
    to_us, from_it = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser reads from descriptor 3 and writes to 4.
        line = f'exec "$0" "$@" 3<&{to_it} 4>&{from_it}'
        flags = [*QUIET.split(), "--remote-debugging-pipe", f"--user-data-dir={profile}", *options]
        process = subprocess.Popen(
            ["bash", "-c", line, CHROMIUM, *flags], pass_fds=(to_it, from_it), stderr=subprocess.DEVNULL
        )
        os.close(to_it)
        os.close(from_it)
        try:
            yield Browser(from_us, to_us)
        finally:
            process.terminate()
            process.wait(timeout=20)
            os.close(from_us)
            os.close(to_us)
