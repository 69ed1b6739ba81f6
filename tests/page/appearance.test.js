// @ts-check
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import axe from "axe-core";
import { MAX, live, openPage, setValue, shows, startBrowser, startServer, until } from "./harness.js";

const SCREENS = [
  { width: 320, height: 568 },
  { width: 360, height: 640 },
  { width: 640, height: 360 },
  { width: 820, height: 1180 },
  { width: 1280, height: 800 },
  { width: 3840, height: 2160 },
];

describe("the page", () => {
  /** @type {Awaited<ReturnType<typeof startServer>>} */
  let server;
  /** @type {Awaited<ReturnType<typeof startBrowser>>} */
  let browser;
  let rooms = 0;

  before(async () => {
    server = await startServer({ args: ["--allow-host", "counter.test"] });
    browser = await startBrowser(["--host-resolver-rules=MAP counter.test 127.0.0.1"]);
  });
  afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));
  after(async () => {
    await browser?.close();
    await server?.kill();
  });

  /** A room that no other test uses. */
  const newRoom = () => `${server.url}/r/room-${(rooms += 1)}`;

  for (const viewport of SCREENS) {
    const size = `${viewport.width}×${viewport.height}`;
    for (const locale of ["en-GB", "fr-FR"]) {
      test(`everything fits on ${size} with the longest number, in ${locale}`, async () => {
        const url = `${server.url}/r/${"long-".repeat(12)}${(rooms += 1)}`;
        const { page } = await openPage(browser, url, { viewport, locale });
        await setValue(url, -MAX);
        await shows(page, ".value", String(-MAX));
        await fits(page);
        const font = await page.locator(".value").evaluate((value) => parseFloat(getComputedStyle(value).fontSize));
        assert.ok(font >= 16, `the number is ${font}px high`);
      });
    }
  }

  for (const viewport of SCREENS) {
    test(`everything fits on ${viewport.width}×${viewport.height} with a question about changes`, async () => {
      const { page } = await openPage(browser, newRoom(), { viewport, locale: "fr-FR" });
      await leaveUnsure(page);
      await fits(page);
      const boxes = await page.locator(".unsure, .unsure button").evaluateAll((all) => all.map((one) => one.getBoundingClientRect().toJSON()));
      for (const box of boxes) assert.ok(box.left >= 0 && box.right <= viewport.width && box.height >= 44, JSON.stringify(box));
    });
  }

  test("both buttons stay on a 360×640 screen while the page is disconnected or explains something", async () => {
    const own = await startServer();
    try {
      const { page } = await openPage(browser, own.url, { viewport: { width: 360, height: 640 }, locale: "fr-FR" });
      await page.fill("#room", "?");
      await page.press("#room", "Enter");
      await shows(page, "#room-message", /./);
      await own.kill();
      await shows(page, ".status-text", /Reconnexion/);
      await page.click(".plus");
      await page.locator(".pending").waitFor();
      await fits(page);
    } finally {
      await own.kill();
    }
  });

  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    for (const locale of ["en-GB", "zh-CN", "zh-TW", "fr-FR"]) {
      test(`axe-core finds nothing in ${colorScheme}, ${locale}`, async () => {
        const url = newRoom();
        const { page } = await openPage(browser, url, { colorScheme, locale });
        await accessible(page);
        await page.fill("#room", "?");
        await page.press("#room", "Enter");
        await setValue(url, MAX);
        await shows(page, ".value", String(MAX));
        await page.click(".plus");
        await shows(page, ".toast", /./);
        await accessible(page);
      });

      test(`a question about changes is asked well in ${colorScheme}, ${locale}`, async () => {
        const { page, complaints } = await openPage(browser, newRoom(), { colorScheme, locale });
        await leaveUnsure(page);
        await shows(page, ".unsure-sum", "+8 \u22121 = 7 = 0");
        await shows(page, ".unsure-count", /^5 \S/);
        await shows(page, ".announcement", /5.*\+8 \u22121 = 7 = 0$/);
        await accessible(page);
        assert.deepEqual(complaints, []);
      });
    }

    test(`axe-core finds nothing in ${colorScheme}, disconnected`, async () => {
      const own = await startServer();
      try {
        const { page } = await openPage(browser, own.url, { colorScheme });
        await leaveUnsure(page);
        await own.kill();
        await shows(page, ".status-text", /Reconnecting/);
        await page.click(".plus");
        await page.locator(".pending").waitFor();
        await accessible(page);
      } finally {
        await own.kill();
      }
    });
  }

  /** @type {[string, string, string, string][]} */
  const LANGUAGES = [
    ["en-US", "en", "Live", "1 online"],
    ["zh-CN", "zh-Hans", "已连接", "1 人在线"],
    ["zh-TW", "zh-Hant", "已連線", "1 人在線上"],
    ["zh-HK", "zh-Hant", "已連線", "1 人在線上"],
    ["fr-CA", "fr", "En direct", "1 en ligne"],
    ["de-DE", "en", "Live", "1 online"],
  ];
  for (const [locale, lang, status, users] of LANGUAGES) {
    test(`a browser in ${locale} gets ${lang}`, async () => {
      const { page, complaints } = await openPage(browser, newRoom(), { locale });
      assert.equal(await page.getAttribute("html", "lang"), lang);
      assert.equal(await page.textContent(".status-text"), status);
      await shows(page, ".users", users);
      const unnamed = page.locator("button:not([aria-label])", { hasNotText: /\S/ });
      assert.equal(await unnamed.count(), 0);
      assert.deepEqual(complaints, []);
    });
  }

  test("it is announced: the value as a live region, the buttons by name", async () => {
    const { page } = await openPage(browser, newRoom());
    assert.equal(await page.getAttribute(".value", "aria-live"), "polite");
    await page.getByRole("button", { name: "Add one" }).click();
    await shows(page, ".value", "1");
    assert.equal(await page.getByRole("status", { name: "Count" }).textContent(), "1");
    await page.getByRole("button", { name: "Take one away" }).click();
    await shows(page, ".value", "0");
  });

  test("its policy allows nothing from elsewhere, and it keeps to it", async () => {
    const { page, response, complaints, origins } = await openPage(browser, newRoom());
    const policy = response.headers()["content-security-policy"];
    for (const rule of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]) {
      assert.ok(policy?.includes(rule), `${rule} is missing in: ${policy}`);
    }
    assert.ok(!policy.includes("unsafe"));
    await page.click(".plus");
    await shows(page, ".value", "1");
    await page.keyboard.press("-");
    await shows(page, ".value", "0");
    await page.click(".copy");
    await page.reload();
    await live(page);
    assert.deepEqual([...origins], [server.url]);
    assert.deepEqual(complaints, []);
  });

  test("a changed value moves a little, and not at all for who prefers less motion", async () => {
    for (const reducedMotion of /** @type {const} */ (["no-preference", "reduce"])) {
      const { page } = await openPage(browser, newRoom(), { reducedMotion });
      const moved = await page.evaluate(
        () =>
          new Promise((resolve) => {
            const value = /** @type {Element} */ (document.querySelector(".value"));
            new MutationObserver(() => setTimeout(() => resolve(document.getAnimations().length > 0))).observe(value, { childList: true });
            dispatchEvent(new KeyboardEvent("keydown", { key: "+" }));
          }),
      );
      assert.equal(moved, reducedMotion === "no-preference");
    }
  });

  test("the link is copied, and that is said", async () => {
    const url = newRoom();
    const { page, complaints } = await openPage(browser, url, { permissions: ["clipboard-read", "clipboard-write"] });
    await page.click(".copy");
    await shows(page, ".copy", /Copied/);
    await shows(page, ".announcement", "Copied");
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), url);
    await shows(page, ".copy", /Copy link/);
    assert.deepEqual(complaints, []);
  });

  test("it counts and copies over plain HTTP, without what only a secure page has", async () => {
    const url = `http://counter.test:${server.port}/r/insecure`;
    const { page, complaints, origins } = await openPage(browser, url);
    assert.equal(await page.evaluate(() => isSecureContext), false);
    assert.equal(await page.evaluate(() => "clipboard" in navigator), false);
    await page.click(".plus");
    await shows(page, ".value", "1");
    await page.click(".copy");
    await shows(page, ".copy", /Copied/);
    await page.focus("#room");
    await page.keyboard.press("Control+V");
    assert.equal(await page.inputValue("#room"), url);
    assert.deepEqual([...origins], [new URL(url).origin]);
    assert.deepEqual(complaints, []);
  });

  test("where nothing can be copied the link is shown, selected", async () => {
    const url = `http://counter.test:${server.port}/r/by-hand`;
    const viewport = { width: 360, height: 640 };
    const { page } = await openPage(browser, url, { viewport, prepare: () => (document.execCommand = () => false) });
    await page.click(".copy");
    await page.locator(".link input").waitFor();
    assert.equal(await page.inputValue(".link input"), url);
    assert.equal(await page.evaluate(() => String(getSelection())), url);
    await accessible(page);
    await fits(page);
  });

  test("without scripts it says what is missing", async () => {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    await page.goto(server.url);
    assert.ok(await page.locator("noscript p", { hasText: "JavaScript" }).isVisible());
  });
});

