// A busy room on one node, fed from another:
//   node busy.mjs <url of the holder> <url of the publisher> <seconds>
// Prints "ready", waits for a line, publishes for so long, and prints how many events the holder was sent and got.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const io = require("sio-4-8");
const [holderUrl, publisherUrl, seconds] = process.argv.slice(2);
const PER_TICK = 10;
const TICK_MS = 20;

const connect = (url) =>
  new Promise((resolve) => {
    const socket = io(url, { transports: ["websocket"], forceNew: true });
    socket.once("connect", () => resolve(socket));
  });
const [holder, publisher] = [await connect(holderUrl), await connect(publisherUrl)];
await holder.emitWithAck("join", "busy");
let got = 0;
holder.on("msg", () => (got += 1));
console.log("ready");
await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next();

let sent = 0;
const until = performance.now() + Number(seconds) * 1000;
while (performance.now() < until) {
  for (let number = 0; number < PER_TICK; number += 1, sent += 1) publisher.emit("broadcast", "busy", sent);
  await new Promise((resolve) => setTimeout(resolve, TICK_MS));
}
// Behind it, everything has arrived.
const last = new Promise((resolve) => holder.on("msg", (payload) => payload === "last" && resolve()));
publisher.emit("broadcast", "busy", "last");
await last;
assert.equal(got, sent + 1);
console.log(`sent ${sent}`);
process.exit(0);
