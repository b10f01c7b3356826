// A Socket.IO server of Node that is a member of the cluster, with three clients of its own:
//   node node_member.mjs <Redis URL>
// It says "sids <json>" once everybody is connected. Its clients answer what asks for an ack with their ids, but for the
// event "half", which the first one leaves unanswered. Standard input says what to do, and every line is answered:
//   ask <event>    asks every socket of the cluster; "asked <json of the answers>"
//   heard          what the clients heard since the last time; "heard <json: a list of names for each>"
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(import.meta.url);
const { createAdapter } = require("@socket.io/redis-adapter");
const { createClient } = require("redis");
const { Server } = require("socket.io");
const io = require("sio-4-8");

const [url] = process.argv.slice(2);
const WITHIN_MS = 10_000;

const say = (line) => process.stdout.write(`${line}\n`);

const publisher = createClient({ url });
const subscriber = publisher.duplicate();
for (const client of [publisher, subscriber]) client.on("error", () => {});
await Promise.all([publisher.connect(), subscriber.connect()]);

const http = createServer();
const server = new Server(http, { serveClient: false, adapter: createAdapter(publisher, subscriber) });
server.on("connection", () => {});
await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));

const clients = [0, 1, 2].map((number) => {
  const client = { socket: io(`http://127.0.0.1:${http.address().port}`, { transports: ["websocket"], forceNew: true }), heard: [] };
  client.socket.onAny((event, ...args) => {
    client.heard.push(event);
    const ack = args.at(-1);
    if (typeof ack === "function" && !(event === "half" && number === 0)) ack(client.socket.id);
  });
  return client;
});
await Promise.all(clients.map(({ socket }) => new Promise((resolve) => socket.once("connect", resolve))));
say(`sids ${JSON.stringify(clients.map(({ socket }) => socket.id))}`);

for await (const line of createInterface({ input: process.stdin })) {
  const [what, event] = line.split(" ");
  if (what === "ask") {
    const answers = await server.timeout(WITHIN_MS).emitWithAck(event);
    say(`asked ${JSON.stringify(answers)}`);
  } else if (what === "heard") {
    say(`heard ${JSON.stringify(clients.map(({ heard }) => heard.splice(0)))}`);
  }
}
process.exit(0);
