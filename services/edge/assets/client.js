// A small Socket.IO client: protocol 5 over Engine.IO 4, in plain JavaScript modules.
//
//   import { io } from "/assets/client.js";
//   const socket = io();
//   socket.on("server_response", (answer) => console.log(answer.data));
//   socket.emit("client_event", { data: "hello" });
//
// It covers namespaces, events, acknowledgements in both directions, binary arguments, automatic upgrade and
// reconnection, under the names that the official client uses. It leaves out the msgpack parser, retries,
// connection state recovery and support for browsers without ES modules.

import { Engine } from "./engine.js";

const TYPES = { connect: 0, disconnect: 1, event: 2, ack: 3, connectError: 4, binaryEvent: 5, binaryAck: 6 };

// The same bound as the server's: a packet announcing more attachments is refused before any is kept.
const ATTACHMENTS_MAX = 10;

// Packets kept for a namespace that is not connected; the oldest go first, so that a long outage stays harmless.
const WAITING_MAX = 1000;

const DEFAULTS = {
  path: "/socket.io",
  transports: ["polling", "websocket"],
  auth: null,
  query: {},
  autoConnect: true,
  reconnection: true,
  reconnectionDelay: 1000,
  reconnectionDelayMax: 5000,
  randomizationFactor: 0.5,
  onPacket: null,
  onTransport: null,
};

/** Connects to a namespace: `io("/chat")`, `io("https://example.org/chat", { auth })`, or `io()` for `/` here. */
export function io(url, options) {
  const [target, settings] = typeof url === "object" ? [undefined, url] : [url, options];
  const address = new URL(target || "/", location.origin);
  return new Manager(address.origin, settings).socket(address.pathname);
}

/** Calls listeners by event name, in the order they were added. */
class Emitter {
  constructor() {
    this.listeners = new Map();
  }

  on(name, listener) {
    this.listeners.set(name, [...(this.listeners.get(name) || []), listener]);
    return this;
  }

  once(name, listener) {
    const wrapped = (...args) => {
      this.off(name, wrapped);
      listener(...args);
    };
    return this.on(name, wrapped);
  }

  off(name, listener) {
    this.listeners.set(name, (this.listeners.get(name) || []).filter((known) => listener && known !== listener));
    return this;
  }

  // A listener that throws is the page's mistake: it is reported as such and must not stop the session.
  trigger(name, ...args) {
    for (const listener of this.listeners.get(name) || []) {
      try {
        listener(...args);
      } catch (error) {
        setTimeout(() => {
          throw error;
        });
      }
    }
  }
}

/** One connection to one server, shared by the sockets of all its namespaces; it reconnects by itself. */
export class Manager extends Emitter {
  constructor(origin, options) {
    super();
    this.options = { ...DEFAULTS, ...options };
    this.address = new URL(this.options.path.replace(/\/?$/, "/"), origin);
    for (const [key, value] of Object.entries(this.options.query)) this.address.searchParams.set(key, value);
    this.sockets = new Map();
    this.engine = null;
    this.attempts = 0;
    this.retry = null;
  }

  /** Returns the socket of a namespace, the same one on each call. */
  socket(namespace) {
    if (!this.sockets.has(namespace)) this.sockets.set(namespace, new Socket(this, namespace));
    const socket = this.sockets.get(namespace);
    if (this.options.autoConnect) socket.connect();
    return socket;
  }

  open() {
    clearTimeout(this.retry);
    this.retry = null;
    if (this.engine && this.engine.state !== "closed") return;
    this.partial = null; // a packet whose attachments have not all arrived
    const engine = new Engine(this.address, this.options, {
      open: () => this.handleOpen(),
      message: (data) => this.handleMessage(data),
      close: (reason) => this.handleClose(reason),
      packet: this.options.onPacket,
      transport: this.options.onTransport,
    });
    this.engine = engine;
  }

  handleOpen() {
    const attempts = this.attempts;
    this.attempts = 0;
    this.trigger("open");
    if (attempts > 0) this.trigger("reconnect", attempts);
    for (const socket of this.sockets.values()) if (socket.wanted) socket.join();
  }

