// One Engine.IO 4 session: HTTP long-polling first, then a WebSocket when the server offers one.
//
// It knows transports, packets, the upgrade and the heartbeat, and nothing of Socket.IO.
// A message is a string or an ArrayBuffer; messages leave in the order they were sent, also across the upgrade.
//
//   opening --open packet--> open --close(), close packet, silence, lost transport--> closed
//
// `client.js` puts the Socket.IO protocol on top.

const SEPARATOR = "\x1e";
const PROTOCOL = "4";

// The server's pings are due every pingInterval and may be pingTimeout late; both come with the open packet.
const OPEN_TIMEOUT_MS = 20000;

// What the server said before it told us its own limit, in bytes of one POST body.
const PAYLOAD_BYTES_DEFAULT = 100000;

// btoa takes a string; building it in slices keeps the argument list of fromCharCode short.
const BASE64_SLICE = 8192;

/** Encodes the bytes of an ArrayBuffer as standard base64. */
export function toBase64(buffer) {
  const bytes = new Uint8Array(buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += BASE64_SLICE) {
    text += String.fromCharCode(...bytes.subarray(at, at + BASE64_SLICE));
  }
  return btoa(text);
}

/** Decodes standard base64 to an ArrayBuffer. */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer;
}

// A packet is { type: "0".."6", data: string | ArrayBuffer }; only messages ("4") carry an ArrayBuffer.
function pollingText(packet) {
  return typeof packet.data === "string" ? packet.type + packet.data : "b" + toBase64(packet.data);
}

function parseText(text) {
  if (text.charAt(0) === "b") return { type: "4", data: fromBase64(text.slice(1)) };
  if (!/^[0-6]/.test(text)) throw new Error("unknown packet type");
  return { type: text.charAt(0), data: text.slice(1) };
}

export class Engine {
  /**
   * Starts a session at once.
   *
   * `address` is a URL with the server's origin and path, `options.transports` a list of "polling" and "websocket".
   * Hooks, all optional: `open(handshake)`, `message(data)`, `close(reason)`, `transport(name)` when the transport
   * in use changes, and `packet({ direction, transport, data })` for each packet as it is on the wire.
   */
  constructor(address, options, hooks) {
    this.address = address;
    this.hooks = hooks;
    this.state = "opening";
    this.sid = null;
    this.transport = { name: options.transports[0] || "polling" };
    this.mayUpgrade = options.transports.includes("websocket") && this.transport.name === "polling";
    this.payloadBytesMax = PAYLOAD_BYTES_DEFAULT;

    this.outbox = []; // packets that no transport has taken yet
    this.socket = null; // the WebSocket in use
    this.probe = null; // the WebSocket that may replace polling
    this.posting = false;
    this.polling = false;
    this.pausing = null; // what to do once neither a GET nor a POST is under way
    this.posted = Promise.resolve(); // settles with the latest POST: the server refuses two at a time
    this.aborter = new AbortController(); // ends the pending GET with the session
    this.watchdog = setTimeout(() => this.fail("timeout"), OPEN_TIMEOUT_MS);

    if (this.transport.name === "websocket") this.openSocket();
    else this.poll();
  }

  /** Queues one message, a string or an ArrayBuffer; ignored once the session is closed. */
  send(data) {
    this.enqueue({ type: "4", data });
  }

  /** Ends the session from our side. */
  close() {
    if (this.state === "closed") return;
    if (this.transport.name === "polling" && this.sid) this.farewell();
    this.fail("forced close");
  }

  // ---- polling

  async poll() {
    if (this.polling || this.pausing || this.transport.name !== "polling") return;
    this.polling = true;
    let body = null;
    try {
      body = await this.request("GET");
    } catch (error) {
      this.polling = false;
      if (this.transport.name === "polling") this.fail("transport error");
      return;
    }
    this.polling = false;
    if (this.state === "closed") return;
    this.readPayload(body);
    if (this.state === "closed") return;
    this.settle();
    this.poll();
  }

  async post() {
    if (this.posting || this.pausing || this.state !== "open") return;
    const body = this.takePayload();
    if (!body) return;
    this.posting = true;
    try {
      this.posted = this.request("POST", body);
      await this.posted;
    } catch (error) {
      this.posting = false;
      if (this.transport.name === "polling") this.fail("transport error");
      return;
    }
    this.posting = false;
    this.settle();
    this.flush();
  }

