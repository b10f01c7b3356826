// Names the packets of the wire, and lets a page see those of the official clients. Plain ES5: both pages use it.
//
// An official client hands its transports packet objects, not text. The tap watches every transport that the
// client creates, the probe of an upgrade included, and writes each packet down as that transport sends it.
(function (root) {
  "use strict";

  var jackfield = (root.jackfield = root.jackfield || {});

  // Engine.IO packet names by their digit on the wire.
  var ENGINE = ["open", "close", "ping", "pong", "message", "upgrade", "noop"];

  // Socket.IO packet names by the digit after the "4" of a message.
  var SOCKET = ["connect", "disconnect", "event", "ack", "connect error", "binary event", "binary ack"];

  // Bytes of a binary frame that the log spells out.
  var HEX_BYTES_MAX = 32;

  /** Gives a packet its name, such as "ping" or "event"; `data` is the text or the ArrayBuffer of the wire. */
  jackfield.packetName = function (data) {
    if (typeof data !== "string" || data.charAt(0) === "b") return "attachment";
    if (data.charAt(0) === "4") return SOCKET[data.charAt(1)] || "message";
    return ENGINE[data.charAt(0)] || "unknown";
  };

  /** Writes wire data for reading: text as it is, bytes as their count and the first of them in hex. */
  jackfield.packetText = function (data) {
    if (typeof data === "string") return data;
    var bytes = new Uint8Array(data);
    var shown = [];
    for (var i = 0; i < bytes.length && i < HEX_BYTES_MAX; i += 1) {
      shown.push((bytes[i] < 16 ? "0" : "") + bytes[i].toString(16));
    }
    return "<" + bytes.length + " bytes> " + shown.join(" ") + (bytes.length > HEX_BYTES_MAX ? " …" : "");
  };

  /**
   * Reports every packet and every change of transport of an official client's connections, present and future.
   * `manager` is `socket.io`; `protocol` is 3 for a 2.x client and 4 for a later one.
   */
  jackfield.tapManager = function (manager, protocol, onPacket, onTransport) {
    function tap() {
      if (manager.engine) tapEngine(manager.engine, protocol, onPacket, onTransport);
    }
    tap();
    // The engine of a later attempt exists only once the client has gone on from announcing it.
    manager.on("reconnect_attempt", function () {
      setTimeout(tap, 0);
    });
    return tap;
  };

  function tapEngine(engine, protocol, onPacket, onTransport) {
    if (engine.jackfieldTapped) return;
    engine.jackfieldTapped = true;

    function watch(transport) {
      if (!transport) return;
      var send = transport.send;
      transport.send = function (packets) {
        for (var i = 0; i < packets.length; i += 1) report("out", transport, packets[i]);
        return send.apply(transport, arguments);
      };
      transport.on("packet", function (packet) {
        report("in", transport, packet);
      });
    }

    function report(direction, transport, packet) {
      onPacket({ direction: direction, transport: transport.name, data: wireData(packet, transport.name, protocol) });
    }

    var create = engine.createTransport;
    engine.createTransport = function () {
      var transport = create.apply(engine, arguments);
      watch(transport);
      return transport;
    };
    watch(engine.transport);

    engine.on("open", function () {
      onTransport(engine.transport.name);
    });
    engine.on("upgrade", function (transport) {
      onTransport(transport.name);
    });
  }

  // What this transport writes for a packet object: text, except for bytes in a WebSocket frame.
  function wireData(packet, transport, protocol) {
    var digit = String(Math.max(ENGINE.indexOf(packet.type), 0));
    var data = packet.data;
    if (data === undefined || data === null) return digit;
    if (typeof data === "string") return digit + data;
    var bytes = data.buffer ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
    if (transport === "polling") return (protocol === 3 ? "b4" : "b") + base64(bytes);
    if (protocol !== 3) return bytes;
    var framed = new Uint8Array(bytes.length + 1);
    framed[0] = 4;
    framed.set(bytes, 1);
    return framed;
  }

  function base64(bytes) {
    var text = "";
    for (var i = 0; i < bytes.length; i += 1) text += String.fromCharCode(bytes[i]);
    return btoa(text);
  }
})(window);
