"""The live page in a real browser, in front of a real gateway of two workers."""

import re
from itertools import islice
from pathlib import Path

import pytest
from playwright.sync_api import expect

from gateway.energy import watt_hours
from tests.dashboard.conftest import FREE_KEY, events
from tests.kit.chat import new_id
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY, eventually

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
TOLD = 2
"""Views, of which there is one a second, with which a failure has to be seen."""


def chat(client, model="frail", text="Hello"):
    return client.post(
        "/v1/chat/completions",
        json={"model": model, "temperature": 0, "messages": [{"role": "user", "content": text}]},
    )


def live(page):
    expect(page.locator("#connection")).to_have_text("live")
    return page


def ejections(client):
    found = re.findall(
        r'^tidegate_upstream_ejections_total\{.*"frail".*\} (\S+)', client.get("/metrics").text, re.MULTILINE
    )
    return sum(map(float, found))


def out(view, name):
    """Whether a view tells that an upstream is out of rotation."""
    (upstream,) = [each for each in view["upstreams"] if each["name"] == name]
    return "open" in upstream["states"]


def test_an_upstream_that_fails_turns_red_within_two_seconds(visit, gateway, upstream):
    page = live(visit(ADMIN_KEY))
    row = page.locator("#upstreams tr", has_text="frail/ok-today")
    expect(row).to_have_attribute("data-state", "closed")
    for asked in ("ok-today", "/ok"):  # calls, and probes, which name no model
        upstream.behave(asked, "status:code=500")
    try:
        with gateway.client() as client:
            eventually(lambda: chat(client).status_code and ejections(client))
            with gateway.admin() as admin, admin.stream("GET", "/admin/events") as answer:
                views = islice(events(answer), 1 + TOLD)  # the first is there already
                assert any(out(view, "frail/ok-today") for view in views)
            expect(row).to_have_attribute("data-state", "open")
            state = row.locator(".state")
            expect(state).to_have_text("out")
            red, green, blue = map(
                int, re.findall(r"\d+", state.evaluate("each => getComputedStyle(each).color"))[:3]
            )
            assert red > 2 * max(green, blue)
            expect(row).to_contain_text("failures in a row")
            # The failover's history: what failed and what answered then.
            answer = chat(client, "both")
            history = page.locator(f"#request-{answer.headers['x-request-id']} .attempts")
            expect(history).to_contain_text("sound ok")
    finally:
        upstream.behave("/ok", None)
        upstream.behave("ok-today", "ok")
        page.get_by_role("button", name="Probe frail/ok-today").click()


def test_a_tier_edited_on_the_page_takes_effect(visit, gateway, keys):
    page = live(visit(keys["operator"], expected=["412 (Precondition Failed)", "400 (Bad Request)"]))
    page.get_by_role("button", name="Edit the tier free").click()
    dialog = page.get_by_role("dialog", name="Tier free")
    expect(dialog.get_by_label("Requests")).to_have_value("1000/minute")

    with gateway.admin() as admin:  # somebody else is faster
        changed = admin.patch("/admin/tiers/free", json={"weight": 3}, headers={"if-match": "*"})
        assert changed.status_code == 200
    dialog.get_by_label("Requests").fill("1/day")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("changed it meanwhile")
    expect(dialog.get_by_label("Weight")).to_have_value("3")

    dialog.get_by_label("Requests").fill("so many")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("limits.requests")

    dialog.get_by_label("Requests").fill("1/day")
    dialog.get_by_label("Requests").press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#tier-free")).to_contain_text("requests 1/day")
    with gateway.client(FREE_KEY) as client:
        assert eventually(lambda: chat(client, "both").status_code == 429)
    expect(page.locator("#tier-free .warn")).not_to_have_count(0)


def test_sign_in_refuses_other_keys(visit):
    page = visit(CLIENT_KEY, expected=["403 (Forbidden)", "401 (Unauthorized)"])
    expect(page.get_by_role("alert")).to_contain_text("role viewer; this one has the role client")
    page.get_by_label("Admin key").fill("tga-wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown")
    assert not page.context.cookies()


def test_the_key_is_in_a_cookie_that_scripts_and_other_sites_have_no_use_of(visit):
    page = live(visit(ADMIN_KEY))
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Admin key")).to_be_visible()
    assert not page.context.cookies()


def test_a_viewer_sees_and_changes_nothing(visit, keys):
    page = live(visit(keys["viewer"], expected=["403 (Forbidden)"]))
    expect(page.locator("#upstreams")).to_contain_text("sound/ok")
    expect(page.locator("main button")).to_have_count(0)
    order = "fetch('/admin/upstreams/sound/drain', {method: 'POST'}).then(answer => answer.status)"
    assert page.evaluate(order) == 403


def test_an_order_by_keyboard_keeps_its_place(visit, keys):
    page = live(visit(keys["operator"]))
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Drain sound/ok").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text("sound/ok drains")  # for a while only
    expect(page.get_by_role("button", name="Resume sound/ok")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Drain sound/ok")).to_be_focused()


def test_charts_are_drawn_and_the_cache_the_cost_and_the_energy_are_told(visit, gateway):
    page = live(visit(ADMIN_KEY))
    with gateway.client() as client:
        text = new_id()  # an earlier run's answers may be on the disk
        asked, hit = (chat(client, "both", text) for _ in range(2))
    assert {asked.status_code, hit.status_code} == {200}
    assert float(hit.headers["x-tidegate-energy-j"]) == 0
    took = page.locator(f"#request-{asked.headers['x-request-id']} td[title=estimated]")
    expect(took).to_have_text(watt_hours(float(asked.headers["x-tidegate-energy-j"])))
    expect(page.locator("#summary")).to_contain_text(re.compile(r"Energy today\s*[\d.,]+ m?Wh"))
    expect(page.locator("#spend tr", has_text="both")).to_contain_text("estimated")
    expect(page.locator("#cache")).to_contain_text("both")
    expect(page.locator("#spend")).to_contain_text("both")
    expect(page.locator("traffic-chart canvas")).to_have_count(1)
    expect(page.locator("first-token-line canvas").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_is_in_the_way_of_anybody(visit, scheme):
    page = visit(scheme=scheme, expected=["Applying inline style"])  # axe-core's own, refused
    assert serious(page) == []
    page.get_by_label("Admin key").fill(ADMIN_KEY)
    page.get_by_role("button", name="Sign in").click()
    live(page)
    assert serious(page) == []
    page.get_by_role("button", name="Edit the tier free").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert serious(page) == []


def serious(page):
    """What axe-core finds that is serious or worse."""
    page.evaluate(AXE)  # past the page's policy, as a debugger is
    found = page.evaluate("axe.run().then(found => found.violations)")
    return [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]


def test_colours_follow_the_system_or_the_choice(visit):
    page = live(visit(ADMIN_KEY, scheme="dark"))
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_label("Colours").select_option("light")
    light = page.evaluate(ground)
    brightness = [sum(map(int, re.findall(r"\d+", colour))) for colour in (dark, light)]
    assert brightness[0] < 150
    assert brightness[1] > 600
    page.reload()
    assert page.evaluate(ground) == light
