#!/usr/bin/env python3
"""Looks at the status page in Chromium, by its driver: status_page.py URL [FOLDER]

The page must show a plugin named `<script>alert(1)</script>` as text, must update by itself, may not log an error (such as a
violation of its Content-Security-Policy), and may not be wider than a phone. With a folder, it puts screenshots there: in
light and dark colours, and on a phone.

Needs chromedriver and Chromium (Debian: chromium-driver). Prints "ok", or raises.
"""
import base64
import json
import re
import subprocess
import sys
import time
import urllib.request

NAME = "<script>alert(1)</script>"


class Browser:
    def __init__(self):
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        for line in self.driver.stdout:
            found = re.search(r"started successfully on port (\d+)", line)
            if found:
                break
        self.base = f"http://127.0.0.1:{found[1]}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,900", "--disable-dev-shm-usage"]
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self.ask("", {"capabilities": {"alwaysMatch": capabilities}})
        self.base += "/" + answer["sessionId"]

    def ask(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        return json.load(urllib.request.urlopen(request, timeout=60))["value"]

    def run(self, script):
        return self.ask("/execute/sync", {"script": script, "args": []})

    def devtools(self, command, **parameters):
        return self.ask("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def wait(self, script, what):
        end = time.time() + 60
        while time.time() < end:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(what)

    def screenshot(self, folder, name):
        if folder:
            with open(f"{folder}/{name}.png", "wb") as file:
                file.write(base64.b64decode(self.ask("/screenshot")))

    def close(self):
        try:
            self.ask("", method="DELETE")
        finally:
            self.driver.terminate()


def look(browser, url, folder):
    browser.ask("/url", {"url": url})
    browser.wait("return document.querySelectorAll('section.card').length > 1", "no plugin is shown")
    names = browser.run("return [...document.querySelectorAll('h2')].map(heading => heading.textContent)")
    assert NAME in names, names
    assert "Queues" in names, names
    cells = browser.run("return [...document.querySelectorAll('td')].map(cell => cell.textContent)")
    assert "<b>jobs</b>" in cells, cells
    assert browser.run("return document.querySelectorAll('script').length") == 1, "a name became a script"

    before = browser.run("return document.getElementById('about').textContent")
    script = f"return document.getElementById('about').textContent !== {json.dumps(before)}"
    browser.wait(script, "the page does not update itself")
    for _ in range(30):
        urllib.request.urlopen(url.replace("/status", "/t")).read()
    browser.wait("return [...document.querySelectorAll('svg.none, polyline')].some(line => "
                 "new Set(line.getAttribute('points').split(' ').map(point => point.split(',')[1])).size > 1)",
                 "no sparkline moves")
    assert browser.run("return document.querySelectorAll('rect.bar').length") > 0, "no histogram"

    cell = browser.run("const cell = state({ now: 10 }, { pid: 1, loading_since: 5, loading_stage: 'compiling', "
                       "functions: 200, functions_compiled: 50 });"
                       "return [cell.textContent, cell.querySelector('.meter div').style.width]")
    assert cell == ["compiling for 5 s: 50 of 200 functions", "25%"], cell

    browser.screenshot(folder, "status-light")
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert light != dark, light
    browser.screenshot(folder, "status-dark")
    browser.devtools("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
    wide = browser.wait("return document.documentElement.scrollWidth", "no width")
    assert wide <= 390, f"{wide} pixels on a phone"
    browser.screenshot(folder, "status-phone")

    lines = [line for line in browser.ask("/se/log", {"type": "browser"}) if "favicon" not in line["message"]]
    assert not lines, lines


if __name__ == "__main__":
    chromium = Browser()
    try:
        look(chromium, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    finally:
        chromium.close()
    print("ok")
