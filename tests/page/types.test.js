// @ts-check
/** TypeScript finds nothing in the page, its client, their tests, or a program that uses the client's declarations. */
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

test("all types hold", async () => {
  const found = dirname(createRequire(import.meta.url).resolve("typescript/package.json"));
  const folder = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
  await promisify(execFile)(process.execPath, [join(found, "bin/tsc"), "--project", join(folder, "tsconfig.json")]).catch(({ stdout }) => {
    throw new Error(stdout);
  });
});
