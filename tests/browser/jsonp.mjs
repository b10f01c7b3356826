// The official 1.x and 2.x clients over JSONP, which needs a document: script elements down, forms up.
// Arguments: the server's URL and the paths of the bundles, each tried in a page of its own.

import { equal, main, plainDocument, withBrowser } from "./chromium.mjs";

const [url, ...bundles] = process.argv.slice(2);

// Runs in the page; returns what each step saw.
async function conversation(origin) {
  const socket = window.io(origin, { forceJSONP: true, transports: ["polling"], forceNew: true, reconnection: false });
  const next = (name) => new Promise((done) => socket.once(name, (...args) => done(args)));
  const ack = (...args) => new Promise((done) => socket.emit(...args, (...answer) => done(answer)));
  const seen = {};
  const failed = new Promise((_, fail) => {
    for (const name of ["connect_error", "error"]) {
      socket.on(name, (error) => fail(new Error(`${name}: ${(error && error.message) || error}`)));
    }
  });
  const talk = async () => {
    await next("connect");
    seen.jsonp = document.querySelectorAll("script[src*='j=']").length > 0;
    seen.transport = socket.io.engine.transport.name;

    const upper = next("server_response");
    socket.emit("client_event", { data: "hello" });
    seen.echo = (await upper)[0].data;
    seen.ack = await ack("message-with-ack", 1, { two: [3, null] });

    const tricky = "grüße 😀 \u2028\u2029 \n \\n \"quoted\" <script> & + % \t";
    seen.unicode = (await ack("echo", tricky))[0] === tricky;

    const numbers = [];
    socket.on("message-back", (number) => numbers.push(number));
    for (let number = 0; number < 200; number += 1) socket.emit("message", number);
    await ack("echo", "after the numbers");
    seen.order = numbers.every((number, index) => number === index) && numbers.length;

    const big = "0123456789\n".repeat(9100);
    seen.big = (await ack("echo", big))[0] === big;

    const gone = next("disconnect");
    socket.disconnect();
    seen.gone = (await gone).length > 0;
    return seen;
  };
  return Promise.race([talk(), failed]);
}

main(() =>
  withBrowser(async (context, errors) => {
    for (const bundle of bundles) {
      const page = await plainDocument(context, url);
      await page.addScriptTag({ path: bundle });
      const seen = await page.evaluate(conversation, url);
      const expected = {
        jsonp: true,
        transport: "polling",
        echo: "HELLO",
        ack: [1, { two: [3, null] }],
        unicode: true,
        order: 200,
        big: true,
        gone: true,
      };
      equal(seen, expected, bundle);
      await page.close();
      console.log(`ok ${bundle}`);
    }
    equal(errors, [], "errors thrown in the page");
    // The bundle is injected, which a content security policy of the document would refuse.
  }, { bypassCSP: true }),
);
