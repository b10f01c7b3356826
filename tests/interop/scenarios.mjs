// What every client must be able to do. Each row is a scenario: `name`, `run(stage)`, and where not everybody can
// take part, `lacks`: who cannot and why. A key of `lacks` is a client version ("1-4"), a generation ("2"), a
// transport ("polling") or "msgpack"; the reason is printed.
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";

/// Letters outside the basic plane, escapes, separators that JavaScript once refused, and a zero.
const UNICODE = "€ é 😀 𝕊𝕠𝕔𝕜 👩‍👩‍👧 \u2028\u2029 \u0000\u001f \"quoted\" back\\slash \\n\n\r\t \x1e \uffff";

const NESTED = {
  text: "",
  list: [[], {}, [null, true, false, [[[["deep"]]]]]],
  numbers: [0, -1, 1.5, -2.5e-7, 9007199254740991, 4294967296, -2147483649],
  "key with \"quotes\" and 😀": { a: { b: { c: { d: { e: [{ f: {} }] } } } } },
  looksLikeAPacket: '451-/nsp,["x",{"_placeholder":true,"num":0}]',
};

/// A value inside fifty arrays and objects.
const DEEP = Array.from({ length: 25 }).reduce((inner) => [{ inner }], "bottom");

export const bytes = (length, seed = 7) => Buffer.from(Array.from({ length }, (_, at) => (at * 31 + seed) & 0xff));

/// Old clients hand out ArrayBuffers on some transports and Buffers on others. Both become hex here.
function plain(value) {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    const view = ArrayBuffer.isView(value) ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : value;
    return `bytes:${Buffer.from(view).toString("hex")}`;
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
  }
  return value;
}

/// Not deepEqual on buffers: a difference of a megabyte must not be printed in full.
export function same(got, expected) {
  const [left, right] = [plain(got), plain(expected)];
  const [leftText, rightText] = [JSON.stringify(left), JSON.stringify(right)];
  if (rightText.length < 2000 && leftText.length < 4000) return assert.deepEqual(left, right);
  assert.ok(leftText === rightText, `${leftText.length} characters came back for ${rightText.length}, and they differ`);
}

/// Asks the server to acknowledge `args` with themselves.
async function echoes(peer, ...args) {
  same(await peer.ask("echo", ...args), args);
}

