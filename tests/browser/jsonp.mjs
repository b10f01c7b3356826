// The official 1.x and 2.x clients over JSONP, which needs a document: script elements down, forms up.
// Arguments: the server's URL and the paths of the bundles, each tried in a page of its own.
//
// Each row of SCENARIOS runs inside the page, so it sees nothing of this file but the `stage` that it is given.

import { equal, main, plainDocument, withBrowser } from "./chromium.mjs";
import { Relay } from "../interop/peer.mjs";

const [url, ...bundles] = process.argv.slice(2);

const SCENARIOS = [
  {
    name: "connects over script elements",
    async run(stage) {
      const peer = await stage.connect();
      stage.same(await peer.next("auth"), [{}]);
      stage.same(document.querySelectorAll("script[src*='j=']").length > 0, true);
      stage.same(peer.socket.io.engine.transport.name, "polling");
    },
  },
  {
    name: "gets an event in reply and an ack",
    async run(stage) {
      const peer = await stage.connect();
      peer.emit("client_event", { data: "hello" });
      stage.same(await peer.next("server_response"), [{ data: "HELLO" }]);
      stage.same(await peer.ask("message-with-ack", 1, { two: [3, null] }), [1, { two: [3, null] }]);
      await stage.echoes(peer);
    },
  },
  {
    name: "joins a custom namespace, on its own connection and on a shared one",
    async run(stage) {
      const root = await stage.connect();
      const own = await stage.connect("/custom");
      const shared = await stage.join(root, "/custom").connected();
      for (const peer of [own, shared, root]) await stage.echoes(peer, "who shares what");
      own.emit("client_event", { data: "in custom" });
      stage.same(await own.next("server_response"), [{ data: "IN CUSTOM" }]);
    },
  },
  {
    name: "is refused an unknown namespace and keeps the others",
    async run(stage) {
      const root = await stage.connect();
      stage.same(await stage.join(root, "/nope").refused(), "Invalid namespace");
      await stage.echoes(root, "unharmed");
      stage.same(await stage.open("/nope").refused(), "Invalid namespace");
    },
  },
  {
    name: "gives an ack, with bytes too",
    async run(stage) {
      const peer = await stage.connect();
      for (const answer of [[1, "2", { three: [3] }], [], [{ inner: stage.bytes(5, 1) }, "text", stage.bytes(2)]]) {
        peer.emit("emit-with-ack", "question", stage.bytes(3));
        const [text, attached, ack] = await peer.next("emit-with-ack");
        stage.same([text, attached], ["question", stage.bytes(3)]);
        ack(...answer);
        stage.same(await peer.next("emit-with-ack"), answer);
      }
    },
  },
  {
    name: "has a hundred acks in flight",
    async run(stage) {
      const peer = await stage.connect();
      const numbers = Array.from({ length: 100 }, (_, at) => at);
      stage.same(await Promise.all(numbers.map((at) => peer.ask("echo", at))), numbers.map((at) => [at]));
    },
  },
  {
    name: "keeps the order of two hundred events",
    async run(stage) {
      const peer = await stage.connect();
      for (let at = 0; at < 200; at += 1) peer.emit("message", at);
      for (let at = 0; at < 200; at += 1) stage.same(await peer.next("message-back"), [at]);
    },
  },
  {
    name: "keeps every character",
    async run(stage) {
      const peer = await stage.connect();
      const tricky = "grüße 😀 \u2028\u2029 \n \\n \\\\n \"quoted\" 'single' <script></script> & + % \t \u0000";
      await stage.echoes(peer, tricky, { [tricky]: [tricky] });
    },
  },
  {
    name: "keeps nested JSON",
    async run(stage) {
      const peer = await stage.connect();
      const deep = Array.from({ length: 25 }).reduce((inner) => [{ inner }], "bottom");
      const nested = { text: "", list: [[], {}, [null, true, [[["deep"]]]]], "key 😀 \"": { a: [1.5, -2] } };
      await stage.echoes(peer, nested, [nested, [nested]], deep);
    },
  },
  {
    name: "moves 900 kB of text",
    async run(stage) {
      const peer = await stage.connect();
      await stage.echoes(peer, "0123456789".repeat(90_000));
      await stage.echoes(peer, "0123456789\n".repeat(9_100));
    },
  },
  {
    name: "moves nested bytes",
    async run(stage) {
      const peer = await stage.connect();
      const value = { a: stage.bytes(10), b: [stage.bytes(300), { c: stage.bytes(1), d: "é\n\\n" }] };
      await stage.echoes(peer, value, "between", stage.bytes(70_000));
    },
  },
  {
    name: "moves ten attachments",
    async run(stage) {
      const peer = await stage.connect();
      await stage.echoes(peer, ...Array.from({ length: 10 }, (_, at) => stage.bytes(1 + at * 100, at)));
    },
  },
  {
    name: "uses rooms",
    async run(stage) {
      const [ada, bob] = [await stage.connect(), await stage.connect()];
      const [adaId] = await ada.ask("whoami");
      const room = `room of ${adaId}`;
      for (const peer of [ada, bob]) stage.same(await peer.ask("join", room), [true]);
      stage.same((await ada.ask("my_rooms"))[0].sort(), [adaId, room].sort());
      stage.same(await ada.ask("say", room, "note", "for members", { n: 1 }), [true]);
      for (const peer of [ada, bob]) stage.same(await peer.next("note"), ["for members", { n: 1 }]);

      stage.same(await ada.ask("leave", room), [true]);
      stage.same(await ada.ask("my_rooms"), [[adaId]]);
      ada.emit("broadcast", room, { from: room, what: stage.bytes(20) });
      ada.emit("broadcast", null, { from: room, what: "everybody" });
      // The other pages speak to everybody too.
      const heard = async (peer) => {
        let got;
        do [got] = await peer.next("msg");
        while (got.from !== room);
        return got.what;
      };
      stage.same([await heard(bob), await heard(bob)], [stage.bytes(20), "everybody"]);
      stage.same(await heard(ada), "everybody");
    },
  },
  {
    name: "is kicked out of one namespace",
    async run(stage) {
      const root = await stage.connect();
      const custom = await stage.join(root, "/custom").connected();
      custom.emit("kick");
      stage.same((await custom.next("disconnect")).slice(0, 1), ["io server disconnect"]);
      await stage.echoes(root, "unharmed");
      custom.socket.connect();
      await custom.connected();
      await stage.echoes(custom, "forgiven");
    },
  },
  {
    name: "disconnects and connects again",
    async run(stage) {
      const peer = await stage.connect();
      const [first] = await peer.ask("whoami");
      await peer.left();
      stage.same((await peer.next("disconnect")).slice(0, 1), ["io client disconnect"]);
      peer.socket.connect();
      await peer.connected();
      const [second] = await peer.ask("whoami");
      stage.same([first.length, second.length, first === second], [20, 20, false]);
    },
  },
  {
    name: "comes back after its connection was cut",
    async run(stage) {
      const peer = await stage.connect("/", { reconnection: true, reconnectionDelay: 20, reconnectionDelayMax: 20 });
      const [first] = await peer.ask("whoami");
      const ended = peer.ended();
      await stage.cut();
      await ended;
      const [reason] = await peer.next("disconnect");
      stage.same(/^transport (close|error)$/.test(reason), true);
      peer.emit("message", "kept while away");
      await stage.mend();
      await peer.connectedAgain();
      stage.same(await peer.next("message-back"), ["kept while away"]);
      stage.same((await peer.ask("whoami"))[0] === first, false);
    },
  },
  {
    // Chromium opens six connections to a host, and each client holds one with its poll and needs another to send.
    // So three are what one page can have; a hundred clients are tested without a browser.
    name: "connects three times in parallel",
    async run(stage) {
      const ids = await Promise.all(
        [0, 1, 2].map(async (at) => {
          const peer = await stage.connect();
          await stage.echoes(peer, at);
          return (await peer.ask("whoami"))[0];
        }),
      );
      stage.same(new Set(ids).size, 3);
    },
  },
];

