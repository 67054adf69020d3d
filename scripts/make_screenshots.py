"""Pictures of every report, light and dark, 1280 and 390 pixels wide.

    python scripts/make_screenshots.py [--into docs/pictures]

The reports are made with the `demeanor` command on the embedded model, from the scripted conversations in benchmarks/ and the demo's
replies. Needs Chromium, playwright and pillow.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = {1280: 900, 390: 844}


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


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--into", type=Path, default=ROOT / "docs/pictures")
    into = arguments.parse_args().into
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium here; install it (Debian: apt-get install chromium)")
    from PIL import Image
    from playwright.sync_api import sync_playwright

    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made, sync_playwright() as playwright:
        pages = make_reports(Path(made))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for width, height in WIDTHS.items():
                page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
                for name, path in pages.items():
                    page.goto(path.as_uri())
                    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                    picture.save(into / f"{name}-{width}-{scheme}.webp", quality=72, method=6)
        browser.close()
        for name, path in pages.items():
            print(f"{name}: {path.stat().st_size:,} bytes")
    print(f"{sum(p.stat().st_size for p in into.glob('*.webp')):,} bytes of pictures in {into}")


if __name__ == "__main__":
    main()
