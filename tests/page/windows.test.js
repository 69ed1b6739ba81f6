// @ts-check
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { MAX, live, openPage, ownLoopback, setValue, shows, startBrowser, startServer, until } from "./harness.js";

describe("several windows", () => {
  /** @type {Awaited<ReturnType<typeof startServer>>} */
  let server;
  /** @type {Awaited<ReturnType<typeof startBrowser>>} */
  let browser;
  let rooms = 0;

  before(async () => {
    server = await startServer();
    browser = await startBrowser();
  });
  afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));
  after(async () => {
    await browser?.close();
    await server?.kill();
  });

  /** A room that no other test uses. */
  const newRoom = () => `${server.url}/r/room-${(rooms += 1)}`;

  test("each click in any window is seen in all of them", async () => {
    const url = newRoom();
    const windows = await Promise.all([1, 2, 3].map(() => openPage(browser, url)));
    for (const { page } of windows) await shows(page, ".users", "3 online");
    const clicks = [".plus", ".plus", ".minus", ".minus", ".minus", ".plus", ".plus"];
    let expected = 0;
    for (const [index, button] of clicks.entries()) {
      await windows[index % 3].page.click(button);
      expected += button === ".plus" ? 1 : -1;
      for (const { page } of windows) await shows(page, ".value", String(expected));
    }
    for (const { complaints } of windows) assert.deepEqual(complaints, []);
  });

  test("closing a window lowers the count in the others", async () => {
    const url = newRoom();
    const [first, second, third] = await Promise.all([1, 2, 3].map(() => openPage(browser, url)));
    for (const { page } of [first, second]) await shows(page, ".users", "3 online");
    await third.close();
    for (const { page } of [first, second]) await shows(page, ".users", "2 online");
    await first.close();
    await shows(second.page, ".users", "1 online");
  });

  test("20 quick presses are 20 actions", async () => {
    const url = newRoom();
    const [presser, watcher] = await Promise.all([openPage(browser, url), openPage(browser, url)]);
    await watcher.page.evaluate(() => {
      const value = /** @type {Element} */ (document.querySelector(".value"));
      Object.assign(window, { values: [] });
      new MutationObserver(() => Reflect.get(window, "values").push(value.textContent)).observe(value, { childList: true });
    });
    await presser.page.evaluate(() => {
      const plus = /** @type {HTMLButtonElement} */ (document.querySelector(".plus"));
      for (let press = 0; press < 20; press += 1) plus.click();
    });
    await shows(watcher.page, ".value", "20");
    await shows(presser.page, ".value", "20");
    await presser.page.locator(".minus").click({ clickCount: 20 });
    await shows(watcher.page, ".value", "0");
  });

  test("keys act once each, however long they are held", async () => {
    const { page } = await openPage(browser, newRoom());
    /** @type {[string, string][]} */
    const presses = [
      ["+", "1"],
      ["NumpadAdd", "2"],
      ["-", "1"],
      ["NumpadSubtract", "0"],
    ];
    for (const [key, expected] of presses) {
      await page.keyboard.down(key);
      for (let repeat = 0; repeat < 5; repeat += 1) await page.keyboard.down(key);
      await page.keyboard.up(key);
      await shows(page, ".value", expected);
    }
    await page.evaluate(() => dispatchEvent(new KeyboardEvent("keydown", { key: "\u2212" })));
    await shows(page, ".value", "-1");
    // The arrows scroll; with a modifier + and - are the browser's.
    for (const other of ["ArrowUp", "ArrowDown", "Control+Minus", "Alt+Minus", "Meta+Minus"]) await page.keyboard.press(other);
    await page.keyboard.press("+");
    await shows(page, ".value", "0");
  });

  test("a focused button acts once by Enter and by Space, however long they are held", async () => {
    const { page } = await openPage(browser, newRoom());
    await page.focus(".plus");
    for (const [key, expected] of [["Enter", "1"], ["Space", "2"]]) {
      for (let repeat = 0; repeat < 6; repeat += 1) await page.keyboard.down(key);
      await page.keyboard.up(key);
      await shows(page, ".value", expected);
    }
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Enter");
    await shows(page, ".value", "1");
  });

  test("keys in the room field do not count", async () => {
    const { page } = await openPage(browser, newRoom());
    await page.focus("#room");
    await page.keyboard.type("+-+");
    assert.equal(await page.inputValue("#room"), "+-+");
    await page.locator("#room").blur();
    await page.keyboard.press("-");
    await shows(page, ".value", "-1");
  });

  test("the field goes to another room, which counts for itself", async () => {
    const main = await openPage(browser, `${server.url}/`);
    const { page } = await openPage(browser, `${server.url}/`);
    await page.click(".plus");
    await shows(main.page, ".value", "1");
    await page.fill("#room", "side-Door_2");
    await page.press("#room", "Enter");
    await page.waitForURL(`${server.url}/r/side-Door_2`);
    await live(page);
    await shows(page, ".room-name", "side-Door_2");
    await shows(page, ".value", "0");
    await page.click(".minus");
    await shows(page, ".value", "-1");
    await shows(main.page, ".users", "1 online");
    await shows(main.page, ".value", "1");
    assert.equal(await page.title(), "-1 · side-Door_2 · Tallyroom");
    const same = await openPage(browser, `${server.url}/r/main`);
    await shows(same.page, ".value", "1");
    assert.deepEqual(main.complaints, []);
  });

  test("a bad room name is explained", async () => {
    const { page, complaints } = await openPage(browser, newRoom());
    const url = page.url();
    for (const name of ["", "a b", "Raum-ä", "a/b", "x".repeat(65)]) {
      await page.fill("#room", name);
      await shows(page, "#room-message", "");
      await page.click(".go button");
      await shows(page, "#room-message", /1 to 64 characters/);
      assert.equal(await page.getAttribute("#room", "aria-invalid"), "true");
      assert.equal(page.url(), url);
    }
    await page.fill("#room", "x".repeat(64));
    await page.click(".go button");
    await page.waitForURL(`${server.url}/r/${"x".repeat(64)}`);
    assert.deepEqual(complaints, []);
  });

  test("a refused action is explained and changes nothing", async () => {
    const url = newRoom();
    const { page } = await openPage(browser, url);
    await setValue(url, MAX);
    await shows(page, ".value", String(MAX));
    await page.click(".plus");
    await shows(page, ".toast", /./);
    assert.equal(await page.getAttribute(".toast", "role"), "status");
    await shows(page, ".value", String(MAX));
    await page.click(".minus");
    await shows(page, ".value", String(MAX - 1));
    await until(async () => (await page.textContent(".toast")) === "", () => "the message stays");
  });
});

