// @ts-check
/**
 * Whoever does what docs/your-own-model.md says, line by line, gets what it says.
 *
 * A block after a line such as "`src/main.rs`:" is that file, after "`src/main.rs`, further down:" more of it. A block in
 * `sh` is run. A block in `json` is what the command before it answers. There are no others.
 */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { access, appendFile, copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";
import WebSocket from "ws";
import { PATIENCE, inTime, ownLoopback, shows, startBrowser, toldBy, until, visitPage } from "./harness.js";

const run = promisify(execFile);
const root = resolve(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "../..");
const text = await readFile(`${root}/docs/your-own-model.md`, "utf8");

/** Where the reader works. */
const folder = `${root}/target/tutorial`;
const project = `${folder}/shopping`;
/** It is built where the repository is, so that both share what they depend on. */
const builds = `${root}/target`;
const env = { ...process.env, CARGO_TARGET_DIR: builds, CARGO_NET_OFFLINE: "true", TALLYROOM_LOG: "info" };

/** How long a command may take that may have to build all there is, in milliseconds. */
const BUILD_PATIENCE = 1_200_000;

/**
 * @typedef {{ child: import("node:child_process").ChildProcess, url: string }} Served
 * @typedef {{ language: string, file?: string, more?: boolean, body: string }} Block
 */

/** @type {Block[]} */
const blocks = [...text.matchAll(/(?:^`([^`\n]+)`(, [^`\n]+)?:\n\n)?^```(\S*)\n([^]*?)^```$/gm)].map(
  ([, file, more, language, body]) => ({ file, more: more !== undefined, language, body }),
);

/** @type {Record<string, () => Promise<void>>} by what stands in a block in `sh` */
const commands = {
  "cargo new shopping\ncd shopping\n": begin,
  "cargo run\n": shareAList,
  "cargo test\n": keepTheLaws,
  "cargo run --example chat\n": async () => void (chat = await serve("examples/chat")),
};

test("every block is a file, a command or an answer", () => {
  const languages = new Set(blocks.map(({ language }) => language));
  assert.deepEqual([...languages].sort(), ["html", "json", "rust", "sh", "toml"]);
  for (const { file, language, body } of blocks) {
    const isFile = !["json", "sh"].includes(language);
    assert.equal(file !== undefined, isFile, `a block in ${language} ${isFile ? "lacks" : "has"} a file's name:\n${body}`);
    if (language === "sh") assert.ok(commandOf(body), `nobody here knows this command:\n${body}`);
  }
  assert.equal(text.split("\n").filter((line) => line.startsWith("```")).length, 2 * blocks.length);
});

