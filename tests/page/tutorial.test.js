// @ts-check
/** The well-known counter's page, opened as a file, works against the server unchanged. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { PATIENCE, startBrowser, startServer } from "./harness.js";

/** Two buttons, two actions, two events: all that the tutorial's page has. */
const page = (/** @type {string} */ socket) => `<!doctype html>
<title>counter</title>
<button class="minus">-</button> <b class="value">?</b> <button class="plus">+</button>
<p class="users">?</p>
<script>
  const find = (name) => document.querySelector("." + name);
  const websocket = new WebSocket("${socket}");
  find("minus").onclick = () => websocket.send(JSON.stringify({ action: "minus" }));
  find("plus").onclick = () => websocket.send(JSON.stringify({ action: "plus" }));
  websocket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === "state") find("value").textContent = event.value;
    else if (event.type === "users") find("users").textContent = event.count + " user" + (event.count == 1 ? "" : "s");
    else console.error("unsupported event", event);
  };
</script>
`;

/** @type {import("playwright-core").Browser} */
let browser;
/** @type {string} */
let folder;
before(async () => {
  browser = await startBrowser();
  folder = await mkdtemp(join(tmpdir(), "tallyroom-"));
});
after(async () => {
  await browser.close();
  await rm(folder, { recursive: true });
});

/** @param {string[]} flags */
async function openAsFile(flags) {
  const server = await startServer({ args: flags });
  const file = join(folder, `counter-${server.port}.html`);
  await writeFile(file, page(`${server.url.replace("http", "ws")}/`));
  const open = async () => {
    const window = await browser.newPage();
    await window.goto(pathToFileURL(file).href);
    return window;
  };
  return { server, open };
}

test("a page opened as a file counts, where the server lets it", async () => {
  const { server, open } = await openAsFile(["--allow-origin", "null"]);
  const [first, second] = [await open(), await open()];
  const shows = (/** @type {typeof first} */ window, /** @type {string} */ name, /** @type {string} */ text) =>
    window.locator(`.${name}`, { hasText: new RegExp(`^${text}$`) }).waitFor({ timeout: PATIENCE });
  await Promise.all([shows(first, "users", "2 users"), shows(second, "value", "0")]);
  await first.click(".plus");
  await shows(second, "value", "1");
  await second.click(".minus");
  await second.click(".minus");
  await shows(first, "value", "-1");
  await second.close();
  await shows(first, "users", "1 user");
  await first.close();
  await server.kill();
});

test("a page opened as a file is refused otherwise", async () => {
  const { server, open } = await openAsFile([]);
  const window = await open();
  await window.waitForFunction("websocket.readyState === WebSocket.CLOSED", null, { timeout: PATIENCE });
  assert.equal(await window.textContent(".value"), "?");
  await window.close();
  await server.kill();
});
