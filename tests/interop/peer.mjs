// One client of any generation behind one surface. What differs between the generations is a row in GENERATIONS;
// the scenarios never ask for a version.
import assert from "node:assert/strict";
import net from "node:net";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/// How long any single awaited thing may take, in ms. Nothing here is slow; this only ends a hang.
const WITHIN_MS = 8000;

/// The pause before a reconnection, in ms. Short, because the scenario is about what comes after it.
const RECONNECT_MS = 20;

/// `refusal`: the event of a refused namespace.
/// `namespaceId`: the id that the server knows a socket of a namespace by, from the socket.
/// `textOverWebSocketOnly`: over polling, 1.x encodes text as UTF-8 twice, and expects the same from the server. No
/// server since 2.0 does that. A text that comes back by the way it went is whole again, but one that goes by polling
/// and comes back by WebSocket is not, so these clients wait for the upgrade.
const ownId = (socket) => socket.id;
const GENERATIONS = {
  1: { refusal: "error", namespaceId: (socket) => `${socket.nsp}#${socket.id}`, textOverWebSocketOnly: true },
  2: { refusal: "error", namespaceId: ownId },
  3: { refusal: "connect_error", namespaceId: ownId },
  4: { refusal: "connect_error", namespaceId: ownId },
};

/// The ways to reach the server that every version is put through.
export const TRANSPORTS = {
  polling: ["polling"],
  websocket: ["websocket"],
  upgrade: ["polling", "websocket"],
};

/// Every event that the server may send in a scenario. A peer keeps them from the first moment on, so that no
/// scenario can be late to listen.
const EVENTS = ["auth", "server_response", "message-back", "echo", "msg", "note", "emit-with-ack", "disconnect"];

const ACCEPTED = Symbol("accepted");

export function within(promise, what, ms = WITHIN_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// A queue of values and of those who wait for one.
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

  get length() {
    return this.#values.length;
  }
}

/// A socket in one namespace with everything that it has received.
export class Peer {
  #inboxes = new Map();
  #decisions = new Inbox();

  constructor(socket, generation) {
    this.socket = socket;
    for (const name of EVENTS) {
      const inbox = new Inbox();
      this.#inboxes.set(name, inbox);
      socket.on(name, (...args) => inbox.put(args));
    }
    socket.on("connect", () => this.#decisions.put(ACCEPTED));
    socket.on(generation.refusal, (error) => this.#decisions.put(error.message ?? String(error)));
  }

  /// The arguments of the next event of this name, received already or not.
  next(name) {
    return within(this.#inboxes.get(name).take(), `event ${name}`);
  }

  /// How many events of this name nobody has taken yet.
  unread(name) {
    return this.#inboxes.get(name).length;
  }

  emit(...args) {
    this.socket.emit(...args);
  }

  /// Emits with an acknowledgement and resolves to its arguments.
  ask(...args) {
    const answer = new Promise((resolve) => this.socket.emit(...args, (...got) => resolve(got)));
    return within(answer, `ack of ${args[0]}`);
  }

  /// Resolves to this peer once its namespace is joined; fails with the server's words if it is refused.
  async connected() {
    const refusal = await within(this.#decisions.take(), "the server's decision");
    if (refusal !== ACCEPTED) throw new Error(`refused: ${refusal}`);
    return this;
  }

  /// Resolves to the words that the server refuses this namespace with.
  async refused() {
    const refusal = await within(this.#decisions.take(), "the server's decision");
    if (refusal === ACCEPTED) throw new Error("accepted");
    return refusal;
  }

  /// Resolves once the namespace is joined, however often the server could not be reached before.
  async connectedAgain() {
    let decision;
    do decision = await within(this.#decisions.take(), "the way back");
    while (decision !== ACCEPTED);
  }

  /// Leaves the last namespace, and resolves once the connection below has ended.
  async left() {
    const ended = new Promise((resolve) => this.engine.once("close", resolve));
    this.socket.disconnect();
    await within(ended, "the end of the connection");
  }

  get engine() {
    return this.socket.io.engine;
  }

  get transport() {
    return this.engine.transport.name;
  }

  /// Resolves once the connection runs over WebSocket and the polling transport is gone.
  async upgraded() {
    if (this.transport !== "websocket") {
      await within(new Promise((resolve) => this.engine.once("upgrade", resolve)), "the upgrade");
    }
    assert.equal(this.transport, "websocket");
  }
}

/// A TCP relay in front of the server whose lines can be cut, as a network failure would.
export class Relay {
  #server;
  #lines = new Set();
  #down = false;

  static async to(url) {
    const relay = new Relay();
    const { hostname, port } = new URL(url);
    relay.#server = net.createServer((near) => {
      if (relay.#down) return near.destroy();
      const far = net.connect({ host: hostname, port: Number(port) });
      for (const [from, to] of [[near, far], [far, near]]) {
        relay.#lines.add(from);
        from.pipe(to);
        from.on("error", () => to.destroy());
        from.on("close", () => {
          relay.#lines.delete(from);
          to.destroy();
        });
      }
    });
    await new Promise((resolve) => relay.#server.listen(0, "127.0.0.1", resolve));
    relay.url = `http://127.0.0.1:${relay.#server.address().port}`;
    return relay;
  }

  /// Cuts every line, and every new one until `mend`.
  cut() {
    this.#down = true;
    for (const line of this.#lines) line.destroy();
  }

  mend() {
    this.#down = false;
  }

  close() {
    this.#server.close();
    this.cut();
  }
}

/// What a scenario gets: it makes peers and relays, and all of them end with the scenario.
export class Stage {
  #peers = [];
  #relays = [];

  constructor({ url, client, transport, parser }) {
    this.url = url;
    this.client = client;
    this.transport = transport;
    this.parser = parser;
    this.generation = GENERATIONS[client.split("-")[0]];
    this.io = require(`sio-${client}`);
  }

  /// The same stage for another client, such as one that meets the first in a room.
  other(client, transport, parser) {
    const other = new Stage({ url: this.url, client, transport, parser });
    other.#peers = this.#peers;
    other.#relays = this.#relays;
    return other;
  }

  /// A socket on a connection of its own, not connected yet.
  open(namespace = "/", options = {}) {
    const { url = this.url, ...rest } = options;
    const socket = this.io(url + namespace, {
      forceNew: true,
      transports: TRANSPORTS[this.transport],
      reconnection: false,
      ...(this.parser && { parser: require(this.parser) }),
      ...rest,
    });
    return this.#add(socket);
  }

  /// A socket of a further namespace on the connection of `peer`.
  join(peer, namespace, options) {
    return this.#add(peer.socket.io.socket(namespace, options));
  }

  /// A connected socket on a connection of its own. An upgrade may still be under way.
  async connect(namespace = "/", options = {}) {
    const peer = await this.open(namespace, options).connected();
    if (this.transport === "upgrade" && this.generation.textOverWebSocketOnly) await peer.upgraded();
    return peer;
  }

  async relay() {
    const relay = await Relay.to(this.url);
    this.#relays.push(relay);
    return relay;
  }

  /// Options of a client that comes back by itself.
  reconnecting() {
    return { reconnection: true, reconnectionDelay: RECONNECT_MS, reconnectionDelayMax: RECONNECT_MS };
  }

  #add(socket) {
    const peer = new Peer(socket, this.generation);
    this.#peers.push(peer);
    return peer;
  }

  end() {
    for (const peer of this.#peers.splice(0)) {
      peer.socket.io.reconnection(false);
      peer.socket.disconnect();
      peer.socket.io.engine?.close();
    }
    for (const relay of this.#relays.splice(0)) relay.close();
  }
}