export const SCENARIOS = [
  {
    name: "connects, over the transport it asked for",
    async run(stage) {
      const peer = await stage.connect();
      assert.match(peer.socket.id, /^[\w-]{20}$/);
      same(await peer.next("auth"), [{}]);
      if (stage.transport === "upgrade") await peer.upgraded();
      else assert.equal(peer.transport, stage.transport);
      same(await peer.ask("whoami"), [peer.socket.id]);
    },
  },
  {
    name: "joins a custom namespace",
    async run(stage) {
      const peer = await stage.connect("/custom");
      same(await peer.next("auth"), [{}]);
      same(await peer.ask("whoami"), [stage.generation.namespaceId(peer.socket)]);
      peer.emit("client_event", { data: "in custom" });
      same(await peer.next("server_response"), [{ data: "IN CUSTOM" }]);
    },
  },
  {
    name: "sends credentials with a namespace",
    lacks: { "1-4": "this client sends neither auth nor a query with a namespace" },
    async run(stage) {
      const custom = await stage.connect("/custom", { auth: { token: "a b&c" }, query: { token: "a b&c" } });
      same(await custom.next("auth"), [{ token: "a b&c" }]);
    },
  },
  {
    name: "uses two namespaces on one connection and leaves one",
    async run(stage) {
      const root = await stage.connect();
      const custom = await stage.join(root, "/custom").connected();
      const [there, here] = await Promise.all([custom.ask("echo", "custom"), root.ask("echo", "root")]);
      same([there, here], [["custom"], ["root"]]);
      custom.socket.disconnect();
      same(await custom.next("disconnect").then(([reason]) => [reason]), ["io client disconnect"]);
      await echoes(root, "still here");
      custom.socket.connect();
      await custom.connected();
      await echoes(custom, "back");
    },
  },
  {
    name: "is refused an unknown namespace and keeps the others",
    async run(stage) {
      const root = await stage.connect();
      const refused = stage.join(root, "/nope");
      assert.equal(await refused.refused(), "Invalid namespace");
      assert.ok(!refused.socket.connected);
      await echoes(root, "unharmed");
    },
  },
  {
    name: "is refused an unknown namespace on a connection of its own",
    async run(stage) {
      assert.equal(await stage.open("/nope").refused(), "Invalid namespace");
    },
  },
  {
    name: "gets an event in reply",
    async run(stage) {
      const peer = await stage.connect();
      peer.emit("client_event", { data: "test" });
      same(await peer.next("server_response"), [{ data: "TEST" }]);
      peer.emit("message", 1, "two", [3], { four: 4 }, null, true);
      same(await peer.next("message-back"), [1, "two", [3], { four: 4 }, null, true]);
      peer.emit("echo", "no ack wanted");
      same(await peer.next("echo"), ["no ack wanted"]);
      peer.emit("echo");
      same(await peer.next("echo"), []);
    },
  },
  {
    name: "gets an ack",
    async run(stage) {
      const peer = await stage.connect();
      await echoes(peer, 1, "2", { three: [4] }, null, false, 5.5);
      await echoes(peer);
      same(await peer.ask("message-with-ack", "a", ["b"]), ["a", ["b"]]);
      const custom = await stage.connect("/custom");
      await echoes(custom, "in a namespace");
    },
  },
  {
    name: "gives an ack",
    async run(stage) {
      const peer = await stage.connect();
      for (const answer of [[1, "2", { three: [3] }], []]) {
        peer.emit("emit-with-ack", "question", 42);
        const [first, second, ack] = await peer.next("emit-with-ack");
        same([first, second], ["question", 42]);
        ack(...answer);
        same(await peer.next("emit-with-ack"), answer);
      }
    },
  },
  {
    name: "gives an ack with bytes",
    async run(stage) {
      const peer = await stage.connect();
      peer.emit("emit-with-ack", bytes(3));
      const [question, ack] = await peer.next("emit-with-ack");
      same(question, bytes(3));
      ack({ inner: bytes(5, 1) }, "text", bytes(2));
      same(await peer.next("emit-with-ack"), [{ inner: bytes(5, 1) }, "text", bytes(2)]);
    },
  },
  {
    name: "connects a hundred times in parallel",
    async run(stage) {
      const ids = await Promise.all(
        Array.from({ length: 100 }, async (_, at) => {
          const peer = await stage.connect();
          await echoes(peer, at);
          return peer.socket.id;
        }),
      );
      assert.equal(new Set(ids).size, 100);
    },
  },
  {
    name: "has a hundred acks in flight",
    async run(stage) {
      const peer = await stage.connect();
      const numbers = Array.from({ length: 100 }, (_, at) => at);
      same(await Promise.all(numbers.map((at) => peer.ask("echo", at))), numbers.map((at) => [at]));
    },
  },
  {
    name: "keeps the order of two hundred events, across an upgrade too",
    async run(stage) {
      const peer = await stage.open().connected();
      for (let at = 0; at < 200; at++) {
        peer.emit("message", at);
        // A turn of the loop now and then, so that they leave in many portions, some before and some after.
        if (at % 25 === 0) await new Promise(setImmediate);
      }
      for (let at = 0; at < 200; at++) same(await peer.next("message-back"), [at]);
    },
  },
  {
    name: "keeps the order of texts and bytes",
    async run(stage) {
      const peer = await stage.connect();
      const sent = Array.from({ length: 60 }, (_, at) => (at % 3 === 0 ? [at, bytes(at + 1)] : [at]));
      for (const args of sent) peer.emit("message", ...args);
      for (const args of sent) same(await peer.next("message-back"), args);
    },
  },
  {
    name: "keeps every character",
    async run(stage) {
      const peer = await stage.connect();
      await echoes(peer, UNICODE, { [UNICODE]: [UNICODE] });
      peer.emit("message", UNICODE, "after");
      same(await peer.next("message-back"), [UNICODE, "after"]);
      for (const letters of ["é", "€", "😀", "😀€é\u0000"]) await echoes(peer, letters.repeat(50), letters);
    },
  },
  {
    name: "keeps half of a surrogate pair",
    lacks: { msgpack: "its strings are UTF-8, which has no such thing" },
    async run(stage) {
      const peer = await stage.connect();
      await echoes(peer, "cut \ud83d", "\ude00 off");
    },
  },
  {
    name: "keeps event names and room names of any letters",
    async run(stage) {
      const peer = await stage.connect();
      const room = "räume/😀,1 [\"x\"] #";
      same(await peer.ask("join", room), [true]);
      same(await peer.ask("say", room, "note", room), [true]);
      same(await peer.next("note"), [room]);
      const named = new Promise((resolve) => peer.socket.on("ünïcode 😀 \"event\"", resolve));
      same(await peer.ask("say", room, "ünïcode 😀 \"event\"", "here"), [true]);
      assert.equal(await named, "here");
    },
  },
  {
    name: "keeps nested JSON",
    async run(stage) {
      const peer = await stage.connect();
      await echoes(peer, NESTED, [NESTED, [NESTED]], DEEP);
      peer.emit("message", NESTED);
      same(await peer.next("message-back"), [NESTED]);
    },
  },
  {
    name: "keeps numbers beyond 64 bits",
    lacks: { msgpack: "its encoder writes whole numbers modulo 2^64" },
    async run(stage) {
      const peer = await stage.connect();
      await echoes(peer, 1e21, -1e300, 18446744073709551616);
    },
  },
  {
    name: "keeps data that looks like a placeholder",
    async run(stage) {
      const peer = await stage.connect();
      await echoes(peer, { _placeholder: true, num: 0 }, [{ _placeholder: "no" }]);
    },
  },
  {
    name: "moves 900 kB of text, or over polling with msgpack 700",
    async run(stage) {
      const peer = await stage.connect();
      if (stage.transport === "upgrade") await peer.upgraded();
      // Everything from a msgpack client is bytes, which polling carries as base64: a third more.
      const tens = stage.parser && stage.transport === "polling" ? 70_000 : 90_000;
      await echoes(peer, "0123456789".repeat(tens));
      await echoes(peer, "small again");
    },
  },
  {
    name: "moves 600 kB of bytes",
    async run(stage) {
      const peer = await stage.connect();
      if (stage.transport === "upgrade") await peer.upgraded();
      await echoes(peer, bytes(600_000));
    },
  },
  {
    name: "moves nested bytes",
    async run(stage) {
      const peer = await stage.connect();
      const value = { a: bytes(10), b: [bytes(300), { c: bytes(1), d: "text é" }], e: [] };
      await echoes(peer, value, "between", bytes(70_000));
      peer.emit("message", bytes(4), value);
      same(await peer.next("message-back"), [bytes(4), value]);
      const custom = await stage.connect("/custom");
      await echoes(custom, value);
    },
  },
  {
    name: "moves ten attachments",
    async run(stage) {
      const peer = await stage.connect();
      const many = Array.from({ length: 10 }, (_, at) => bytes(1 + at * 100, at));
      await echoes(peer, ...many);
      peer.emit("message", many);
      same(await peer.next("message-back"), [many]);
    },
  },
  {
    name: "moves an empty attachment",
    async run(stage) {
      const peer = await stage.connect();
      await echoes(peer, bytes(0), "and", bytes(1));
    },
  },
  {
    name: "uses rooms",
    async run(stage) {
      const [ada, bob, eve] = await Promise.all([stage.connect(), stage.connect(), stage.connect()]);
      const room = `room-${ada.socket.id}`;
      same(await Promise.all([ada.ask("join", room), bob.ask("join", room)]), [[true], [true]]);
      const [rooms] = await ada.ask("my_rooms");
      same(rooms.sort(), [ada.socket.id, room].sort());

      same(await ada.ask("say", room, "note", "for members", { n: 1 }), [true]);
      same(await ada.next("note"), ["for members", { n: 1 }]);
      same(await bob.next("note"), ["for members", { n: 1 }]);

      same(await bob.ask("leave", room), [true]);
      same((await bob.ask("my_rooms"))[0], [bob.socket.id]);
      ada.emit("broadcast", room, "ada alone");
      same(await ada.next("msg"), ["ada alone"]);
      ada.emit("broadcast", null, `to everybody from ${room}`);
      for (const peer of [ada, bob, eve]) {
        // Others may use the server at the same time, so everybody's messages are told apart by the room.
        let got;
        do [got] = await peer.next("msg");
        while (!String(got).endsWith(room));
        same(got, `to everybody from ${room}`);
      }
      // Whatever had been sent to them earlier would have arrived before that.
      same([bob.unread("note"), eve.unread("note")], [0, 0]);
    },
  },
  {
    name: "reaches one socket by its id",
    async run(stage) {
      const [ada, bob] = await Promise.all([stage.connect(), stage.connect()]);
      same(await ada.ask("say", bob.socket.id, "note", "private"), [true]);
      same(await bob.next("note"), ["private"]);
      same(await bob.ask("echo", "in order"), ["in order"]);
      assert.equal(ada.unread("note"), 0);
    },
  },
  {
    name: "broadcasts bytes to a room",
    async run(stage) {
      const peers = await Promise.all(Array.from({ length: 5 }, () => stage.connect()));
      const room = `bytes-${peers[0].socket.id}`;
      await Promise.all(peers.map((peer) => peer.ask("join", room)));
      peers[0].emit("broadcast", room, { picture: bytes(2000), name: "é" });
      for (const peer of peers) same(await peer.next("msg"), [{ picture: bytes(2000), name: "é" }]);
    },
  },
  {
    name: "keeps namespaces apart",
    async run(stage) {
      const root = await stage.connect();
      const custom = await stage.join(root, "/custom").connected();
      const room = `apart-${root.socket.id}`;
      await Promise.all([root.ask("join", room), custom.ask("join", room)]);
      same(await custom.ask("say", room, "note", "custom only"), [true]);
      same(await custom.next("note"), ["custom only"]);
      await echoes(root, "nothing for me");
      assert.equal(root.unread("note"), 0);
    },
  },
  {
    name: "is kicked out of one namespace",
    async run(stage) {
      const root = await stage.connect();
      const custom = await stage.join(root, "/custom").connected();
      custom.emit("kick");
      same(await custom.next("disconnect").then(([reason]) => [reason]), ["io server disconnect"]);
      await echoes(root, "unharmed");
      custom.socket.connect();
      await custom.connected();
      await echoes(custom, "forgiven");
    },
  },
  {
    name: "disconnects and connects again",
    async run(stage) {
      const peer = await stage.connect();
      const [room, first] = ["left-behind", peer.socket.id];
      await peer.ask("join", room);
      await peer.left();
      same((await peer.next("disconnect")).slice(0, 1), ["io client disconnect"]);
      peer.socket.connect();
      await peer.connected();
      assert.notEqual(peer.socket.id, first);
      same((await peer.ask("my_rooms"))[0], [peer.socket.id]);
    },
  },
  {
    name: "comes back after its connection was cut",
    async run(stage) {
      const relay = await stage.relay();
      const peer = await stage.connect("/", { ...stage.reconnecting(), url: relay.url });
      if (stage.transport === "upgrade") await peer.upgraded();
      const first = peer.socket.id;
      await echoes(peer, "before");
      relay.cut();
      const [reason] = await peer.next("disconnect");
      assert.match(reason, /^transport (close|error)$/);
      peer.emit("message", "kept while away");
      relay.mend();
      await peer.connectedAgain();
      assert.notEqual(peer.socket.id, first);
      same(await peer.next("message-back"), ["kept while away"]);
      await echoes(peer, "after");
    },
  },
  {
    name: "comes back a hundred times",
    async run(stage) {
      const relay = await stage.relay();
      const options = { ...stage.reconnecting(), url: relay.url };
      const peers = await Promise.all(Array.from({ length: 100 }, () => stage.connect("/", options)));
      // A client whose WebSocket breaks between its probe and its upgrade takes no notice before its ping timeout.
      if (stage.transport === "upgrade") await Promise.all(peers.map((peer) => peer.upgraded()));
      relay.cut();
      await Promise.all(peers.map((peer) => peer.next("disconnect")));
      relay.mend();
      await Promise.all(peers.map((peer) => peer.connectedAgain()));
      await Promise.all(peers.map((peer, at) => echoes(peer, at)));
    },
  },
];