test("whatever it links to is there, and it names every example", async () => {
  const links = [...text.matchAll(/\]\(([^)#]+)\)/g)].map(([, link]) => link);
  await Promise.all(links.map((link) => access(join(root, "docs", link))));
  const named = links.flatMap((link) => /^\.\.\/examples\/(.*)$/.exec(link)?.[1] ?? []);
  for (const example of await readdir(`${root}/examples`)) {
    const source = example.endsWith(".rs") ? await readFile(`${root}/examples/${example}`, "utf8") : "";
    const isServer = /program::|tallyroom::Counter/.test(source);
    assert.ok(named.includes(example) || !isServer, `${example} is not named`);
  }
});

test("whoever does what it says gets what it says", async (reading) => {
  for (const block of blocks) {
    const { file, language, body } = block;
    let done = false;
    await reading.test(file ?? body.trim(), async () => {
      if (file) await write(block);
      else if (language === "json") assert.equal(plain(answer), plain(body));
      else await commandOf(body)?.();
      done = true;
    });
    // The rest would only fail for the same reason.
    if (!done) break;
  }
});

/** @param {string} body */
function commandOf(body) {
  if (body in commands) return commands[body];
  if (/^curl http:\/\/localhost:6792\/\S+( --json '[^']*')?\n$/.test(body)) return () => ask(body);
  if (/^(python3 -m websockets ws:\/\/localhost:6793\/\S+\n){2}$/.test(body)) return () => talk(body);
}

/** As `cargo new` does, but that none of it is left from a run before, and versions are the repository's. */
async function begin() {
  await rm(project, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  // From then on all is here. It is already where the repository's tests were built, also without a network.
  await run("cargo", ["fetch", "--locked", "--quiet"], { cwd: root, timeout: BUILD_PATIENCE }).catch(() => {});
  await run("cargo", ["new", "--quiet", "--vcs", "none", "shopping"], { cwd: folder, env, timeout: PATIENCE });
  await copyFile(`${root}/Cargo.lock`, `${project}/Cargo.lock`);
}

/** @param {Block} block */
async function write({ file = "", more, body }) {
  const path = join(project, file);
  await mkdir(dirname(path), { recursive: true });
  // The only thing that is changed: here Tallyroom's folder is this repository, whatever it is called.
  const content = file === "Cargo.toml" ? body.replaceAll('"../tallyroom"', JSON.stringify(root)) : body;
  if (more) await appendFile(path, `\n${content}`);
  else await writeFile(path, content);
}

/** @type {Set<import("node:child_process").ChildProcess>} */
const started = new Set();
/** @type {import("playwright-core").Browser | undefined} */
let browser;
/** The shopping list, and later the chat. @type {Served} */
let server;
/** @type {Served} */
let chat;
/** What the last command printed. */
let answer = "";

after(async () => {
  await browser?.close();
  started.forEach((child) => child.kill("SIGKILL"));
});

/** @param {string[]} args @returns what it prints */
async function cargo(...args) {
  return (await run("cargo", args, { cwd: project, env, timeout: BUILD_PATIENCE })).stdout;
}

/**
 * Does as `cargo run` does, but that the address is a free one. Builds and starts one after the other: for a build, other
 * tests' builds may have to be waited for.
 * @param {string} program
 * @param {string} [listen]
 * @returns {Promise<Served>}
 */
async function serve(program, listen = `${ownLoopback()}:0`) {
  await cargo("build", "--quiet", ...(program.startsWith("examples/") ? ["--examples"] : []));
  const options = { cwd: project, env, stdio: /** @type {["ignore", "ignore", "pipe"]} */ (["ignore", "ignore", "pipe"]) };
  const child = spawn(`${builds}/debug/${program}`, ["--listen", listen], options);
  started.add(child);
  return { child, url: await toldBy(child, "the program", /(http:\/\/[0-9.]+:\d+).*\n/) };
}

/** Ctrl-C. @param {Served} served */
async function interrupt({ child }) {
  const gone = once(child, "exit", { signal: AbortSignal.timeout(PATIENCE) });
  child.kill("SIGINT");
  assert.equal((await gone)[0], 0);
}

/** What the section "Run it" says. */
async function shareAList() {
  server = await serve("shopping");
  browser = await startBrowser();
  const { url } = server;
  const both = [await visitPage(browser, url), await visitPage(browser, url)];
  const elsewhere = await visitPage(browser, `${url}/r/party`);
  const [ann, bob] = both.map(({ page }) => page);
  await changeTogether(ann, bob);
  await showsItems("", elsewhere.page);
  await shows(elsewhere.page, "#status", "0 to buy, 1 here");
  for (const { complaints } of [...both, elsewhere]) assert.deepEqual(complaints, []);
  await elsewhere.close();
  await changeWhileAway(ann, bob);

  const help = await cargo("run", "--quiet", "--", "--help");
  assert.match(help, /^Shopping lists, one in each room, for whoever has the link\n/);
  const missing = ["--listen", "--tls-cert", "--store"].filter((flag) => !help.includes(`  ${flag}`));
  assert.deepEqual(missing, [], help);
}

/** @typedef {import("playwright-core").Page} Page */

/**
 * @param {Page} ann
 * @param {Page} bob
 */
async function changeTogether(ann, bob) {
  for (const page of [ann, bob]) await shows(page, "#status", "0 to buy, 2 here");
  await add(ann, "Milk");
  await showsItems("Milk", ann, bob);
  await bob.getByLabel("Milk", { exact: true }).check();
  await showsItems("Milk, ticked", ann, bob);
  for (const page of [ann, bob]) {
    const milk = page.getByText("Milk", { exact: true });
    assert.equal(await milk.evaluate((element) => getComputedStyle(element).textDecorationLine), "line-through");
  }
  await add(ann, "Milk");
  await shows(ann, "#error", "Milk is on the list already; untick it there");
  await showsItems("Milk, ticked", ann, bob);
  assert.equal(await bob.locator("#error").textContent(), "");
  await ann.getByRole("button", { name: "Remove Milk" }).click();
  await showsItems("", ann, bob);
}

/**
 * @param {Page} ann
 * @param {Page} bob
 */
async function changeWhileAway(ann, bob) {
  await add(bob, "Bread");
  await showsItems("Bread", ann, bob);
  await interrupt(server);
  await shows(ann, "#status", /^(waiting|connecting)…$/);
  await add(ann, "Eggs");
  await showsItems("Bread | Eggs", ann);
  await showsItems("Bread", bob);
  await shows(ann, "#status", /… 1 to be sent$/);
  await access(`${project}/data/shopping`);
  server = await serve("shopping", new URL(server.url).host);
  await showsItems("Bread | Eggs", ann, bob);
  for (const page of [ann, bob]) await shows(page, "#status", "2 to buy, 2 here");
}

/**
 * @param {Page} page
 * @param {string} what
 */
async function add(page, what) {
  await page.getByLabel("What to buy").fill(what);
  await page.getByRole("button", { name: "Add" }).click();
}

/**
 * @param {string} expected
 * @param {Page[]} pages
 */
async function showsItems(expected, ...pages) {
  const read = (/** @type {Element[]} */ rows) =>
    rows.map((row) => row.querySelector("span")?.textContent + (row.querySelector("input")?.checked ? ", ticked" : ""));
  for (const page of pages) {
    let seen = "";
    await until(
      async () => (seen = (await page.locator("#items li").evaluateAll(read)).join(" | ")) === expected,
      () => `the list is ${JSON.stringify(seen)}, not ${JSON.stringify(expected)}`,
    );
  }
}

/** @param {string} command */
async function ask(command) {
  const here = command.replace("curl http://localhost:6792", `curl --silent --show-error ${server.url}`);
  answer = (await run("bash", ["-euc", here], { timeout: PATIENCE })).stdout;
}

/**
 * An answer without what is other each time.
 * @param {string} json
 */
function plain(json) {
  const epoch = /"epoch":"[0-9a-f-]{36}"/g;
  const time = /"at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"/g;
  return json.trim().replace(epoch, '"epoch":"…"').replace(time, '"at":"…"');
}

async function keepTheLaws() {
  assert.match(await cargo("test"), /test tests::it_keeps_the_laws \.\.\. ok/);
}

/**
 * What the section "The other half" says, between the two URLs that it has.
 * @param {string} command
 */
async function talk(command) {
  const [ann, bob] = await Promise.all(
    [...command.matchAll(/localhost:6793(\S+)/g)].map(async ([, path]) => {
      const socket = new WebSocket(`${chat.url.replace("http", "ws")}${path}`);
      /** @type {string[]} */
      const heard = [];
      socket.on("message", (data) => heard.push(String(data)));
      await inTime(once(socket, "open"), () => `${path} does not open`);
      return { socket, heard };
    }),
  );
  const hears = async (/** @type {typeof ann} */ who, /** @type {string[]} */ expected) => {
    await until(() => who.heard.length >= expected.length, () => `only this is heard: ${who.heard}`);
    assert.deepEqual(who.heard, expected);
  };
  ann.socket.send("Tea?");
  await hears(bob, ["ann: Tea?"]);
  bob.socket.send("/name");
  await hears(bob, ["ann: Tea?", "You are bob."]);
  bob.socket.send("Yes!");
  await hears(ann, ["bob: Yes!"]);
  for (const { socket } of [ann, bob]) socket.close();
}
