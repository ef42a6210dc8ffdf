"""What the page shows and does, in Chromium, served by a double of the gateway."""

import json
import re

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from page.cluster_data import TEAMS
from page.gateway_double import TOKEN
from playwright.sync_api import expect

JOB = "#/jobs/training/radar/drones-resnet18"
WAITING = "#/jobs/training/radar/ocusync-vit-b16"
ENDED = "#/jobs/inference/radar/flight7-eval"
VIEWS = [
    "#/",
    "#/jobs",
    "#/new",
    "#/new?type=inference",
    JOB,
    f"{JOB}?tab=log",
    f"{ENDED}?tab=results",
    f"{JOB}?tab=events",
    f"{JOB}?tab=yaml",
    WAITING,
    "#/jobs/training/radar/urban-swin-b64",
]


def heading(page, name):
    return page.get_by_role("heading", level=1, name=name)


def settled(page):
    """The view has what it asks for."""
    expect(page.locator("h1")).to_be_visible()
    expect(page.get_by_text("Loading …")).to_have_count(0)
    expect(page.get_by_text("正在加载")).to_have_count(0)


def test_overview_tells_who_holds_what(open_page):
    page = open_page()
    expect(page.get_by_role("heading", name="default", exact=True)).to_be_visible()
    running = page.get_by_role("region", name=re.compile("^Running"))
    expect(running.locator("tbody tr")).to_have_count(8)
    expect(running.get_by_role("progressbar").first).to_have_attribute("aria-valuetext", re.compile(r"\d+%"))
    queue = page.get_by_role("region", name=re.compile("^Queue"))
    expect(queue.locator("tbody tr").first).to_contain_text("ocusync-vit-b16")
    expect(queue.locator("tbody tr").first).to_contain_text("Waits for a free GPU")
    expect(queue.locator("tbody tr").first).to_contain_text(re.compile(r"in about 1\d min"))
    expect(page.get_by_role("region", name="Quotas")).to_contain_text("borrowed")
    page.get_by_role("button", name=re.compile("da1-04")).click()
    expect(page.locator(".node-jobs a").first).to_be_visible()


def test_gpu_hours_are_shown_where_the_gateway_has_them(open_page):
    page = open_page()
    expect(page.locator(".tile", has_text="GPU-hours")).to_contain_text("161")
    page.get_by_label("Team").select_option("radar")
    expect(page.locator(".tile", has_text="GPU-hours")).to_contain_text("101")


def test_progress_arrives_without_a_reload(open_page, double):
    page = open_page(JOB)
    lead = page.locator(".lead")
    expect(lead).to_contain_text("Epoch 64 of 100")
    row = double.cluster.rows["training/radar/drones-resnet18"]
    row.update(percent=81.0, epoch=81, touched=True)
    expect(lead).to_contain_text(re.compile("Epoch 8[1-9] of 100"))


def test_search_and_filters_live_in_the_address(open_page):
    page = open_page("#/jobs")
    settled(page)
    page.get_by_role("searchbox").fill("radar drones")
    expect(page.get_by_role("link", name="drones-resnet18")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Running")).click()
    page.get_by_label("Type").select_option("training")
    assert "q=radar+drones" in page.url
    assert "state=running" in page.url
    assert "type=training" in page.url
    found = page.locator(".grid-row").count()
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_role("searchbox")).to_have_value("radar drones")
    expect(other.locator(".grid-row")).to_have_count(found)
    other.get_by_role("searchbox").fill("no such job anywhere")
    other.get_by_role("button", name="Clear filters").click()
    expect(other.locator(".grid-row").nth(20)).to_be_attached()


def test_columns_sort(open_page):
    page = open_page("#/jobs")
    settled(page)
    page.get_by_role("button", name="Job", exact=True).click()
    names = page.locator(".grid-row .job").all_text_contents()
    assert names == sorted(names)
    page.get_by_role("button", name="Job", exact=True).click()
    expect(page.get_by_role("columnheader", name="Job")).to_have_attribute("aria-sort", "descending")