  handleClose(reason) {
    const opened = this.engine.sid !== null;
    if (!opened) this.trigger("error", new Error(reason));
    for (const socket of this.sockets.values()) {
      if (opened) socket.leave(reason);
      else if (socket.wanted) socket.trigger("connect_error", new Error(reason));
    }
    const wanted = [...this.sockets.values()].some((socket) => socket.wanted);
    if (wanted && this.options.reconnection && !this.retry) this.reconnectLater();
  }

  // Doubles the delay up to its bound and spreads it, so that clients of a restarted server do not come all at once.
  reconnectLater() {
    const { reconnectionDelay, reconnectionDelayMax, randomizationFactor } = this.options;
    const delay = Math.min(reconnectionDelay * 2 ** this.attempts, reconnectionDelayMax);
    const spread = 1 + randomizationFactor * (2 * Math.random() - 1);
    this.attempts += 1;
    this.retry = setTimeout(() => {
      this.trigger("reconnect_attempt", this.attempts);
      this.open();
    }, Math.min(delay * spread, reconnectionDelayMax));
  }

  // Closes the connection once no namespace wants it.
  release() {
    if ([...this.sockets.values()].some((socket) => socket.wanted)) return;
    clearTimeout(this.retry);
    this.retry = null;
    this.attempts = 0;
    if (this.engine) this.engine.close();
  }

  send(packet) {
    for (const part of encode(packet)) this.engine.send(part);
  }

  handleMessage(data) {
    let packet = null;
    try {
      packet = this.assemble(data);
    } catch (error) {
      return this.engine.fail("parse error");
    }
    if (!packet) return;
    const socket = this.sockets.get(packet.namespace);
    if (socket) socket.handle(packet);
  }

  // Returns a whole packet, or null while attachments are missing.
  assemble(data) {
    if (typeof data === "string") {
      if (this.partial) throw new Error("text while attachments are missing");
      const packet = decode(data);
      if (packet.attachments === 0) return packet;
      this.partial = { packet, buffers: [] };
      return null;
    }
    if (!this.partial) throw new Error("an attachment that no packet announced");
    const { packet, buffers } = this.partial;
    buffers.push(data);
    if (buffers.length < packet.attachments) return null;
    this.partial = null;
    return { ...packet, data: fill(packet.data, buffers) };
  }
}

/** One namespace of one server. */
export class Socket extends Emitter {
  constructor(manager, namespace) {
    super();
    this.io = manager;
    this.namespace = namespace;
    this.id = undefined;
    this.connected = false;
    this.wanted = false; // whether the application asked for a connection
    this.waiting = []; // emits until the namespace is joined
    this.acks = new Map();
    this.nextAck = 0;
  }

  /** Whether the socket is connected or tries to be. */
  get active() {
    return this.wanted;
  }

  connect() {
    if (this.wanted) return this;
    this.wanted = true;
    if (this.io.engine && this.io.engine.state === "open") this.join();
    else this.io.open();
    return this;
  }

  disconnect() {
    if (!this.wanted) return this;
    this.wanted = false;
    if (this.connected) this.io.send({ type: TYPES.disconnect, namespace: this.namespace });
    this.leave("io client disconnect");
    this.io.release();
    return this;
  }

  /** Sends an event; a last argument that is a function receives the arguments of the acknowledgement. */
  emit(name, ...args) {
    const packet = { type: TYPES.event, namespace: this.namespace, data: [name, ...args] };
    if (typeof args[args.length - 1] === "function") {
      packet.id = this.nextAck++;
      this.acks.set(packet.id, packet.data.pop());
    }
    if (this.connected) this.io.send(packet);
    else this.waiting = [...this.waiting, packet].slice(-WAITING_MAX);
    return this;
  }

  join() {
    const { auth } = this.io.options;
    if (typeof auth !== "function") return this.sendConnect(auth);
    return auth((data) => this.sendConnect(data));
  }

  sendConnect(auth) {
    this.io.send({ type: TYPES.connect, namespace: this.namespace, data: auth || undefined });
  }

