// Our small client where the page does not reach: namespaces, acknowledgements both ways, binary, order, big texts.
// Arguments: the server's URL and the transports, joined by commas.

import { equal, main, plainDocument, withBrowser } from "./chromium.mjs";

const [url, transports] = process.argv.slice(2);

// Runs in the page; returns what each step saw.
async function conversation([transports, big]) {
  const { Manager } = await import("/assets/client.js");
  const manager = new Manager(location.origin, { transports, auth: { token: "abc" }, forceNew: true });
  const next = (emitter, name) => new Promise((done) => emitter.once(name, (...args) => done(args)));
  const ack = (socket, ...args) => new Promise((done) => socket.emit(...args, (...answer) => done(answer)));
  const bytes = (value) => (value instanceof ArrayBuffer ? [...new Uint8Array(value)] : value);
  const seen = {};

  const root = manager.socket("/");
  seen.auth = await next(root, "auth");
  seen.early = root.connected;

  const custom = manager.socket("/custom");
  await next(custom, "connect");
  seen.twoIds = custom.id !== root.id;
  seen.refused = (await next(manager.socket("/nowhere"), "connect_error"))[0].message;

  seen.ack = await ack(root, "echo", "ä😀", { deep: [1, [null, { a: "b" }]] });
  seen.customAck = await ack(custom, "echo", 7);
  seen.whoami = (await ack(custom, "whoami"))[0] === custom.id;

  const [answer, reply] = [next(root, "emit-with-ack"), next(root, "emit-with-ack")];
  root.emit("emit-with-ack", "question");
  const [question, respond] = await answer;
  await reply;
  const returned = next(root, "emit-with-ack");
  respond("reply", new Uint8Array([1, 2, 3]));
  const [text, binary] = await returned;
  seen.answered = [question, text, bytes(binary)];

  const echoed = next(root, "message-back");
  const view = new Uint8Array([9, 8, 7, 6]).subarray(1, 3);
  root.emit("message", { a: new Uint8Array([1, 2]).buffer, list: [view, "x"] }, new Uint8Array(0));
  const [nested, empty] = await echoed;
  seen.binary = [bytes(nested.a), bytes(nested.list[0]), nested.list[1], bytes(empty)];
  seen.placeholder = (await ack(root, "echo", { _placeholder: true, num: 0 }))[0];

  const numbers = [];
  root.on("message-back", (number) => numbers.push(number));
  for (let number = 0; number < 200; number += 1) root.emit("message", number);
  const inFlight = await Promise.all(Array.from({ length: 100 }, (_, index) => ack(root, "echo", index)));
  seen.order = numbers.every((number, index) => number === index) && numbers.length;
  seen.inFlight = inFlight.every(([number], index) => number === index);

  const back = (await ack(root, "echo", "€".repeat(big)))[0];
  seen.big = back.length === big;

  const kicked = next(custom, "disconnect");
  custom.emit("kick");
  seen.kicked = await kicked;
  seen.rootAlive = root.connected && (await ack(root, "echo", 1))[0];

  const dropped = next(root, "disconnect");
  const again = next(root, "connect");
  manager.engine.fail("transport error");
  seen.dropped = await dropped;
  await again;
  seen.reconnected = (await ack(root, "echo", "here"))[0];

  const last = next(root, "disconnect");
  root.disconnect();
  seen.left = await last;
  seen.engine = manager.engine.state;
  return seen;
}

main(() =>
  withBrowser(async (context, errors) => {
    const page = await plainDocument(context, url);
    const seen = await page.evaluate(conversation, [transports.split(","), 30000]);
    const expected = {
      auth: [{ token: "abc" }],
      early: true,
      twoIds: true,
      refused: "Invalid namespace",
      ack: ["ä😀", { deep: [1, [null, { a: "b" }]] }],
      customAck: [7],
      whoami: true,
      answered: ["question", "reply", [1, 2, 3]],
      binary: [[1, 2], [8, 7], "x", []],
      placeholder: { _placeholder: true, num: 0 },
      order: 200,
      inFlight: true,
      big: true,
      kicked: ["io server disconnect"],
      rootAlive: 1,
      dropped: ["transport error"],
      reconnected: "here",
      left: ["io client disconnect"],
      engine: "closed",
    };
    equal(seen, expected, `our client over ${transports}`);
    equal(errors, [], "errors thrown in the page");
  }),
);
