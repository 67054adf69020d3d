"""Pictures of every report and of the dashboard, light and dark, 1280 and 390 pixels wide.

    python scripts/make_screenshots.py [--into docs/pictures] [--only reports|dashboard]

The reports are made with the `demeanor` command on the embedded model, from the scripted conversations in benchmarks/ and the demo's
replies; the dashboard shows its example. Needs Chromium, playwright and pillow.
"""

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = {1280: 900, 390: 844}
DASHBOARD = {
    "now": "/", "queue": "/queue", "conversations": "/conversations", "reply": "/replies/3", "labels": "/labels",
    "rule": "/labels/low_empathy",
}  # fmt: skip


def demeanor(folder, *arguments):
    done = subprocess.run([sys.executable, "-m", "demeanor.cli.main", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(f"demeanor {' '.join(arguments)} failed: {done.stderr}")


def make_reports(folder):
    """The page of each report, by its name."""
    rows = []
    for talk in yaml.safe_load((ROOT / "benchmarks/scenarios.yaml").read_text(encoding="utf-8")):
        said = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(talk["turns"])]
        rows.append({"id": talk["name"], "messages": said})
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    demo = folder / "demeanor-demo"
    demeanor(folder, "demo")
    demeanor(folder, "monitor", "talks.jsonl", "--output", "decisions.jsonl", "--report", "monitor.html")
    demeanor(folder, "screen", "talks.jsonl", "--output", "screened")
    demeanor(folder, "compare", str(demo / "before.jsonl"), str(demo / "after.jsonl"), "--report", "comparison.html")
    pages = {
        "monitor": "monitor.html",
        "screening": "screened/report.html",
        "comparison": "comparison.html",
        "vectors": "demeanor-demo/report.html",
    }
    return {name: folder / page for name, page in pages.items()}


def shoot(page, into, name, width, scheme):
    from PIL import Image

    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(into / f"{name}-{width}-{scheme}.webp", quality=72, method=6)


def shoot_reports(browser, into):
    with tempfile.TemporaryDirectory() as made:
        pages = make_reports(Path(made))
        for scheme, width, page in views(browser):
            for name, path in pages.items():
                page.goto(path.as_uri())
                shoot(page, into, name, width, scheme)
        for name, path in pages.items():
            print(f"{name}: {path.stat().st_size:,} bytes")


def views(browser):
    """A new page in each look."""
    for scheme in ("light", "dark"):
        for width, height in WIDTHS.items():
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            yield scheme, width, context.new_page()
            context.close()


def shoot_dashboard(browser, into):
    """Served by the command itself, from the example."""
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, "-u", "-m", "demeanor.cli.main", "demo", "--serve", "--output", made]
        served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            said = served.stdout.readline()
            address, password = re.search(r"(http://\S+); sign in as demo with the password (\S+)", said).groups()
            for scheme, width, page in views(browser):
                page.goto(address)
                page.fill("[name=name]", "demo")
                page.fill("[name=password]", password)
                page.click("main button")
                for name, path in DASHBOARD.items():
                    page.goto(address + path)
                    shoot(page, into, f"dashboard-{name}", width, scheme)
        finally:
            served.terminate()
            served.wait(10)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--into", type=Path, default=ROOT / "docs/pictures")
    arguments.add_argument("--only", choices=("reports", "dashboard"))
    given = arguments.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium here; install it (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    given.into.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if given.only != "dashboard":
            shoot_reports(browser, given.into)
        if given.only != "reports":
            shoot_dashboard(browser, given.into)
        browser.close()
    print(f"{sum(p.stat().st_size for p in given.into.glob('*.webp')):,} bytes of pictures in {given.into}")


if __name__ == "__main__":
    main()