// Runs in the page and returns what the scenarios are given: peers that end with their scenario.
function makeStage([origin, withinMs]) {
  const EVENTS = ["auth", "server_response", "message-back", "echo", "msg", "note", "emit-with-ack", "disconnect"];
  const ACCEPTED = "accepted";

  const within = (promise, what) => {
    let timer;
    const late = new Promise((_, fail) => {
      timer = setTimeout(() => fail(new Error(`${what}: nothing within ${withinMs} ms`)), withinMs);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  };

  class Inbox {
    #values = [];
    #waiting = [];

    put(value) {
      const waiting = this.#waiting.shift();
      if (waiting) waiting(value);
      else this.#values.push(value);
    }

    take() {
      if (this.#values.length > 0) return Promise.resolve(this.#values.shift());
      return new Promise((resolve) => this.#waiting.push(resolve));
    }
  }

  // A socket in one namespace with everything that it has received.
  class Peer {
    #inboxes = new Map();
    #decisions = new Inbox();

    constructor(socket) {
      this.socket = socket;
      for (const name of EVENTS) {
        const inbox = new Inbox();
        this.#inboxes.set(name, inbox);
        socket.on(name, (...args) => inbox.put(args));
      }
      socket.on("connect", () => this.#decisions.put(ACCEPTED));
      for (const name of ["error", "connect_error"]) {
        socket.on(name, (error) => this.#decisions.put(String((error && error.message) || error)));
      }
    }

    next(name) {
      return within(this.#inboxes.get(name).take(), `event ${name}`);
    }

    emit(...args) {
      this.socket.emit(...args);
    }

    ask(...args) {
      const answer = new Promise((resolve) => this.socket.emit(...args, (...got) => resolve(got)));
      return within(answer, `ack of ${args[0]}`);
    }

    // The server's words if it refuses, "accepted" otherwise.
    refused() {
      return within(this.#decisions.take(), "the server's decision");
    }

    async connected() {
      const decision = await this.refused();
      if (decision !== ACCEPTED) throw new Error(`refused: ${decision}`);
      return this;
    }

    async connectedAgain() {
      while ((await this.refused()) !== ACCEPTED);
    }

    // Resolves once the connection below has ended.
    ended() {
      return within(new Promise((resolve) => this.socket.io.engine.once("close", resolve)), "the end of the connection");
    }

    async left() {
      const ended = this.ended();
      this.socket.disconnect();
      await ended;
    }
  }

  const plain = (value) => {
    if (value instanceof ArrayBuffer) return `bytes:${new Uint8Array(value).join()}`;
    if (Array.isArray(value)) return value.map(plain);
    if (!value || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
  };
  const same = (got, expected) => {
    const [left, right] = [JSON.stringify(plain(got)), JSON.stringify(plain(expected))];
    const cut = (text) => (text.length > 500 ? `${text.length} characters, ${text.slice(0, 500)}…` : text);
    if (left !== right) throw new Error(`got ${cut(left)}, expected ${cut(right)}`);
  };

  const peers = [];
  const add = (socket) => {
    peers.push(new Peer(socket));
    return peers[peers.length - 1];
  };
  const options = { forceJSONP: true, transports: ["polling"], forceNew: true, reconnection: false };
  return {
    same,
    bytes: (length, seed = 7) => Uint8Array.from({ length }, (_, at) => (at * 31 + seed) & 0xff).buffer,
    // Asks the server to acknowledge `args` with themselves.
    echoes: async (peer, ...args) => same(await peer.ask("echo", ...args), args),
    // A socket on a connection of its own, not connected yet.
    open: (namespace = "/", more = {}) => add(window.io(origin + namespace, { ...options, ...more })),
    connect: (namespace, more) => window.stage.open(namespace, more).connected(),
    // A socket of a further namespace on the connection of `peer`.
    join: (peer, namespace) => add(peer.socket.io.socket(namespace)),
    cut: () => window.setLines("cut"),
    mend: () => window.setLines("mend"),
    // Waits until every connection has ended, so that the next scenario has all of them.
    end: async () => {
      const engines = new Set(peers.map((peer) => peer.socket.io.engine));
      const open = [...engines].filter((engine) => engine && engine.readyState !== "closed");
      const ended = open.map((engine) => new Promise((resolve) => engine.once("close", resolve)));
      for (const peer of peers.splice(0)) {
        peer.socket.io.reconnection(false);
        peer.socket.disconnect();
      }
      for (const engine of open) engine.close();
      await within(Promise.all(ended), "the end of all connections");
    },
  };
}

// How long any single awaited thing in the page may take, in ms. It only ends a hang.
const WITHIN_MS = 8000;

// Runs every scenario with one client. Its relay has a port of its own, so each page has six connections of its own.
async function check(context, relays, bundle) {
  const report = [];
  const relay = await Relay.to(url);
  const page = await plainDocument(context, relay.url);
  relays.set(page, relay);
  await page.addScriptTag({ path: bundle });
  await page.evaluate(`window.stage = (${makeStage})(${JSON.stringify([relay.url, WITHIN_MS])})`);
  const stage = await page.evaluateHandle("window.stage");
  for (const { name, run } of SCENARIOS) {
    const started = performance.now();
    try {
      await page.evaluate(run, stage);
      await page.evaluate((stage) => stage.end(), stage);
    } catch (error) {
      throw new Error(`${bundle}: ${name}: ${error.message}`);
    }
    report.push(`${`${Math.round(performance.now() - started)} ms`.padStart(10)}  ${name}`);
  }
  await page.close();
  relay.close();
  console.log([`ok ${bundle}`, ...report].join("\n"));
}

main(() =>
  withBrowser(async (context, errors) => {
    const relays = new Map();
    await context.exposeBinding("setLines", ({ page }, how) => relays.get(page)[how]());
    await Promise.all(bundles.map((bundle) => check(context, relays, bundle)));
    equal(errors, [], "errors thrown in the page");
    // The bundle is injected, which a content security policy of the document would refuse.
  }, { bypassCSP: true }),
);
