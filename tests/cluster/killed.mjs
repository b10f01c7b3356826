// Clients of several edges, one of which is killed:
//   node killed.mjs <url>
// Says which node is to be killed ("victim <id>"), is told when that is done, and then says what happened. Fails if a
// client of another node noticed anything, or if one of that node needed more than one reconnect.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const io = require("sio-4-8");
const [url] = process.argv.slice(2);
const PER_TRANSPORT = 10;

const clients = [];
for (const transports of [["polling"], ["websocket"], ["polling", "websocket"]]) {
  for (let number = 0; number < PER_TRANSPORT; number += 1) {
    const socket = io(url, { transports, forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 200 });
    const client = { socket, by: transports.join(), connects: 0, failures: 0, disconnects: 0 };
    socket.on("connect", () => (client.connects += 1));
    socket.on("disconnect", () => (client.disconnects += 1));
    socket.io.on("reconnect_error", () => (client.failures += 1));
    clients.push(client);
  }
}
const until = async (what, holds) => {
  const deadline = performance.now() + 30_000;
  while (!holds()) {
    assert.ok(performance.now() < deadline, `${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};
await until("everybody connects", () => clients.every(({ socket }) => socket.connected));
await until("everybody upgrades", () =>
  clients.every(({ socket, by }) => by === "polling" || socket.io.engine.transport.name === "websocket"),
);
for (const client of clients) {
  await client.socket.emitWithAck("join", "room");
  // The session of a WebSocket may be relayed by another node, which is no reason to count it to that.
  client.node = client.socket.id.slice(0, 4);
}
console.log("ready");
const victim = clients[0].node;
console.log(`victim ${victim}`);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
await lines.next();
const own = clients.filter(({ node }) => node === victim);
const others = clients.filter(({ node }) => node !== victim);
await until("its clients come back", () => own.every(({ connects, socket }) => connects === 2 && socket.connected));
assert.ok(own.every(({ disconnects }) => disconnects === 1), "one disconnect each");
// Whose poll or WebSocket was relayed by the killed node in that moment is cut with it; everybody else keeps the session.
const cut = others.filter(({ disconnects }) => disconnects > 0);
const isRelayed = ({ by, disconnects }) => by !== "websocket" && disconnects === 1;
assert.ok(cut.every(isRelayed), "of other nodes only those are cut that were relayed, and once");
await until("those come back too", () => cut.every(({ connects, socket }) => connects === 2 && socket.connected));
for (const { socket } of own) await socket.emitWithAck("join", "room");
for (const { socket } of cut) await socket.emitWithAck("join", "room");
const heard = clients.map(({ socket }) => new Promise((resolve) => socket.once("msg", resolve)));
await others[0].socket.emitWithAck("broadcast", "room", "after");
await Promise.all(heard);
const failures = own.reduce((sum, client) => sum + client.failures, 0);
console.log(`outcome ${own.length} came back, ${cut.length} relayed were cut, ${others.length - cut.length} noticed nothing, ${failures} failed attempts`);
process.exit(0);
