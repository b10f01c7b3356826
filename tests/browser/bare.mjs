// The pages of a gateway without the official bundles: the built-in client works, and what is missing is explained.
// Argument: the server's URL.

import { equal, holds, main, withBrowser } from "./chromium.mjs";

const [url] = process.argv.slice(2);

main(() =>
  withBrowser(async (context, errors) => {
    const page = await context.newPage();
    await page.goto(`${url}/?client=official`);
    await page.locator("#state[data-state=connected]").waitFor();
    await page.locator("#client-note", { hasText: "edge.client_bundles_dir" }).waitFor();
    holds(await page.locator("#client-official").isDisabled(), "the switch offers a client that is not there");
    holds(await page.locator("#client-ours").isChecked(), "no client is chosen");
    await page.locator("#snippet", { hasText: "/assets/client.js" }).waitFor();
    await page.click("#echo-send");
    await page.locator("#echo-output", { hasText: "HELLO" }).waitFor();

    await page.goto(`${url}/legacy`);
    await page.locator("#client-note", { hasText: "edge.client_bundles_dir" }).waitFor();
    equal(await page.getAttribute("#state", "data-state"), "disconnected", "the state of the legacy page");
    equal(errors, [], "errors thrown in the page");
  }),
);
