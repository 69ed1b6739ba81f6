// @ts-check
/** Every block of the README runs, as a newcomer would run it. Its Rust blocks are compiled by `cargo test`, too. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { on, once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";
import WebSocket from "ws";
import { PATIENCE, inTime, startBrowser, startServer } from "./harness.js";

const run = promisify(execFile);
const root = resolve(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "../..");
const readme = await readFile(resolve(root, "README.md"), "utf8");
const blocks = [...readme.matchAll(/^```(\S*)\n([^]*?)^```$/gm)].map(([, language, text]) => ({ language, text }));

/** @type {import("node:child_process").ChildProcess[]} what a test that fails leaves running */
const started = [];
after(() => started.forEach((child) => child.kill("SIGKILL")));

/** @param {string} language */
function only(language) {
  return blocks.filter((block) => block.language === language).map((block) => block.text);
}

/** How long a program may take to say where it listens that may have to be built first, in milliseconds. */
const BUILD_PATIENCE = 900_000;

/** @param {import("node:child_process").ChildProcess} child */
const exit = (child) => once(child, "exit", { signal: AbortSignal.timeout(PATIENCE) });

/**
 * Starts a server by a command and waits for the address that it tells.
 * @param {string} command
 * @param {object} [options]
 */
async function serve(command, options = {}) {
  const env = { ...process.env, TALLYROOM_LISTEN: "localhost:0", TALLYROOM_LOG: "info", RUST_LOG: "info" };
  const child = spawn("bash", ["-c", `exec ${command}`], { cwd: root, env, stdio: ["ignore", "ignore", "pipe"], ...options });
  started.push(child);
  let log = "";
  for await (const [chunk] of on(child.stderr, "data", { close: ["end"], signal: AbortSignal.timeout(BUILD_PATIENCE) })) {
    log += chunk;
    const found = /http:\/\/(localhost:\d+)\//.exec(log);
    if (found) {
      child.stderr.resume();
      return { child, host: found[1] };
    }
  }
  throw new Error(`no address was told:\n${log}`);
}

test("every block is of a kind that is run here", () => {
  // What a command prints is compared by the command's own test.
  const known = ["sh", "python", "js", "rust,no_run", "text"];
  assert.deepEqual(blocks.filter(({ language }) => !known.includes(language)), []);
  const [serving, testing, asking, ...rest] = only("sh");
  assert.deepEqual([serving, testing, rest], ["cargo run --release\n", "./tests/run\n", []]);
  assert.match(asking, /^(tallyroom .*\n)+$/);
});

test("at most 60 words stand before the first command", () => {
  const before = readme.slice(0, readme.indexOf("```"));
  assert.ok(before.split(/\s+/).length <= 60, before);
});

test("the first command serves the page", async () => {
  const { child, host } = await serve(only("sh")[0].trim());
  const page = await fetch(`http://${host}/`);
  assert.match(await page.text(), /<title>/);
  child.kill("SIGTERM");
  const [code] = await exit(child);
  assert.equal(code, 0);
});

test("the commands ask the server", async () => {
  const server = await startServer();
  const folder = await mkdtemp(join(tmpdir(), "readme-"));
  const path = `${dirname(resolve(process.env.TALLYROOM_BIN ?? ""))}:${process.env.PATH}`;
  const env = { ...process.env, PATH: path, TALLYROOM_URL: server.url };
  const { stdout } = await run("bash", ["-euc", only("sh")[2]], { cwd: folder, env, timeout: PATIENCE });
  assert.deepEqual(stdout.split("\n"), ["2", "-5", "imported 2 rooms", ""]);
  assert.match(await readFile(`${folder}/door.csv`, "utf8"), /^rev,.*\r\n1,.*,2\r\n$/);
  await rm(folder, { recursive: true });
  await server.kill();
});

test("the program in Python counts", async () => {
  const server = await startServer();
  const [program] = only("python");
  const python = process.env.PYTHON ?? "python3";
  const { stdout } = await run(python, ["-c", program.replace("localhost:6789", `127.0.0.1:${server.port}`)], { timeout: PATIENCE });
  assert.deepEqual(stdout.trim().split("\n"), [
    "{'type': 'users', 'count': 1}",
    "{'type': 'state', 'value': 0}",
    "{'type': 'state', 'value': 2}",
  ]);
  await server.kill();
});

test("the script on the server's client counts", async () => {
  const server = await startServer();
  const browser = await startBrowser();
  const context = await browser.newContext({ bypassCSP: true });
  const page = await context.newPage();
  /** @type {string[]} */
  const shown = [];
  page.on("console", (message) => shown.push(message.text()));
  await page.goto(`${server.url}/r/elsewhere`);
  await page.addScriptTag({ type: "module", content: only("js")[0] });
  while (!shown.includes("live 0 1")) await page.waitForEvent("console");
  await page.click("h1");
  while (!shown.includes("live 1 1")) await page.waitForEvent("console");
  await browser.close();
  await server.kill();
});

test("the model of one's own builds in an empty folder and serves", async () => {
  const folder = resolve(root, "target/readme");
  await mkdir(`${folder}/src`, { recursive: true });
  const manifest = `[package]
name = "volume"
version = "0.1.0"
edition = "2024"

[dependencies]
actix-web = { version = "4", default-features = false, features = ["macros"] }
env_logger = "0.11"
serde = { version = "1", features = ["derive"] }
tallyroom = { path = "../.." }

[workspace]
`;
  // The address is the only thing that is changed, so that any number of tests may run side by side; the log tells it.
  const program = only("rust,no_run")[0]
    .replace("localhost:6789", "localhost:0")
    .replace("async fn main() -> std::io::Result<()> {", "$& env_logger::init();");
  await writeFile(`${folder}/Cargo.toml`, manifest);
  await writeFile(`${folder}/Cargo.lock`, await readFile(`${root}/Cargo.lock`));
  await writeFile(`${folder}/src/main.rs`, program);
  await run("cargo", ["build", "--quiet", "--target-dir", `${root}/target`], { cwd: folder, timeout: BUILD_PATIENCE });
  const { child, host } = await serve(`${root}/target/debug/volume`);
  const socket = new WebSocket(`ws://${host}/`);
  /** @type {any[]} */
  const events = [];
  const told = new Promise((tell) => {
    socket.on("message", (data) => {
      events.push(JSON.parse(String(data)));
      // An error may overtake the states of its batch.
      if (events.some(({ type }) => type === "error") && events.some(({ value }) => value === 11)) tell(null);
    });
  });
  await once(socket, "open", { signal: AbortSignal.timeout(PATIENCE) });
  for (let presses = 0; presses < 12; presses++) socket.send('{"action":"plus"}');
  await inTime(told, () => `only this is told: ${JSON.stringify(events)}`);
  assert.deepEqual(events.filter(({ type }) => type === "state").map(({ value }) => value).at(-1), 11);
  assert.equal(events.find(({ type }) => type === "error").message, "it goes to eleven");
  socket.close();
  child.kill("SIGTERM");
  assert.equal((await exit(child))[0], 0);
});