/**
 * Leaves changes behind of which nobody knows whether they counted, and waits until the page asks about them.
 * @param {import("playwright-core").Page} page
 */
async function leaveUnsure(page) {
  await page.evaluate(async () => {
    const opening = indexedDB.open("tallyroom", 1);
    const database = await new Promise((resolve) => (opening.onsuccess = () => resolve(opening.result)));
    const room = location.pathname.split("/")[2] ?? "main";
    const actions = [{ action: "plus" }, { action: "plus", by: 7 }, { action: "minus" }, { action: "set", value: 7 }, { action: "reset" }];
    const transaction = database.transaction("actions", "readwrite");
    for (const [index, action] of actions.entries()) {
      const api = `${location.origin}/api/rooms/${room}`;
      transaction.objectStore("actions").put({ client: "gone", n: index + 1, api, action, wired: true, epoch: "gone", unsure: true });
    }
    await new Promise((resolve) => (transaction.oncomplete = resolve));
    database.close();
    const channel = new BroadcastChannel("tallyroom");
    channel.postMessage({ type: "changed" });
    channel.close();
  });
  await page.locator(".unsure").waitFor();
}

/**
 * Nothing is cut off sideways, and both buttons are large and wholly on the screen.
 * @param {import("playwright-core").Page} page
 */
