"""Pictures of every view of the page, in two sizes and both themes: all into a folder, a selection into docs/img/page. `make screenshots`.

Chromium takes them as PNG and writes them as WebP, which is a fifth of the size.
"""

import base64
import sys
from pathlib import Path

from page.cluster_data import Cluster
from page.conftest import CHROMIUM, serving
from page.gateway_double import TOKEN, Double
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs/img/page"
JOB = "#/jobs/training/radar/drones-resnet18"
VIEWS = {
    "overview": "#/",
    "jobs": "#/jobs",
    "training": JOB,
    "waiting": "#/jobs/training/radar/ocusync-vit-b16",
    "failed": "#/jobs/training/radar/urban-swin-b64",
    "results": "#/jobs/inference/radar/flight7-eval?tab=results",
    "log": f"{JOB}?tab=log",
    "events": f"{JOB}?tab=events",
    "yaml": f"{JOB}?tab=yaml",
    "create": "#/new",
    "confirm": JOB,
    "sign-in": "#/",
}
SIZES = {"desk": (1440, 900), "phone": (390, 844)}
THEMES = ("light", "dark")
KEPT = {
    *(
        f"{view}-desk-light"
        for view in ("overview", "jobs", "training", "waiting", "failed", "results", "log", "create")
    ),
    *(
        "overview-desk-dark",
        "training-desk-dark",
        "overview-phone-light",
        "jobs-phone-dark",
        "training-phone-light",
        "create-phone-dark",
    ),
}
QUALITY = 0.82


def arrange(page: Page, view: str) -> None:
    """Bring a view into the state that the picture is to show."""
    if view == "create":
        page.locator("#f-name").fill("hover-resnet34")
        page.locator("#f-model").select_option("resnet34")
        page.locator("#f-data").fill("pvc://captures/hover")
        page.locator("#f-output").fill("pvc://models/hover-resnet34")
        page.locator("#f-gpus").fill("4")
        page.get_by_text("Place 6 of 18").wait_for()
    elif view == "confirm":
        page.get_by_role("button", name="Suspend").click()


def webp(converter: Page, png: bytes) -> bytes:
    """A picture as WebP."""
    url = converter.evaluate(
        """async ([data, quality]) => {
            const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
            const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL("image/webp", quality);
        }""",
        [base64.b64encode(png).decode(), QUALITY],
    )
    return base64.b64decode(url.split(",")[1])


def take(browser: Browser, url: str, folder: Path, wanted: list[str]) -> None:
    """All pictures of the wanted views."""
    converter = browser.new_page()
    for size, (width, height) in SIZES.items():
        for theme in THEMES:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=theme,
                reduced_motion="reduce",
                device_scale_factor=1,
            )  # type: ignore[arg-type]
            context.add_cookies([{"name": "rfuav_session", "value": TOKEN, "url": url}])
            page = context.new_page()
            for view, place in VIEWS.items():
                if wanted and view not in wanted:
                    continue
                if view == "sign-in":
                    context.clear_cookies()
                page.goto("about:blank")
                page.goto(url + place)
                page.locator("h1").wait_for()
                page.wait_for_timeout(4500 if view == "overview" else 900)  # sparklines need some values
                arrange(page, view)
                page.wait_for_timeout(150)
                name = f"{view}-{size}-{theme}"
                png = page.screenshot()
                (folder / f"{name}.png").write_bytes(png)
                if name in KEPT:
                    DOCS.mkdir(parents=True, exist_ok=True)
                    (DOCS / f"{name}.webp").write_bytes(webp(converter, png))
            context.close()


def main() -> None:
    """`python -m page.screenshots [VIEW ...]`."""
    folder = ROOT / "build/screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    double = Double(Cluster(), sign_in="token", period=1.0)
    with serving(double) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        take(browser, url, folder, sys.argv[1:])
        browser.close()
    kept = sum(path.stat().st_size for path in DOCS.glob("*.webp"))
    print(
        f"{len(list(folder.iterdir()))} pictures in {folder.relative_to(ROOT)}; {len(list(DOCS.glob('*.webp')))} kept in docs, {kept / 1000:.0f} kB"
    )


if __name__ == "__main__":
    main()
