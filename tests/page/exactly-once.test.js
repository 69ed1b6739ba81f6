// @ts-check
/** Clicks in a real browser count exactly once, whatever happens to the server, the page, the browser or the wire. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { promisify } from "node:util";
import { live, ownLoopback, scratch, shows, startBrowser, startBrowserOn, startServer, until } from "./harness.js";
import { startProxy } from "./proxy.js";

const ROOM = "/r/door";
/** Longer than a room remembers a client. */
const MONTH_MS = 31 * 24 * 3_600_000;
/** Makes a stopped server's data as much older as it is told. */
const AGE = `
import json, sqlite3, sys
database, ms = sqlite3.connect(sys.argv[1]), int(sys.argv[2])
with database:
    database.execute("UPDATE batches SET at = at - ?", (ms,))
    for room, rev, part, text in database.execute("SELECT * FROM snapshots").fetchall():
        snapshot = json.loads(text)
        for client in snapshot["settled"]:
            client["at"] -= ms
        new = (json.dumps(snapshot), room, rev, part)
        database.execute("UPDATE snapshots SET snapshot = ? WHERE room = ? AND rev = ? AND part = ?", new)
database.close()
`;

/** @type {Awaited<ReturnType<typeof scratch>>} */
let folder;
/** @type {Awaited<ReturnType<typeof startServer>>} */
let server;
/** Where it listens, whenever it is started; port 0: where it was not yet. */
let place = { host: "", port: 0 };
/** @type {(() => Promise<any>)[]} */
let ends;

beforeEach(async () => {
  folder = await scratch();
  ends = [];
  place = { host: ownLoopback(), port: 0 };
});
afterEach(async () => {
  for (const end of ends.reverse()) await end();
  await server?.kill();
  await folder.remove();
});

/**
 * Starts the server on this test's data, where it was before.
 * @param {string} [data] another folder
 */
async function serve(data = "data") {
  server = await startServer({ ...place, store: `disk:${join(folder.path, data)}` });
  place.port = server.port;
}

/** A window of a browser of its own. */
async function openWindow() {
  const browser = await startBrowser();
  ends.push(() => browser.close());
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 800, height: 700 } });
  context.setDefaultTimeout(20_000);
  return context.newPage();
}

/**
 * @param {import("playwright-core").Page} page
 * @param {string} [url]
 */
async function visit(page, url = server.url) {
  await page.goto(url + ROOM);
  await live(page);
}

/**
 * @param {import("playwright-core").Page} page
 * @param {number} times
 */
async function click(page, times) {
  for (let time = 0; time < times; time += 1) await page.click(".plus");
}

/**
 * Reloads while there is no server: the tab shows the browser's own error.
 * @param {import("playwright-core").Page} page
 */
async function reloadInVain(page) {
  await assert.rejects(page.reload(), /ERR_CONNECTION_REFUSED/);
  await page.waitForURL("chrome-error://chromewebdata/");
}

/** How many actions are on the browser's disk. @param {import("playwright-core").Page} page */
function countStored(page) {
  return page.evaluate(async () => {
    const opening = indexedDB.open("tallyroom", 1);
    const database = await new Promise((resolve) => (opening.onsuccess = () => resolve(opening.result)));
    const counting = database.transaction("actions").objectStore("actions").count();
    const count = await new Promise((resolve) => (counting.onsuccess = () => resolve(counting.result)));
    database.close();
    return count;
  });
}

/**
 * @param {import("playwright-core").Page} page
 * @param {number} count
 */
async function stored(page, count) {
  let seen = -1;
  await until(
    async () => (seen = await countStored(page)) === count,
    () => `${seen} actions are stored, not ${count}`,
  );
}

/**
 * A month goes by at the server, which is stopped, and somebody else adds 10: then the room forgets whom it knew before.
 */
async function sleepForAMonth() {
  await server.kill();
  await promisify(execFile)(process.env.PYTHON ?? "python3", ["-c", AGE, join(folder.path, "data", "tallyroom.db"), String(MONTH_MS)]);
  await serve();
  const response = await fetch(`${server.url}/api/rooms/door/actions`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": "others" },
    body: JSON.stringify({ action: "plus", by: 10 }),
  });
  assert.equal(response.status, 200);
}

/** What a month does to a page's clock. @param {number} ms */
function setClock(ms) {
  const { now } = Date;
  Date.now = () => now() + ms;
}

/** The room's value and how many actions made it. */
async function counted() {
  const response = await fetch(`${server.url}/api/rooms/door`);
  const { rev, value } = await response.json();
  return { rev, value };
}

/**
 * All that was clicked has arrived, once, and nothing is left that could come again.
 * @param {import("playwright-core").Page} page
 * @param {number} clicks
 */