describe("a server that goes away", () => {
  test("is said by the page, in each language, and is found again by itself", async (t) => {
    const browser = await startBrowser();
    t.after(() => browser.close());
    let server = await startServer({ host: ownLoopback() });
    t.after(() => server.kill());
    /** @type {[string, RegExp, RegExp, RegExp, string][]} */
    const languages = [
      ["en-GB", /Connection lost/, /^Reconnecting in \d+ s$/, /^Live$/, "1 change waiting to be sent"],
      ["zh-CN", /连接已中断/, /^\d+ 秒后重新连接$/, /^已连接$/, "1 项更改等待发送"],
      ["zh-TW", /連線中斷/, /^\d+ 秒後重新連線$/, /^已連線$/, "1 項變更等待傳送"],
      ["fr-FR", /Connexion perdue/, /^Reconnexion dans \d+ s$/, /^En direct$/, "1 changement en attente d’envoi"],
    ];
    const pages = await Promise.all(languages.map(([locale]) => openPage(browser, server.url, { locale })));
    await pages[0].page.click(".plus");
    for (const { page } of pages) await shows(page, ".value", "1");
    await pages[0].page.focus(".plus");

    await server.kill();
    for (const [index, [, lost, waiting, , pending]] of languages.entries()) {
      const { page } = pages[index];
      await shows(page, ".notice-text", lost);
      await shows(page, ".announcement", lost);
      await shows(page, ".status-text", waiting);
      assert.equal(await page.textContent(".value"), "1", "the last value stays");
      assert.equal(await page.isVisible(".users"), false, "nobody knows who is online");
      assert.equal(await page.isVisible(".pending"), false);
      await page.keyboard.press("+");
      await shows(page, ".value", "2");
      await shows(page, ".pending-text", pending);
      await shows(page, ".announcement", pending);
      assert.equal(await page.isVisible(".pending"), true);
    }

    server = await startServer({ host: server.host, port: server.port });
    for (const [index, [, , , back]] of languages.entries()) {
      const { page } = pages[index];
      await live(page);
      await shows(page, ".status-text", back);
      await shows(page, ".value", "4");
      await page.locator(".pending").waitFor({ state: "hidden" });
      assert.equal(await page.isVisible(".notice"), false);
    }
    await pages[0].page.keyboard.press("Enter");
    await shows(pages[3].page, ".value", "5");
    for (const { complaints } of pages) {
      // The browser itself writes a line for each attempt that finds no server.
      assert.deepEqual(complaints.filter((line) => !/WebSocket connection to .* failed/.test(line)), []);
    }
  });

  test("is tried again at once by a button", async (t) => {
    const browser = await startBrowser();
    t.after(() => browser.close());
    let server = await startServer({ host: ownLoopback() });
    t.after(() => server.kill());
    // The longest pauses, so that only the button can be quick.
    const { page } = await openPage(browser, server.url, { prepare: () => (Math.random = () => 0.999) });
    await server.kill();
    await shows(page, ".status-text", /Reconnecting in [5-9] s/);
    server = await startServer({ host: server.host, port: server.port });
    await page.click(".again");
    await live(page);
  });

  test("ended for good, it is left alone until a button is pressed", async (t) => {
    const browser = await startBrowser();
    t.after(() => browser.close());
    const server = await startServer();
    t.after(() => server.kill());
    const prepare = () => {
      window.WebSocket = class extends WebSocket {
        /**
         * @param {string | URL} url
         * @param {string | string[]} [protocols]
         */
        constructor(url, protocols) {
          super(url, protocols);
          Object.assign(window, { socket: this });
        }
      };
    };
    const { page, complaints } = await openPage(browser, server.url, { prepare });
    await page.evaluate(() => Reflect.get(window, "socket").dispatchEvent(new CloseEvent("close", { code: 4409 })));
    await shows(page, ".status-text", "Disconnected");
    await shows(page, ".notice-text", "Another window took over.");
    await shows(page, ".announcement", "Another window took over.");
    assert.equal(await page.isDisabled(".plus"), true);
    await page.click(".again");
    await live(page);
    await page.click(".plus");
    await shows(page, ".value", "1");
    assert.deepEqual(complaints, []);
  });

  test("is not yet there for a device without a network", async (t) => {
    const browser = await startBrowser();
    t.after(() => browser.close());
    const server = await startServer();
    t.after(() => server.kill());
    const { page, context } = await openPage(browser, server.url);
    await context.setOffline(true);
    await shows(page, ".status-text", "Offline");
    await context.setOffline(false);
    await live(page);
  });
});