def test_ten_thousand_jobs_draw_only_those_in_sight(open_page, double):
    for _ in range(10_000):
        double.cluster._end()
    page = open_page("#/jobs")
    expect(page.get_by_role("button", name=re.compile("^All 1[0-9],"))).to_be_visible()
    assert page.locator(".grid-row").count() < 60
    page.locator("main").evaluate("main => main.scrollTo(0, main.scrollHeight)")
    last = int(page.get_by_role("table").get_attribute("aria-rowcount"))
    expect(page.locator(f'.grid-row[aria-rowindex="{last}"]')).to_be_visible()
    assert page.locator(".grid-row").count() < 60


def test_the_keyboard_goes_everywhere(open_page):
    page = open_page()
    settled(page)
    page.keyboard.press("g")
    page.keyboard.press("j")
    expect(heading(page, "Jobs")).to_be_visible()
    expect(page.locator(".grid-row").first).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("drones-resnet18")
    expect(page.locator(".grid-row")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="drones-resnet18")).to_be_focused()
    page.keyboard.press("Enter")
    expect(heading(page, "drones-resnet18")).to_be_visible()
    page.keyboard.press("Escape")
    expect(heading(page, "Jobs")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("c")
    expect(heading(page, "New job")).to_be_visible()


def test_j_walks_through_a_long_list(open_page):
    page = open_page("#/jobs")
    expect(page.locator(".grid-row").first).to_be_visible()
    for _ in range(45):
        page.keyboard.press("j")
    expect(page.locator('[data-at="44"]')).to_be_focused()
    expect(page.locator('[data-at="44"]')).to_be_in_viewport()
    page.keyboard.press("k")
    expect(page.locator('[data-at="43"]')).to_be_focused()


def test_a_job_that_waits_says_why(open_page):
    page = open_page(WAITING)
    expect(page.locator(".lead")).to_contain_text("Place 1 of 18 in the pool default. Starts in about 1")
    expect(page.locator(".checklist .open")).to_contain_text("needs 4 GPUs on one node")
    expect(page.locator(".checklist .ok")).to_have_count(3)


def test_failures_come_with_advice(open_page):
    page = open_page("#/jobs/training/radar/urban-swin-b64")
    expect(page.locator(".lead")).to_contain_text("Out of GPU memory")
    expect(page.locator(".attempts li").last).to_contain_text("What to do: write the batchSize")


def test_curves_are_drawn_and_described(open_page):
    page = open_page(JOB)
    chart = page.get_by_role("img", name=re.compile("^Loss over"))
    expect(chart).to_have_accessible_name(re.compile(r"now 0\.\d+ on the training data, 0\.\d+ on the validation data"))
    assert len(chart.locator("polyline").first.get_attribute("points").split()) > 20
    chart.hover(position={"x": 200, "y": 60})
    expect(page.locator(".chart").first.locator("figcaption")).to_contain_text("Epoch")


def test_results_are_tables(open_page):
    page = open_page(f"{ENDED}?tab=results")
    matrix = page.get_by_role("region", name="Confusion matrix").get_by_role("table")
    expect(matrix.locator("tr", has=page.get_by_role("rowheader", name="FrSky X20"))).to_contain_text("147")
    expect(page.get_by_role("row", name="-20 160 51.5%")).to_be_visible()


def test_the_log_is_live_and_searched(open_page):
    page = open_page(f"{JOB}?tab=log")
    lines = page.get_by_role("log").locator(".entry")
    expect(lines.nth(241)).to_be_attached()
    page.get_by_role("searchbox").fill("unreadable")
    expect(lines.nth(5)).to_be_attached()
    assert lines.count() < 12
    expect(page.locator("mark").first).to_have_text("unreadable")


def test_the_log_of_a_job_that_ended_is_not_asked_for_again(open_page):
    page = open_page(f"{ENDED}?tab=log")
    expect(page.get_by_text("The log has ended.")).to_be_visible()


def test_yaml_is_what_kubectl_would_apply(open_page):
    page = open_page(f"{JOB}?tab=yaml")
    manifest = yaml.safe_load(page.locator("pre").inner_text())
    assert manifest["metadata"] == {
        "name": "drones-resnet18",
        "namespace": "radar",
        "labels": {"team": "radar", "on": "yes"},
    }
    assert manifest["spec"]["training"]["optimizer"]["learningRate"] == 0.0001
    assert "status" not in manifest


def test_suspend_resume_and_cancel_ask_first(open_page, double):
    page = open_page(JOB)
    page.get_by_role("button", name="Suspend").click()
    dialog = page.get_by_role("dialog", name="Suspend drones-resnet18?")
    dialog.get_by_role("button", name="Back").click()
    expect(dialog).to_have_count(0)
    assert double.posted == []
    page.get_by_role("button", name="Suspend").click()
    dialog.get_by_role("button", name="Suspend").click()
    expect(page.locator(".lead")).to_contain_text("Suspended")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".lead")).to_contain_text("Waiting")
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
    expect(page.locator(".lead")).to_contain_text("Cancelled")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(heading(page, "Jobs")).to_be_visible()
    assert [verb for verb, _ in double.posted] == ["suspend", "resume", "cancel", "delete"]