async function arrived(page, clicks) {
  await shows(page, ".value", String(clicks));
  await page.locator(".pending").waitFor({ state: "hidden" });
  await stored(page, 0);
  assert.deepEqual(await counted(), { rev: clicks, value: clicks });
}

describe("clicks while the server is down", () => {
  test("arrive once after it is back", async () => {
    await serve();
    const page = await openWindow();
    await visit(page);
    await click(page, 2);
    await arrived(page, 2);
    await server.kill();
    await page.locator(".notice").waitFor();
    await click(page, 5);
    await shows(page, ".value", "7");
    await shows(page, ".pending-text", "5 changes waiting to be sent");
    await stored(page, 5);
    await serve();
    await live(page);
    await arrived(page, 7);
  });

  test("arrive once after it is back, also if the tab was reloaded meanwhile", async () => {
    await serve();
    const page = await openWindow();
    await visit(page);
    await click(page, 1);
    await arrived(page, 1);
    await server.kill();
    await page.locator(".notice").waitFor();
    await click(page, 4);
    await stored(page, 4);
    await reloadInVain(page);
    await serve();
    await visit(page);
    await arrived(page, 5);
  });

  test("arrive once, also if the tab goes elsewhere in the same moment", async () => {
    await serve();
    const page = await openWindow();
    await visit(page);
    await server.kill();
    await page.locator(".notice").waitFor();
    await page.evaluate(async () => {
      const plus = /** @type {HTMLButtonElement} */ (document.querySelector(".plus"));
      plus.click();
      await null;
      await null;
      for (let click = 0; click < 4; click += 1) plus.click();
      location.assign("about:blank");
    });
    await page.waitForURL("about:blank");
    await serve();
    await visit(page);
    await arrived(page, 5);
  });

  test("arrive once by another tab, if theirs was closed", async () => {
    await serve();
    const page = await openWindow();
    await visit(page);
    const other = await page.context().newPage();
    await other.goto(`${server.url}/r/elsewhere`);
    await live(other);
    await server.kill();
    await page.locator(".notice").waitFor();
    await click(page, 3);
    await stored(page, 3);
    await page.close();
    await serve();
    await live(other);
    await stored(other, 0);
    assert.deepEqual(await counted(), { rev: 3, value: 3 });
  });

  test("arrive once from several tabs, which stay", async () => {
    await serve();
    const first = await openWindow();
    const second = await first.context().newPage();
    const third = await first.context().newPage();
    const tabs = [first, second, third];
    for (const tab of tabs) await visit(tab);
    await server.kill();
    for (const tab of tabs) await tab.locator(".notice").waitFor();
    for (const [index, tab] of tabs.entries()) {
      await tab.bringToFront();
      await click(tab, index + 1);
    }
    await stored(first, 6);
    await serve();
    for (const tab of tabs) {
      await live(tab);
      await arrived(tab, 6);
    }
  });

  test("arrive once after it is back, also if the browser was killed and started again meanwhile", async () => {
    await serve();
    const profile = join(folder.path, "profile");
    const killed = await startBrowserOn(profile);
    ends.push(killed.kill);
    const page = await killed.context.newPage();
    await visit(page);
    await click(page, 1);
    await arrived(page, 1);
    await server.kill();
    await page.locator(".notice").waitFor();
    await click(page, 6);
    await stored(page, 6);
    await killed.kill();
    await serve();
    const again = await startBrowserOn(profile);
    ends.push(again.kill);
    const next = await again.context.newPage();
    await visit(next);
    await arrived(next, 7);
  });

  test("arrive once over plain HTTP at an address that is not loopback, too", async () => {
    place.host = ownAddress();
    await serve();
    const page = await openWindow();
    await visit(page);
    assert.deepEqual(await page.evaluate(() => [isSecureContext, "randomUUID" in crypto, "locks" in navigator]), [false, false, false]);
    await click(page, 1);
    await arrived(page, 1);
    await server.kill();
    await page.locator(".notice").waitFor();
    await click(page, 3);
    await stored(page, 3);
    await reloadInVain(page);
    await serve();
    await visit(page);
    await arrived(page, 4);
    await server.kill();
    await page.locator(".notice").waitFor();
    await click(page, 2);
    await serve();
    await live(page);
    await arrived(page, 6);
  });
});

