// @ts-check
/**
 * Takes the picture of the README: a desktop's window and a phone, with one number.
 *
 *     TALLYROOM_BIN=target/release/tallyroom node tests/page/preview.js static/preview.png
 */
import { pathToFileURL } from "node:url";
import { openPage, setValue, shows, startBrowser, startServer } from "./harness.js";

const WIDTH = 1200;
const HEIGHT = 630;
const DESK = { width: 900, height: 640 };
const PHONE = { width: 360, height: 680 };

/** @param {string} path of the PNG file to write */
export async function takePreview(path) {
  const server = await startServer();
  const browser = await startBrowser();
  try {
    const url = `${server.url}/r/front-door`;
    const desk = await openPage(browser, url, { viewport: DESK, colorScheme: "light", reducedMotion: "reduce" });
    const phone = await openPage(browser, url, { viewport: PHONE, colorScheme: "dark", reducedMotion: "reduce" });
    await setValue(url, 127);
    await shows(desk.page, ".value", "127");
    await phone.page.keyboard.press("+");
    const shots = [];
    for (const { page } of [desk, phone]) {
      await shows(page, ".value", "128");
      await shows(page, ".users", "2 online");
      shots.push((await page.screenshot()).toString("base64"));
    }
    const context = await browser.newContext({ viewport: { width: WIDTH, height: HEIGHT } });
    const page = await context.newPage();
    await page.setContent(composed(shots[0], shots[1]));
    await page.locator("img").evaluateAll((images) => Promise.all(images.map((image) => /** @type {any} */ (image).decode())));
    await page.screenshot({ path });
  } finally {
    await browser.close();
    await server.kill();
  }
}

/**
 * @param {string} desk
 * @param {string} phone both PNG in base64
 */
function composed(desk, phone) {
  return `<!doctype html><style>
    body { margin: 0; height: ${HEIGHT}px; position: relative; overflow: hidden; background: linear-gradient(#cfe3dc, #e7eee6); }
    div { position: absolute; overflow: hidden; box-shadow: 0 1.5rem 4rem -1rem rgb(16 32 28 / 45%); }
    img { display: block; width: 100%; }
    .desk { left: 56px; top: 56px; width: 720px; border-radius: 14px; background: #e1e7e4; }
    .bar { height: 0; padding: 10px 14px 20px; display: flex; gap: 7px; }
    i { width: 11px; height: 11px; border-radius: 50%; background: #b9c5c0; }
    .phone { right: 64px; top: 36px; width: 290px; border-radius: 38px; border: 9px solid #1d2926; background: #0d1413; }
  </style>
  <div class="desk"><span class="bar"><i></i><i></i><i></i></span><img src="data:image/png;base64,${desk}"></div>
  <div class="phone"><img src="data:image/png;base64,${phone}"></div>`;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [path] = process.argv.slice(2);
  if (!path) {
    console.error("usage: node preview.js OUT.png");
    process.exit(2);
  }
  await takePreview(path);
}
