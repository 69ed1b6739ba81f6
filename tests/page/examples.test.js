// @ts-check
/** The examples' pages in a real browser, several windows at once, and what their clients in Node and in Rust do. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, afterEach, before, describe, test } from "node:test";
import { live, openPage, scratch, shows, startBrowser, startServer, until, visitPage } from "./harness.js";

/** @type {Awaited<ReturnType<typeof startBrowser>>} */
let browser;
/** @type {{ kill(): Promise<void> }[]} */
let servers = [];
before(async () => void (browser = await startBrowser()));
afterEach(async () => {
  await Promise.all(browser.contexts().map((context) => context.close()));
  await Promise.all(servers.map((server) => server.kill()));
  servers = [];
});
after(() => browser?.close());

/**
 * @param {string} example
 * @param {Parameters<typeof startServer>[0]} [options]
 */
async function serve(example, options = {}) {
  const server = await startServer({ example, ...options });
  servers.push(server);
  return server;
}

describe("the clock's page", () => {
  test("lists the times that the server tells, the newest first", async () => {
    const { url } = await serve("clock", { store: null, args: ["--longest", "0"] });
    const { page, complaints } = await visitPage(browser, url);
    await until(async () => (await page.locator("li").count()) === 20, () => "there are not 20 times");
    const times = await page.locator("li").allTextContents();
    assert.deepEqual([...times].sort().reverse(), times);
    assert.match(times[0], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    assert.deepEqual(complaints, []);
  });
});

describe("the counter within an application", () => {
  test("counts in several windows beside another route", async () => {
    const { url } = await serve("counter");
    const windows = await Promise.all([1, 2].map(() => openPage(browser, `${url}/r/door`)));
    for (const { page } of windows) await shows(page, ".users", "2 online");
    await windows[0].page.click(".plus");
    await windows[1].page.click(".plus");
    await windows[1].page.click(".minus");
    for (const { page } of windows) await shows(page, ".value", "1");
    for (const { complaints } of windows) assert.deepEqual(complaints, []);
    assert.equal(await (await fetch(`${url}/hello`)).text(), "Hello beside the counter!");
  });
});

describe("the poll's page", () => {
  /** @param {import("playwright-core").Page} page */
  const bars = async (page) => {
    const texts = await page.locator("#options button").allTextContents();
    return texts.join(" | ");
  };
  /**
   * @param {import("playwright-core").Page} page
   * @param {string} expected
   */
  const showsBars = async (page, expected) => {
    let seen = "";
    await until(async () => (seen = await bars(page)) === expected, () => `${seen}, not ${expected}`);
  };
  /** @param {import("playwright-core").Page} page */
  const ask = async (page) => {
    await page.locator("[name=question]").fill("Tea or coffee?");
    await page.locator("[name=options]").fill("Tea\nCoffee\n\nTea\n");
    await page.click("form button");
    await shows(page, "#question", "Tea or coffee?");
  };

  test("shows a vote in all windows, and moves it when its voter changes it, after a reload, too", async () => {
    const { url } = await serve("poll");
    const [ann, bob] = await Promise.all([1, 2].map(() => openPage(browser, `${url}/r/lunch`)));
    await ask(ann.page);
    await shows(bob.page, "#question", "Tea or coffee?");
    await ann.page.getByText("Tea", { exact: true }).click();
    await bob.page.getByText("Coffee", { exact: true }).click();
    for (const { page } of [ann, bob]) await showsBars(page, "Tea1 | Coffee1");
    await ann.page.reload();
    await live(ann.page);
    await showsBars(ann.page, "Tea1 | Coffee1");
    assert.equal(await ann.page.locator("[aria-pressed=true]").textContent(), "Tea1");
    await ann.page.getByText("Coffee", { exact: true }).click();
    for (const { page } of [ann, bob]) await showsBars(page, "Tea0 | Coffee2");
    await shows(bob.page, "#status", "2 votes, 2 here");
    for (const { complaints } of [ann, bob]) assert.deepEqual(complaints, []);
  });

  test("is as it was after the server was killed", async () => {
    const { path, remove } = await scratch();
    const first = await serve("poll", { store: `disk:${path}` });
    const { page } = await openPage(browser, first.url);
    await ask(page);
    await page.getByText("Tea", { exact: true }).click();
    await showsBars(page, "Tea1 | Coffee0");
    await until(async () => !(await page.locator("#status").textContent())?.includes("waits"), () => "the vote waits");
    await first.kill();
    const again = await serve("poll", { store: `disk:${path}`, port: first.port, host: first.host });
    await live(page);
    await showsBars(page, "Tea1 | Coffee0");
    const other = await openPage(browser, again.url);
    await showsBars(other.page, "Tea1 | Coffee0");
    await again.kill();
    await remove();
  });

  test("says what is wrong with a question", async () => {
    const { url } = await serve("poll");
    const { page } = await openPage(browser, url);
    await page.locator("[name=question]").fill("Tea?");
    await page.locator("[name=options]").fill("Tea");
    await page.click("form button");
    await shows(page, "#error", /2 to 12 different options/);
  });
});

describe("the board's page", () => {
  test("carries what several browsers drag and type at once", async () => {
    const { url } = await serve("board");
    const [ann, bob] = await Promise.all([1, 2].map(() => openPage(browser, `${url}/r/plans`)));
    await ann.page.click("#add");
    for (const { page } of [ann, bob]) await page.locator(".note").waitFor();
    await ann.page.locator("textarea").fill("Paint the door");
    await until(async () => (await bob.page.locator("textarea").inputValue()) === "Paint the door", () => "bob reads nothing");
    // One drags while the other types: neither undoes the other.
    const bar = await bob.page.locator(".bar").boundingBox();
    assert.ok(bar);
    await bob.page.mouse.move(bar.x + bar.width / 2, bar.y + bar.height / 2);
    await bob.page.mouse.down();
    for (let step = 1; step <= 20; step += 1) {
      await bob.page.mouse.move(bar.x + bar.width / 2 + 10 * step, bar.y + bar.height / 2 + 5 * step);
      await ann.page.locator("textarea").pressSequentially("!");
    }
    await bob.page.mouse.up();
    const expected = `Paint the door${"!".repeat(20)}`;
    for (const { page } of [ann, bob]) {
      await until(async () => (await page.locator("textarea").inputValue()) === expected, () => "a letter is missing");
      await until(
        async () => {
          const note = await page.locator(".note").boundingBox();
          return note !== null && Math.abs(note.x - bar.x - 200) < 2 && Math.abs(note.y - bar.y - 100) < 2;
        },
        () => "the note hangs elsewhere",
      );
    }
    await ann.page.getByLabel("Remove the note").click();
    for (const { page } of [ann, bob]) await page.locator(".note").waitFor({ state: "detached" });
    for (const { complaints } of [ann, bob]) assert.deepEqual(complaints, []);
  });

  test("refuses what does not fit, and says so", async () => {
    const { url } = await serve("board");
    const act = async (/** @type {object} */ action) => {
      const body = JSON.stringify(action);
      const headers = { "Content-Type": "application/json" };
      const response = await fetch(`${url}/api/rooms/main/actions`, { method: "POST", headers, body });
      return [response.status, (await response.json()).code];
    };
    assert.deepEqual(await act({ action: "put", id: "", text: "x" }), [400, "bad_field"]);
    assert.deepEqual(await act({ action: "put", id: "a", x: 10001 }), [422, "out_of_range"]);
    assert.deepEqual(await act({ action: "remove", id: "a" }), [422, "no_such_note"]);
    assert.deepEqual(await act({ action: "put", id: "a", x: 10000, y: 0 }), [200, undefined]);
  });
});

describe("the chat's clients", () => {
  /**
   * @param {string} program
   * @param {string[]} args
   */
  function start(program, args) {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    let heard = "";
    child.stdout.on("data", (data) => (heard += data));
    servers.push({ kill: async () => void child.kill("SIGKILL") });
    return {
      say: (/** @type {string} */ text) => child.stdin.write(`${text}\n`),
      leave: () => child.stdin.end(),
      hears: (/** @type {string} */ text) => until(() => heard.includes(text), () => `${text} is not in ${heard}`),
      ended: new Promise((resolve) => child.once("exit", resolve)),
    };
  }

  test("talk to each other, in Node and in Rust", async () => {
    const { url } = await serve("chat", { store: null });
    const room = `${url.replace(/^http/, "ws")}/websocket/door`;
    const root = new URL("../..", import.meta.url).pathname;
    const rust = `${process.env.TALLYROOM_BIN?.replace(/[^/]*$/, "")}examples/chat_client`;
    const node = start(process.execPath, [`${root}examples/clients/chat.mjs`, `${room}/ann`]);
    const other = start(rust, [`${room}/小明`]);
    await node.hears("connected");
    await other.hears("connected");
    node.say("hello from Node");
    await other.hears("ann: hello from Node");
    other.say("你好");
    await node.hears("小明: 你好");
    node.leave();
    other.leave();
    assert.deepEqual(await Promise.all([node.ended, other.ended]), [0, 0]);
  });
});
