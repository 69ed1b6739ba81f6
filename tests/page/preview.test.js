// @ts-check
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { scratch } from "./harness.js";
import { takePreview } from "./preview.js";

test("the picture of the README can be taken", async (t) => {
  const folder = await scratch();
  t.after(folder.remove);
  const path = join(folder.path, "preview.png");
  await takePreview(path);
  const picture = await readFile(path);
  assert.equal(picture.toString("latin1", 1, 4), "PNG");
  assert.deepEqual([picture.readUInt32BE(16), picture.readUInt32BE(20)], [1200, 630]);
  assert.ok(picture.length < 200_000, `${picture.length} bytes`);
});
