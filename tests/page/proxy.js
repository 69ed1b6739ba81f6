// @ts-check
/** A TCP proxy between a browser and the server, that loses what it is told to lose. */
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** @param {{ host: string, port: number }} server */
export async function startProxy({ host, port }) {
  /** @type {Set<import("node:net").Socket>} */
  const sockets = new Set();
  const proxy = {
    url: "",
    /** True: what the server answers goes nowhere. */
    losesAnswers: false,
    /** True: what the browser sends goes nowhere. */
    losesRequests: false,
    /** Ends every connection, without a word. */
    cut() {
      for (const socket of sockets) socket.destroy();
    },
    async stop() {
      proxy.cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  const server = createServer((browser) => {
    const upstream = connect(port, host);
    for (const [from, to, isLost] of /** @type {const} */ ([
      [browser, upstream, () => proxy.losesRequests],
      [upstream, browser, () => proxy.losesAnswers],
    ])) {
      sockets.add(from);
      from.on("data", (chunk) => isLost() || to.write(chunk));
      from.on("error", () => {});
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  proxy.url = `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (server.address()).port}`;
  return proxy;
}
