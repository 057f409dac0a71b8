"""The page in Chromium: asks, reads a document, asks about it, stops an answer, forgets the document."""

import sys

from playwright.sync_api import expect, sync_playwright

# Locators need no eval, which the page's policy forbids.
expect.set_options(timeout=60_000)

with sync_playwright() as play:
    browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(sys.argv[1])
    expect(page.locator("#model")).to_contain_text("context")
    page.click("summary:has-text('How tokens are chosen')")

    def ask(question, tokens=24):
        page.fill("#max_tokens", str(tokens))
        page.fill("#question", question)
        page.press("#question", "Enter")

    def answered(count):
        expect(page.locator(".message small:last-child")).to_have_count(count)

    ask("Say hello.")
    answered(1)
    page.fill("#name", "page-doc")
    page.fill("#text", "The sky is blue because air scatters blue light more than red light. " * 10)
    page.check("#compress")
    page.fill("#method", "keydiff")
    page.fill("#budget", "40%")
    page.click("#read button[type=submit]")
    page.wait_for_selector("input[name=about][value=page-doc]", timeout=60_000)
    assert page.is_checked("input[name=about][value=page-doc]")
    ask("Why is the sky blue?")
    answered(2)
    assert "of the prompt kept" in page.text_content(".message:last-child small:last-child")
    page.click("summary:has-text('What each head keeps')")
    page.select_option("#shown", "page-doc")
    expect(page.locator("#map-text")).to_contain_text("layers")
    ask("Tell a long story about a fox.", 400)
    expect(page.locator(".message:last-child p")).not_to_be_empty()
    page.click("#stop")
    answered(3)
    assert page.text_content(".message:last-child small:last-child") == "stopped"
    page.click("button[aria-label='Forget page-doc']")
    page.wait_for_selector("input[value=page-doc]", state="detached")
    assert not errors, errors
    print("the page works")