  async request(method, body) {
    const response = await fetch(this.url("http", "polling"), {
      method,
      body,
      headers: body ? { "Content-Type": "text/plain;charset=UTF-8" } : {},
      cache: "no-store",
      signal: body ? undefined : this.aborter.signal,
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} was answered ${response.status}: ${text}`);
    return text;
  }

  // Joins waiting packets into one body that the server's payload limit allows; the first always fits.
  takePayload() {
    const parts = [];
    let bytes = 0;
    while (this.outbox.length > 0) {
      const text = pollingText(this.outbox[0]);
      bytes += new Blob([text]).size + 1;
      if (parts.length > 0 && bytes > this.payloadBytesMax) break;
      this.outbox.shift();
      this.note("out", "polling", text);
      parts.push(text);
    }
    return parts.join(SEPARATOR);
  }

  readPayload(body) {
    for (const text of body.split(SEPARATOR)) {
      if (this.state === "closed") return;
      this.note("in", "polling", text);
      this.readText(text);
    }
  }

  // Sends what still waits and a close packet after it, once the POST under way is through.
  farewell() {
    this.payloadBytesMax = Infinity;
    this.outbox.push({ type: "1", data: "" });
    const body = this.takePayload();
    const last = () => this.request("POST", body).catch(() => {});
    this.posted.then(last, () => {});
  }

  // ---- WebSocket

  dial() {
    const socket = new WebSocket(this.url("ws", "websocket"));
    socket.binaryType = "arraybuffer";
    return socket;
  }

  openSocket() {
    this.socket = this.dial();
    this.attachSocket();
  }

  attachSocket() {
    this.socket.onmessage = (event) => {
      this.note("in", "websocket", event.data);
      if (typeof event.data === "string") this.readText(event.data);
      else this.handle({ type: "4", data: event.data });
    };
    this.socket.onclose = () => this.fail("transport close");
    this.socket.onerror = () => this.fail("transport error");
  }

  write(socket, packet) {
    const binary = typeof packet.data !== "string";
    const frame = binary ? packet.data : packet.type + packet.data;
    this.note("out", "websocket", frame);
    socket.send(frame);
  }

  // ---- upgrade: probe on the WebSocket, stop polling, say "5", go on there

  startProbe() {
    const probe = this.dial();
    this.probe = probe;
    probe.onopen = () => this.write(probe, { type: "2", data: "probe" });
    probe.onmessage = (event) => {
      this.note("in", "websocket", event.data);
      if (event.data !== "3probe") return this.abandonProbe();
      this.pausing = () => this.finishUpgrade();
      this.settle();
    };
    probe.onclose = probe.onerror = () => this.abandonProbe();
  }

  // Without a WebSocket the session stays on polling, which is slower and as correct.
  abandonProbe() {
    const probe = this.probe;
    if (!probe) return;
    this.probe = null;
    this.pausing = null;
    probe.onopen = probe.onmessage = probe.onclose = probe.onerror = null;
    probe.close();
    this.poll();
    this.flush();
  }

  // Runs what waits for the end of the requests under way. The server answers the pending GET with a noop.
  settle() {
    if (this.pausing && !this.polling && !this.posting) this.pausing();
  }

  finishUpgrade() {
    this.socket = this.probe;
    this.probe = null;
    this.pausing = null;
    this.socket.onopen = null;
    this.attachSocket();
    this.write(this.socket, { type: "5", data: "" });
    this.transport = { name: "websocket" };
    this.call("transport", "websocket");
    this.flush();
  }

  // ---- packets

  readText(text) {
    let packet = null;
    try {
      packet = parseText(text);
    } catch (error) {
      return this.fail("parse error");
    }
    this.handle(packet);
  }

  handle(packet) {
    switch (packet.type) {
      case "0":
        return this.handleOpen(packet.data);
      case "1":
        return this.fail("transport close");
      case "2":
        this.expectPing();
        return this.enqueue({ type: "3", data: packet.data });
      case "4":
        return this.call("message", packet.data);
      default: // a noop, or something that means nothing here
    }
  }

  handleOpen(text) {
    let handshake = null;
    try {
      handshake = JSON.parse(text);
    } catch (error) {
      return this.fail("parse error");
    }
    if (this.state !== "opening" || !handshake || !Array.isArray(handshake.upgrades)) return this.fail("parse error");
    this.sid = handshake.sid;
    this.payloadBytesMax = handshake.maxPayload || PAYLOAD_BYTES_DEFAULT;
    this.silenceMax = handshake.pingInterval + handshake.pingTimeout;
    this.state = "open";
    this.expectPing();
    this.call("transport", this.transport.name);
    this.call("open", handshake);
    if (this.mayUpgrade && this.state === "open" && handshake.upgrades.includes("websocket")) this.startProbe();
    this.flush();
  }

  enqueue(packet) {
    if (this.state === "closed") return;
    this.outbox.push(packet);
    this.flush();
  }

  flush() {
    if (this.state !== "open" || this.outbox.length === 0) return;
    if (this.transport.name === "polling") {
      this.post();
      return;
    }
    for (const packet of this.outbox.splice(0)) this.write(this.socket, packet);
  }

  expectPing() {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.fail("ping timeout"), this.silenceMax);
  }

  // ---- the end

  fail(reason) {
    if (this.state === "closed") return;
    this.state = "closed";
    clearTimeout(this.watchdog);
    this.outbox = [];
    this.pausing = null;
    this.aborter.abort();
    for (const socket of [this.socket, this.probe]) {
      if (!socket) continue;
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
    }
    this.probe = null;
    this.call("close", reason);
  }

  // ---- helpers

  url(scheme, transport) {
    const url = new URL(this.address.href);
    if (scheme === "ws") url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("EIO", PROTOCOL);
    url.searchParams.set("transport", transport);
    if (this.sid) url.searchParams.set("sid", this.sid);
    return url.href;
  }

  note(direction, transport, data) {
    this.call("packet", { direction, transport, data });
  }

  call(hook, argument) {
    if (this.hooks[hook]) this.hooks[hook](argument);
  }
}
