// @ts-check
/** Every conversation of the protocol's documentation that has a client's side is held with client.js. */
import { test } from "node:test";
import { forClients, hold } from "./conversation.js";

for (const { name, title, ...conversation } of await forClients()) test(`${name}: ${title}`, () => hold(conversation));