def test_a_job_that_is_deleted_meanwhile_has_no_buttons(open_page, double):
    page = open_page(JOB)
    expect(page.get_by_role("button", name="Suspend")).to_be_visible()
    del double.cluster.rows["training/radar/drones-resnet18"]
    expect(page.get_by_text("This job was deleted.")).to_be_visible()
    expect(page.get_by_role("button", name="Suspend")).to_have_count(0)


def test_no_button_for_what_one_may_not(open_page, double):
    double.may = {"create": False, "update": False, "delete": False, "logs": False}
    page = open_page(JOB)
    expect(page.get_by_text("In a terminal")).to_be_visible()
    for name in ("Suspend", "Cancel job", "Delete"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    for name in ("Clone", "New job", "Log"):
        expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)


def test_other_teams_are_not_there(open_page, double):
    double.teams = ("radar",)
    double.may_pools = False
    page = open_page("#/jobs")
    settled(page)
    text = page.locator("main").inner_text()
    assert "drones-resnet18" in text
    assert not any(re.search(rf"\b{team}\b", text) for team in TEAMS if team != "radar")
    page.goto(page.url.split("#")[0] + "#/jobs/training/fusion/drones")
    expect(page.get_by_text("This job is not here")).to_be_visible()


def test_the_form_shows_yaml_preview_and_errors_and_creates(open_page, double):
    page = open_page("#/new")
    page.get_by_role("button", name="Create job").click()
    expect(page.get_by_label("Name")).to_be_focused()
    page.get_by_label("Name").fill("hover-resnet34")
    page.get_by_label("Model").select_option("resnet34")
    page.get_by_label("Data *").fill("captures/train")
    page.get_by_label("Output").fill("pvc://models/hover-resnet34")
    expect(page.locator(".field.bad .error")).to_contain_text("write pvc://CLAIM/path")
    page.get_by_label("Data *").fill("pvc://captures/train")
    expect(page.locator(".preview")).to_contain_text("Starts at once")
    page.get_by_label("GPUs").fill("4")
    expect(page.locator(".preview")).to_contain_text("Place 6 of 18")
    expect(page.locator(".preview")).to_contain_text(re.compile("Starts in about 2[56] min"))
    shown = yaml.safe_load(page.locator("pre").inner_text())
    page.get_by_role("button", name="Create job").click()
    expect(heading(page, "hover-resnet34")).to_be_visible()
    assert double.posted[-1] == ("create", shown)
    assert shown["spec"] == {
        "model": {"architecture": "resnet34"},
        "dataset": {"train": {"uri": "pvc://captures/train"}, "validation": {"fraction": 0.2}},
        "training": {"epochs": 100},
        "output": {"uri": "pvc://models/hover-resnet34"},
        "resources": {"gpus": 4},
    }


def test_a_name_that_is_taken_is_refused_in_words(open_page):
    page = open_page("#/new?type=inference")
    page.get_by_label("Name").fill("flight7-eval")
    page.get_by_label("Training *").fill("drones-resnet18")
    page.get_by_label("Data *").fill("pvc://captures/flight7")
    page.get_by_label("Output").fill("pvc://results/flight7")
    page.get_by_role("button", name="Create job").click()
    expect(page.locator(".preview")).to_contain_text("choose another name")