async function fits(page) {
  const seen = await page.evaluate(() => {
    const { documentElement: root } = document;
    const box = (/** @type {string} */ selector) => document.querySelector(selector)?.getBoundingClientRect().toJSON();
    const value = /** @type {Element} */ (document.querySelector(".value"));
    return {
      scrolls: root.scrollWidth > root.clientWidth,
      cut: value.scrollWidth > value.clientWidth,
      boxes: [".plus", ".minus"].map(box),
      rest: [".status", ".copy", ".value", ".go button"].map(box),
    };
  });
  const { width, height } = page.viewportSize() ?? assert.fail();
  assert.deepEqual([seen.scrolls, seen.cut], [false, false]);
  for (const box of seen.boxes) {
    assert.ok(box.width >= 64 && box.height >= 64, JSON.stringify(box));
    assert.ok(box.top >= 0 && box.bottom <= height, JSON.stringify(box));
  }
  for (const box of [...seen.boxes, ...seen.rest]) {
    assert.ok(box.left >= 0 && box.right <= width, JSON.stringify(box));
  }
}

/**
 * axe-core finds nothing. What it cannot decide, such as text over a moving background, is no finding.
 * @param {import("playwright-core").Page} page
 */
async function accessible(page) {
  // Wait out the animations: a number that fades in has a lower contrast for a moment.
  await until(
    () => page.evaluate(() => document.getAnimations().every((one) => one.effect?.getTiming().iterations === Infinity)),
    () => "an animation does not end",
  );
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => /** @type {any} */ (window).axe.run());
  const found = violations.map((/** @type {any} */ one) => `${one.id}: ${one.nodes.map((/** @type {any} */ node) => node.html)}`);
  assert.deepEqual(found, []);
}