describe("an answer that is lost after the commit", () => {
  /** @type {Awaited<ReturnType<typeof startProxy>>} */
  let proxy;

  async function visitThroughProxy() {
    await serve();
    proxy = await startProxy(server);
    ends.push(proxy.stop);
    const page = await openWindow();
    await visit(page, proxy.url);
    return page;
  }

  /** Clicks, and cuts the wire when the server has counted them and before the page knows. */
  async function lose(/** @type {import("playwright-core").Page} */ page, /** @type {number} */ clicks) {
    proxy.losesAnswers = true;
    const before = await counted();
    await click(page, clicks);
    await until(async () => (await counted()).rev === before.rev + clicks, () => "the clicks did not arrive");
    assert.equal(await countStored(page), clicks, "the page does not know");
  }

  test("does not count again when the page comes back", async () => {
    const page = await visitThroughProxy();
    await lose(page, 3);
    proxy.losesAnswers = false;
    proxy.cut();
    await live(page);
    await arrived(page, 3);
    await click(page, 1);
    await arrived(page, 4);
  });

  test("does not count again when the page is reloaded", async () => {
    const page = await visitThroughProxy();
    await lose(page, 2);
    proxy.cut();
    proxy.losesAnswers = false;
    await visit(page, proxy.url);
    await arrived(page, 2);
  });

  test("is asked about where the room forgot the page meanwhile; what was never sent arrives once", async () => {
    const page = await visitThroughProxy();
    await lose(page, 2);
    proxy.losesRequests = true;
    proxy.cut();
    await page.locator(".notice").waitFor();
    await click(page, 3);
    await stored(page, 5);
    await sleepForAMonth();
    await page.evaluate(setClock, MONTH_MS);
    proxy.losesAnswers = proxy.losesRequests = false;
    proxy.cut();
    await live(page);
    await shows(page, ".unsure-count", "2 changes may not have counted:");
    await shows(page, ".value", "15");
    await page.locator(".pending").waitFor({ state: "hidden" });
    await stored(page, 2);
    assert.deepEqual(await counted(), { rev: 6, value: 15 });
    await page.click(".discard");
    await page.locator(".unsure").waitFor({ state: "hidden" });
    await stored(page, 0);
    assert.deepEqual(await counted(), { rev: 6, value: 15 });
  });

  test("is asked about where the room forgot a page that is gone", async () => {
    const page = await visitThroughProxy();
    await lose(page, 2);
    await page.goto("about:blank");
    await sleepForAMonth();
    proxy.losesAnswers = false;
    proxy.cut();
    await page.addInitScript(setClock, MONTH_MS);
    await visit(page, proxy.url);
    const other = await page.context().newPage();
    await other.addInitScript(setClock, MONTH_MS);
    await visit(other, proxy.url);
    for (const tab of [page, other]) await shows(tab, ".unsure-count", "2 changes may not have counted:");
    assert.deepEqual(await counted(), { rev: 3, value: 12 });
    await page.bringToFront();
    await page.click(".resend");
    for (const tab of [page, other]) await tab.locator(".unsure").waitFor({ state: "hidden" });
    await shows(page, ".value", "14");
    await stored(page, 0);
    assert.deepEqual(await counted(), { rev: 5, value: 14 });
  });

  test("is asked about where the data was wiped; what was never sent arrives once", async () => {
    const page = await visitThroughProxy();
    await lose(page, 3);
    await server.kill();
    await page.locator(".notice").waitFor();
    await click(page, 2);
    await stored(page, 5);
    proxy.losesAnswers = false;
    await serve("empty");
    await live(page);
    await shows(page, ".unsure-count", "3 changes may not have counted:");
    await shows(page, ".unsure-sum", "+3");
    await shows(page, ".value", "2");
    await stored(page, 3);
    assert.deepEqual(await counted(), { rev: 2, value: 2 });
    // The question outlives the page, and waits for its user.
    await page.reload();
    await live(page);
    await shows(page, ".unsure-sum", "+3");
    assert.deepEqual(await counted(), { rev: 2, value: 2 });
    await page.click(".resend");
    await page.locator(".unsure").waitFor({ state: "hidden" });
    await arrived(page, 5);
  });

  test("is asked about where the data was wiped and the tab reloaded; discarded, it never counts", async () => {
    const page = await visitThroughProxy();
    await lose(page, 2);
    await server.kill();
    await page.locator(".notice").waitFor();
    await click(page, 4);
    await stored(page, 6);
    proxy.losesAnswers = false;
    await serve("empty");
    await visit(page, proxy.url);
    await shows(page, ".unsure-count", "2 changes may not have counted:");
    await shows(page, ".value", "4");
    const other = await page.context().newPage();
    await visit(other, proxy.url);
    await shows(other, ".unsure-count", "2 changes may not have counted:");
    await page.bringToFront();
    await page.focus(".discard");
    await page.keyboard.press("Enter");
    for (const tab of [page, other]) await tab.locator(".unsure").waitFor({ state: "hidden" });
    assert.equal(await page.evaluate(() => document.activeElement?.className), "plus", "the keyboard goes on somewhere");
    await arrived(page, 4);
  });
});

/** An IPv4 address of this machine that is not loopback. */
function ownAddress() {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  const found = all.find(({ family, internal }) => family === "IPv4" && !internal);
  assert.ok(found, "this machine has no address but loopback");
  return found.address;
}