def test_a_clone_keeps_what_the_form_does_not_know(open_page, double):
    page = open_page(JOB)
    page.get_by_role("link", name="Clone").click()
    expect(page.get_by_label("Name")).to_have_value("drones-resnet18-2")
    expect(page.locator(".preview")).to_contain_text("Starts in about")
    page.get_by_role("button", name="Create job").click()
    expect(heading(page, "drones-resnet18-2")).to_be_visible()
    spec = double.posted[-1][1]["spec"]
    assert spec["training"]["optimizer"] == {"name": "adam", "learningRate": 0.0001}
    assert spec["resources"] == {"gpus": 2, "cpu": "4", "memory": "16Gi"}


def test_signing_in_and_out(open_page, double):
    double.sign_in = "token"
    page = open_page()
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not accept this token")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(heading(page, "Overview")).to_be_visible()
    assert page.evaluate("document.cookie + JSON.stringify(localStorage)").find(TOKEN) < 0
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()


def test_compat_warns(open_page, double):
    double.compat = True
    expect(open_page().get_by_role("note")).to_contain_text("without credentials")


def test_a_lost_connection_is_said_and_found_again(open_page, double):
    page = open_page()
    settled(page)
    double.up = False
    double.call(double.cut)
    expect(page.get_by_text("Connection lost, trying again.")).to_be_visible()
    expect(page.get_by_role("heading", name="default", exact=True)).to_be_visible()
    del double.cluster.rows["training/radar/ocusync-vit-b16"]
    double.up = True
    expect(page.get_by_text("Connection lost, trying again.")).to_have_count(0)
    expect(page.get_by_text("ocusync-vit-b16")).to_have_count(0)


def test_an_empty_cluster_says_what_to_do(open_page, double):
    double.cluster.rows.clear()
    for nodes in double.cluster.nodes.values():
        for node in nodes:
            node.update(jobs=[], heldGpus=0)
    double.usage = None
    page = open_page()
    expect(page.get_by_text("kubectl apply -f examples/training-job.yaml")).to_be_visible()
    expect(page.get_by_text("GPU-hours")).to_have_count(0)
    page.goto(page.url.split("#")[0] + "#/jobs")
    expect(page.get_by_text("No jobs yet")).to_be_visible()


def test_chinese_and_back(open_page):
    page = open_page(language="zh-CN")
    expect(heading(page, "总览")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    page.get_by_role("button", name="English").click()
    expect(heading(page, "Overview")).to_be_visible()


def test_the_theme_follows_the_system_and_the_switch(open_page):
    page = open_page(theme="dark")
    settled(page)
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name=re.compile("^Theme")).click()
    light = page.evaluate(ground)
    assert dark != light
    page.reload()
    settled(page)
    assert page.evaluate(ground) == light


@pytest.mark.parametrize(("theme", "options"), [("light", None), ("dark", {"runOnly": ["color-contrast"]})])
def test_a_screen_reader_finds_its_way_and_eyes_a_contrast(open_page, double, theme, options):
    double.period = 60  # a page that changes meanwhile costs axe twice the time
    page = open_page(theme=theme)
    root = page.url.split("#")[0]
    found = {}
    for view in VIEWS if options is None else ("#/", "#/jobs", "#/new", JOB, f"{ENDED}?tab=results", WAITING):
        page.goto(root + view)
        settled(page)
        page.wait_for_timeout(250)
        answer = Axe().run(page, options=options)
        if answer.violations_count:
            found[view] = [
                (one["id"], one["nodes"][0]["html"][:160], one["nodes"][0]["failureSummary"][:200])
                for one in answer.response["violations"]
            ]
    double.sign_in = "token"
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()
    if Axe().run(page).violations_count:
        found["sign-in"] = [one["id"] for one in Axe().run(page).response["violations"]]
    assert found == {}, json.dumps(found, indent=1)


@pytest.mark.parametrize(
    ("size", "language"), [((390, 844), "en-US"), ((390, 844), "zh-CN"), ((1440, 900), "zh-CN"), ((820, 1180), "en-US")]
)
def test_nothing_is_wider_than_the_screen(open_page, size, language):
    page = open_page(size=size, language=language)
    root = page.url.split("#")[0]
    for view in VIEWS:
        page.goto(root + view)
        settled(page)
        page.wait_for_timeout(150)
        over = page.evaluate("""() => [...document.querySelectorAll("main, main *")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1
            && !one.closest(".unseen, .lines, .code, .command, .tabs, .choice, .scroll, svg")).map((one) => one.outerHTML.slice(0, 120)).slice(0, 3)""")
        assert over == [], view