  // Acknowledgements of a lost connection never come; their callbacks are let go. Emits in waiting keep theirs.
  leave(reason) {
    const waiting = new Set(this.waiting.map((packet) => packet.id));
    for (const id of this.acks.keys()) if (!waiting.has(id)) this.acks.delete(id);
    this.id = undefined;
    if (!this.connected) return;
    this.connected = false;
    this.trigger("disconnect", reason);
  }

  handle(packet) {
    switch (packet.type) {
      case TYPES.connect:
        return this.handleConnect(packet.data);
      case TYPES.disconnect:
        this.wanted = false;
        this.leave("io server disconnect");
        return this.io.release();
      case TYPES.connectError:
        this.wanted = false;
        this.trigger("connect_error", Object.assign(new Error(packet.data.message), { data: packet.data.data }));
        return this.io.release();
      case TYPES.event:
      case TYPES.binaryEvent:
        return this.trigger(...packet.data, ...this.replyFor(packet));
      default:
        return this.handleAck(packet);
    }
  }

  handleConnect(data) {
    this.id = data.sid;
    this.connected = true;
    for (const packet of this.waiting.splice(0)) this.io.send(packet);
    this.trigger("connect");
  }

  // The function that listeners call to acknowledge the event, if the server asked for it.
  replyFor({ id }) {
    if (id === undefined) return [];
    return [(...data) => this.io.send({ type: TYPES.ack, namespace: this.namespace, id, data })];
  }

  handleAck({ id, data }) {
    const callback = this.acks.get(id);
    this.acks.delete(id);
    if (callback) callback(...data);
  }
}

// ---- wire format: <type>[<attachments>-][<namespace>,][<ack id>][<JSON>], attachments follow as messages

function encode({ type, namespace, id, data }) {
  const buffers = [];
  const body = data === undefined ? "" : JSON.stringify(lift(data, buffers));
  const binary = buffers.length > 0;
  const code = binary ? type + (TYPES.binaryEvent - TYPES.event) : type;
  const count = binary ? `${buffers.length}-` : "";
  const place = namespace === "/" ? "" : `${namespace},`;
  return [`${code}${count}${place}${id === undefined ? "" : id}${body}`, ...buffers];
}

function decode(text) {
  const parts = /^([0-6])(?:(\d+)-)?(?:(\/[^,]*)(?:,|$))?(\d+)?([^]*)$/.exec(text);
  if (!parts) throw new Error("not a packet");
  const [, type, count, namespace = "/", id, body] = parts;
  const packet = { type: Number(type), attachments: Number(count || 0), namespace };
  if (packet.attachments > ATTACHMENTS_MAX) throw new Error("too many attachments");
  if (id !== undefined) packet.id = Number(id);
  if (body) packet.data = JSON.parse(body);
  const list = [TYPES.event, TYPES.ack, TYPES.binaryEvent, TYPES.binaryAck].includes(packet.type);
  if (list !== Array.isArray(packet.data)) throw new Error("arguments do not fit the packet type");
  if (!packet.data && packet.type !== TYPES.disconnect) throw new Error("a packet without its data");
  return packet;
}

// Copies a value with each binary part moved to `buffers` and a numbered placeholder in its place.
function lift(value, buffers) {
  if (value instanceof ArrayBuffer) return { _placeholder: true, num: buffers.push(value) - 1 };
  if (ArrayBuffer.isView(value)) {
    const { buffer, byteOffset, byteLength } = value;
    return lift(buffer.slice(byteOffset, byteOffset + byteLength), buffers);
  }
  if (Array.isArray(value)) return value.map((item) => lift(item, buffers));
  if (!value || typeof value !== "object" || typeof value.toJSON === "function") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, lift(item, buffers)]));
}

// Puts the attachments back where their placeholders are.
function fill(value, buffers) {
  if (Array.isArray(value)) return value.map((item) => fill(item, buffers));
  if (!value || typeof value !== "object") return value;
  if (value._placeholder === true) {
    if (!Number.isInteger(value.num) || !buffers[value.num]) throw new Error("a placeholder without its attachment");
    return buffers[value.num];
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fill(item, buffers)]));
}
