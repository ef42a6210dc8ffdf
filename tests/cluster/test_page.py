"""A person in a browser: fills the form, follows the training, and reads its result, while the gateway is restarted."""

import re
from collections.abc import Iterator

import pytest
from cluster import data
from cluster.install import NAMESPACE as RELEASE
from cluster.install import NODE_PORT
from cluster.kube import NAMESPACE
from cluster.running import Running
from page.chromium import chromium
from playwright.sync_api import Page, expect

NAME = "from-the-form"


@pytest.fixture(scope="module")
def page(running: Running) -> Iterator[Page]:
    node = running.kube.core.read_node(running.node)
    address = next(one.address for one in node.status.addresses if one.type == "InternalIP")
    with chromium() as browser:
        page = browser.new_page(locale="en-US")
        page.set_default_timeout(30_000)
        page.goto(f"http://{address}:{NODE_PORT}/")
        yield page


def test_a_training_from_the_form_succeeds_while_the_gateway_restarts(running: Running, page: Page) -> None:
    page.get_by_role("link", name="New job").first.click()
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Model").select_option("mobilenet_v3_small")
    page.get_by_label("Data *").fill("pvc://captures/pictures/train")
    page.get_by_label("Output").fill(f"pvc://models/{NAME}")
    page.get_by_label("Epochs").fill("3")
    page.get_by_label("GPUs").fill("0")
    page.get_by_text("More settings").click()
    page.get_by_label("CPU cores").fill("100m")
    page.get_by_label("Memory", exact=True).fill("4Gi")
    expect(page.locator(".preview")).to_contain_text("Starts at once", timeout=30_000)
    page.get_by_role("button", name="Create job").click()
    expect(page.get_by_role("heading", level=1, name=NAME)).to_be_visible()
    running.kube.kubectl("--namespace", RELEASE, "rollout", "restart", "deployment/rfuav-gateway")
    running.kube.kubectl("--namespace", RELEASE, "rollout", "status", "deployment/rfuav-gateway", "--timeout=120s")
    expect(page.locator(".lead")).to_contain_text("Succeeded", timeout=180_000)
    expect(page.get_by_text("Connection lost, trying again.")).to_have_count(0)
    assert running.kube.status("TrainingJob", NAME)["phase"] == "Succeeded"


def test_its_results_and_its_log_are_there(page: Page) -> None:
    page.get_by_role("link", name="Results").click()
    matrix = page.get_by_role("region", name="Confusion matrix").get_by_role("table")
    expect(matrix).to_contain_text(data.CLASSES[0])
    page.get_by_role("link", name="Log").click()
    expect(
        page.get_by_role("log").locator(".entry", has_text=re.compile("epoch", re.IGNORECASE)).first
    ).to_be_attached()


def test_what_waits_for_it_is_made_from_its_page(running: Running, page: Page) -> None:
    page.goto(page.url.partition("#")[0] + f"#/new?use=training/{NAMESPACE}/{NAME}")
    expect(page.get_by_label("Training *")).to_have_value(NAME)
    page.get_by_label("Name").fill(f"{NAME}-used")
    page.get_by_label("Data *").fill("pvc://captures/pictures/val")
    page.get_by_label("Output").fill(f"pvc://results/{NAME}")
    page.get_by_label("GPUs").fill("0")
    page.get_by_text("More settings").click()
    page.get_by_label("CPU cores").fill("100m")
    page.get_by_label("Memory", exact=True).fill("4Gi")
    page.get_by_role("button", name="Create job").click()
    expect(page.get_by_role("heading", level=1, name=f"{NAME}-used")).to_be_visible()
    expect(page.locator(".lead")).to_contain_text("Succeeded", timeout=180_000)
    assert running.kube.status("InferenceJob", f"{NAME}-used")["phase"] == "Succeeded"
