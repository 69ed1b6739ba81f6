// @ts-check
/**
 * Starts what the tests look at: the real server on a port of its own, a browser, and pages that write down every
 * complaint. All of it ends with `stop()`.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { on, once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { chromium } from "playwright-core";
import WebSocket from "ws";

const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/snap/bin/chromium"];
const BROWSER_FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/** How long a condition is awaited, in milliseconds, before the test fails. */
export const PATIENCE = 20_000;
export const MAX = Number.MAX_SAFE_INTEGER;

/** What a test that fails leaves running. @type {Set<import("node:child_process").ChildProcess>} */
const running = new Set();
process.once("exit", () => running.forEach((child) => child.kill("SIGKILL")));

/**
 * An address of this machine, drawn for one server: no other program is given its port while it is away, but one that
 * listens at all addresses.
 */
export function ownLoopback() {
  const [one, two, three] = randomBytes(3);
  return `127.${one}.${two}.${1 + (three % 254)}`;
}

/**
 * Starts the server and waits until it listens.
 * @param {{ port?: number, host?: string, store?: string | null, args?: string[], example?: string }} [options] port 0: a
 * free one; `store` null: the program has none; `example`: instead of the server
 */
export async function startServer({ port = 0, host = "127.0.0.1", store = "memory", args = [], example } = {}) {
  const binary = process.env.TALLYROOM_BIN;
  assert.ok(binary, "TALLYROOM_BIN must name the tallyroom program, such as target/release/tallyroom");
  const program = example ? join(dirname(binary), "examples", example) : binary;
  const flags = store === null ? args : ["--store", store, ...args];
  const child = spawn(program, ["--listen", `${host}:${port}`, ...flags], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, TALLYROOM_LOG: "info" },
  });
  const url = await toldBy(child, "the server", /(http:\/\/[0-9.]+:\d+).*\n/);
  return {
    /** Without a slash at its end. */
    url,
    host: new URL(url).hostname,
    port: Number(new URL(url).port),
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    },
  };
}

/**
 * Waits until a program says where it is. One that ends first or says nothing fails the test, and is not left running.
 * @param {import("node:child_process").ChildProcessByStdio<null, null, import("node:stream").Readable>} child
 * @param {string} name
 * @param {RegExp} said its first group is the address
 * @returns {Promise<string>}
 */
export async function toldBy(child, name, said) {
  running.add(child);
  child.once("exit", () => running.delete(child));
  let log = "";
  const told = new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${name} ended with ${code} before it said where it is:\n${log}`)));
    child.stderr.on("data", (chunk) => {
      log += chunk;
      const found = said.exec(log);
      if (found) resolve(found[1]);
    });
  });
  try {
    return await inTime(told, () => `${name} does not say where it is:\n${log}`);
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  } finally {
    child.stderr.removeAllListeners("data").resume();
  }
}

/** @param {string[]} [flags] more flags of the browser */
export async function startBrowser(flags = []) {
  return chromium.launch({ executablePath: browserPath(), args: [...BROWSER_FLAGS, ...flags] });
}

/**
 * Starts a browser with a profile that outlives it, and that can be killed.
 * @param {string} profile a folder
 */
export async function startBrowserOn(profile) {
  await rm(join(profile, "DevToolsActivePort"), { force: true });
  const flags = [...BROWSER_FLAGS, "--no-default-browser-check", "--remote-debugging-port=0", `--user-data-dir=${profile}`];
  const child = spawn(browserPath(), [...flags, "about:blank"], { stdio: ["ignore", "ignore", "pipe"] });
  const address = await toldBy(child, "the browser", /DevTools listening on (ws:\S+)\n/);
  const browser = await chromium.connectOverCDP(address);
  const [context] = browser.contexts();
  context.setDefaultTimeout(PATIENCE);
  return {
    context,
    /** As when the power goes, as far as this browser is concerned. */
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    },
  };
}

function browserPath() {
  const path = process.env.CHROMIUM ?? BROWSERS.find((one) => existsSync(one));
  assert.ok(path, "no Chromium found: name it in CHROMIUM");
  return path;
}

/**
 * Opens a window of its own, with its own cookies and cache, and waits until the page shows a value.
 * @param {import("playwright-core").Browser} browser
 * @param {string} url
 * @param {import("playwright-core").BrowserContextOptions & { prepare?: () => void }} [options] `prepare` runs in the
 * page before its own scripts
 */
export async function openPage(browser, url, options = {}) {
  const opened = await visitPage(browser, url, options);
  await live(opened.page);
  return opened;
}

/**
 * The same, but does not wait.
 * @param {import("playwright-core").Browser} browser
 * @param {string} url
 * @param {import("playwright-core").BrowserContextOptions & { prepare?: () => void }} [options]
 */
export async function visitPage(browser, url, { prepare, ...options } = {}) {
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 800, height: 700 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  if (prepare) await context.addInitScript(prepare);
  const page = await context.newPage();
  const complaints = /** @type {string[]} */ ([]);
  const origins = new Set();
  page.on("console", (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
  page.on("request", (request) => origins.add(new URL(request.url()).origin));
  page.on("websocket", (socket) => origins.add(new URL(socket.url()).origin.replace(/^ws/, "http")));
  const response = await page.goto(url);
  assert.ok(response);
  return { page, context, response, complaints, origins, close: () => context.close() };
}

/** @param {import("playwright-core").Page} page */
export async function live(page) {
  await page.locator('body[data-connection="live"]').waitFor();
}

/**
 * Waits until the element's text is, or matches, what is expected.
 * @param {import("playwright-core").Page} page
 * @param {string} selector
 * @param {string | RegExp} expected
 */
export async function shows(page, selector, expected) {
  let seen = "";
  await until(
    async () => {
      seen = (await page.locator(selector).textContent()) ?? "";
      return typeof expected === "string" ? seen === expected : expected.test(seen);
    },
    () => `${selector} shows ${JSON.stringify(seen)}, not ${expected}`,
  );
}

/**
 * Asks until the answer is yes.
 * @param {() => Promise<boolean> | boolean} condition
 * @param {() => string} problem what to say when it never is
 */
export async function until(condition, problem) {
  const deadline = Date.now() + PATIENCE;
  while (!(await condition())) {
    if (Date.now() > deadline) assert.fail(problem());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * What a promise comes to, if it does before patience ends.
 * @template T
 * @param {Promise<T>} promise
 * @param {() => string} problem what to say when it never does
 */
export async function inTime(promise, problem) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(problem())), PATIENCE)));
  try {
    return await Promise.race([promise, /** @type {Promise<never>} */ (late)]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Acts as a program would, over a socket of its own, and waits until the room's value is `value`.
 * @param {string} url the room's page
 * @param {number} value
 */
export async function setValue(url, value) {
  const socket = new WebSocket(url.replace(/^http/, "ws"));
  try {
    await once(socket, "open", { signal: AbortSignal.timeout(PATIENCE) });
    socket.send(JSON.stringify({ action: "set", value }));
    for await (const [data] of on(socket, "message", { signal: AbortSignal.timeout(PATIENCE) })) {
      const event = JSON.parse(String(data));
      if (event.type === "state" && event.value === value) return;
      assert.notEqual(event.type, "error", event.message);
    }
  } finally {
    socket.close();
  }
}

/** A folder that is gone after the test. */
export async function scratch() {
  const path = await mkdtemp(join(tmpdir(), "tallyroom-page-"));
  return { path, remove: () => rm(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }) };
}
