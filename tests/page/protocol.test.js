// @ts-check
/** Every conversation of the protocol's documentation that has a client's side is held with client.js. */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import { hold } from "./conversation.js";

const folder = new URL("../../docs/protocol/", import.meta.url);
const files = (await readdir(folder)).filter((name) => name.endsWith(".json"));
const conversations = await Promise.all(
  files.map(async (name) => ({ name, ...JSON.parse(await readFile(new URL(name, folder), "utf8")) })),
);
const ours = conversations.filter(({ sides = ["client"] }) => sides.includes("client"));

test("no conversation for clients is missing", () => {
  // As `tests/support/conversation.rs` has it.
  assert.equal(ours.length, 23);
});

for (const { name, title, ...conversation } of ours) test(`${name}: ${title}`, () => hold(conversation));
