// What the browser scripts share: Chromium, pages that report their mistakes, and the conversation with the test
// that runs the script, one line each way.

import { chromium } from "playwright-core";
import { createInterface } from "node:readline";

// One step of a script. It is long because a cold browser on a busy machine is slow, and only ever spent on failure.
export const STEP_MS = 20000;

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * Runs `script(context, errors)` in a fresh browser; `errors` collects what the pages throw.
 * `options` are those of Playwright's browser context.
 */
export async function withBrowser(script, options = {}) {
  const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  const errors = [];
  try {
    const context = await browser.newContext({ permissions: ["clipboard-read", "clipboard-write"], ...options });
    context.setDefaultTimeout(STEP_MS);
    context.on("weberror", (error) => errors.push(String(error.error())));
    await script(context, errors);
  } finally {
    await browser.close();
  }
}

/**
 * Opens a document of the server's origin that makes no connection of its own: the style sheet, shown as text.
 * A document made up by the browser driver would not do, since Chromium keeps such a one from the local network.
 */
export async function plainDocument(context, url) {
  const page = await context.newPage();
  await page.goto(`${url}/assets/style.css`);
  return page;
}

/** Fails with a message that shows both values unless they are equal. */
export function equal(got, expected, what) {
  const [left, right] = [JSON.stringify(got), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what}: got ${left}, expected ${right}`);
}

export function holds(condition, what) {
  if (!condition) throw new Error(what);
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Asks the test for something ("stop" or "start" the server) and waits until it answers that it is done. */
export async function request(word) {
  console.log(word);
  const { value, done } = await lines.next();
  holds(!done && value === "done", `the test answered ${value} to ${word}`);
}

/** Ends the script: the test's stdin would keep it alive. */
export function main(script) {
  script().then(
    () => process.exit(0),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}
