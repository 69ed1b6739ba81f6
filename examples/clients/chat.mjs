// A client for the chat, with a prompt: node chat.mjs ws://localhost:8080/websocket/ROOM/USER
import { createInterface } from "node:readline";
import WebSocket from "ws";

const [, , url] = process.argv;
if (!url) {
  console.error("usage: node chat.mjs ws://localhost:8080/websocket/ROOM/USER");
  process.exit(2);
}

const socket = new WebSocket(encodeURI(url));
const prompt = createInterface({ input: process.stdin, output: process.stdout });

socket.on("open", () => {
  console.log("connected; each line is said to the others in the room");
  prompt.prompt();
});
// An empty text is the receipt for what one said oneself.
socket.on("message", (data) => {
  if (data.length > 0) console.log(String(data));
  prompt.prompt();
});
socket.on("error", ({ message }) => {
  console.error(message);
  process.exit(1);
});
socket.on("close", () => process.exit(0));
prompt.on("line", (line) => socket.send(line));
prompt.on("close", () => socket.close(1000));
