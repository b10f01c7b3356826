// Clients that live through an outage of the broker, and say afterwards what they noticed:
//   node outage.mjs <url> <edge url>...
// Twelve clients go through <url>, half of them by polling only, and two by WebSocket to each edge. All are in one room.
// They echo all the time; standard input says what else to do, a line each, and every line is answered by one:
//   round    every client sends one broadcast to the room and to the namespace; counts who got what: "round <missing> <twice>"
//   local    the same to the room, but counts only what clients of the same edge must have got
//   join     every client joins a fresh room; "join <slowest ack in ms>"
//   report   "report {json}", and the clients end
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const io = require("sio-4-8");
const [url, ...edges] = process.argv.slice(2);
const WITHIN_MS = 15_000;
const LOOK_MS = 20;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const say = (line) => process.stdout.write(`${line}\n`);

function connect(url, transports, edge) {
  const socket = io(url, { transports, forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200 });
  const client = { socket, edge, by: transports.join(), got: new Map(), disconnects: 0, slowest: 0, unanswered: 0 };
  socket.on("disconnect", () => (client.disconnects += 1));
  socket.on("msg", (id) => client.got.set(id, (client.got.get(id) ?? 0) + 1));
  return client;
}

const clients = [];
for (let number = 0; number < 6; number += 1) {
  clients.push(connect(url, ["polling"]), connect(url, ["websocket"]));
}
edges.forEach((edge, index) => clients.push(connect(edge, ["websocket"], index), connect(edge, ["websocket"], index)));
await Promise.all(clients.map(({ socket }) => new Promise((resolve) => socket.once("connect", resolve))));
// The first four characters of an id name the node: that is how it is known who shares an edge.
for (const client of clients) client.node = client.socket.id.slice(0, 4);
await Promise.all(clients.map(({ socket }) => socket.emitWithAck("join", "room")));

/// How long this process itself was held up so far: what is waited for meanwhile is not to blame.
let held = 0;
let looked = performance.now();
setInterval(() => {
  const now = performance.now();
  held += Math.max(0, now - looked - 2 * LOOK_MS);
  looked = now;
}, LOOK_MS).unref();
const clock = () => performance.now() - held;

let goesOn = true;
const echoing = clients.map(async (client) => {
  for (let number = 0; goesOn; number += 1) {
    const began = clock();
    try {
      const answer = await client.socket.timeout(WITHIN_MS).emitWithAck("echo", number);
      if (answer !== number) client.unanswered += 1;
    } catch {
      client.unanswered += 1;
    }
    client.slowest = Math.max(client.slowest, clock() - began);
    await sleep(50);
  }
});

let rounds = 0;
/// Everybody sends once to the room and once to the namespace, and everybody must get each exactly once.
async function round(isLocal) {
  rounds += 1;
  const sent = clients.flatMap((client, number) =>
    [`${rounds} room ${number}`, `${rounds} all ${number}`].map((id) => ({ id, from: client })),
  );
  for (const client of clients) client.got.clear();
  await Promise.all(
    clients.map(async ({ socket }, number) => {
      await socket.timeout(WITHIN_MS).emitWithAck("broadcast", "room", `${rounds} room ${number}`);
      await socket.timeout(WITHIN_MS).emitWithAck("broadcast", null, `${rounds} all ${number}`);
    }),
  );
  const owed = (client) => sent.filter(({ from }) => !isLocal || from.node === client.node);
  const count = (test) =>
    clients.reduce((sum, client) => sum + owed(client).filter(({ id }) => test(client.got.get(id) ?? 0)).length, 0);
  const until = performance.now() + WITHIN_MS;
  while (count((times) => times === 0) > 0 && performance.now() < until) await sleep(20);
  // What comes twice comes at about the same time.
  await sleep(200);
  say(`round ${count((times) => times === 0)} ${count((times) => times > 1)}`);
}

async function join() {
  let slowest = 0;
  await Promise.all(
    clients.map(async ({ socket }, number) => {
      const began = clock();
      await socket.timeout(WITHIN_MS).emitWithAck("join", `fresh ${rounds} ${number}`);
      slowest = Math.max(slowest, clock() - began);
    }),
  );
  say(`join ${Math.round(slowest)}`);
}

async function report() {
  goesOn = false;
  await Promise.all(echoing);
  const of = (key) => clients.map((client) => client[key]);
  say(
    `report ${JSON.stringify({
      disconnects: of("disconnects").reduce((sum, one) => sum + one, 0),
      unanswered: of("unanswered").reduce((sum, one) => sum + one, 0),
      slowest_ms: Math.round(Math.max(...of("slowest"))),
    })}`,
  );
  for (const { socket } of clients) socket.disconnect();
  process.exit(0);
}

say("ready");
const commands = { round: () => round(false), local: () => round(true), join, report };
for await (const line of createInterface({ input: process.stdin })) await commands[line.trim()]();
