// What both pages do with a connected socket, whichever client made it: state, round-trip time, echo, rooms,
// broadcasts and the packet log. Plain ES5; it relies on `on`, `emit`, `id` and `io` only, which every Socket.IO
// client since 1.0 has. The events are those of the demo that answers on the other side.
(function (root) {
  "use strict";

  var jackfield = (root.jackfield = root.jackfield || {});

  // How often the round trip is measured; a few seconds keep the figure fresh and the log readable.
  var RTT_EVERY_MS = 5000;

  // Measurements that the small chart shows.
  var RTT_KEPT = 24;

  // Received broadcasts kept in the list.
  var MESSAGES_MAX = 100;

  function find(id) {
    return document.getElementById(id);
  }

  /**
   * Wires the page's elements. Returns `use(socket)`, which makes a socket the page's own (or none, with null), and
   * `packet`, `transport` and `state`, which show what the socket's connection does.
   */
  jackfield.createPage = function () {
    var socket = null;
    var log = jackfield.createPacketLog(find("log"), {
      filter: find("log-filter"),
      routine: find("log-routine"),
      pause: find("log-pause"),
      clear: find("log-clear"),
      count: find("log-count")
    });
    var trips = createTrips();
    var jacks = find("jacks");
    var nextJack = 0;

    // ---- connection

    function use(next) {
      socket = next;
      showOffline();
      if (!socket) return;
      listen(next, "connect", handleConnect);
      listen(next, "disconnect", function (reason) {
        showOffline();
        state("disconnected", reason);
      });
      listen(next, "connect_error", function (error) {
        showOffline();
        state("disconnected", String((error && error.message) || error));
      });
      listen(next, "server_response", function (answer) {
        find("echo-output").textContent = answer.data;
      });
      listen(next, "msg", showMessage);
      listen(next.io, "reconnect_attempt", function (attempt) {
        state("reconnecting", "attempt " + attempt);
      }, next);
      state("connecting", "");
    }

    // A socket that the page has let go may still speak for a moment; nobody listens to it.
    function listen(emitter, name, handler, owner) {
      emitter.on(name, function () {
        if (socket === (owner || emitter)) handler.apply(null, arguments);
      });
    }

    function handleConnect() {
      console.log("connected");
      state("connected", "");
      find("sid").textContent = socket.id;
      trips.reset();
      measure();
      listRooms();
    }

    function showOffline() {
      find("sid").textContent = "–";
      trips.reset();
      transport(null);
      showRooms([]);
    }

    function state(name, detail) {
      var shown = find("state");
      shown.setAttribute("data-state", name);
      shown.textContent = name;
      find("state-detail").textContent = detail;
      var toggle = find("connection-toggle");
      toggle.hidden = !socket;
      toggle.textContent = name === "connected" ? "Disconnect" : name !== "disconnected" || retrying() ? "Stop" : "Connect";
    }

    // Whether the client comes back by itself. 2.x clients do not say; for them the reason does.
    function retrying() {
      if (socket && typeof socket.active === "boolean") return socket.active;
      return !/^io (server|client) disconnect$/.test(find("state-detail").textContent);
    }

    function transport(name) {
      var shown = find("transport");
      var upgraded = shown.textContent === "polling" && name === "websocket";
      find("transport-path").textContent = upgraded ? "upgraded from polling" : "";
      shown.setAttribute("data-transport", name || "none");
      shown.textContent = name || "none";
    }

    find("connection-toggle").addEventListener("click", function () {
      if (!socket) return;
      if (find("connection-toggle").textContent === "Connect") {
        state("connecting", "");
        socket.connect();
      } else {
        socket.disconnect();
        showOffline();
        state("disconnected", "io client disconnect");
      }
    });

    // ---- round-trip time

    function measure() {
      var asked = socket;
      var sent = performance.now();
      if (!asked || !asked.connected) return;
      asked.emit("echo", { rtt: Math.round(sent) }, function () {
        if (asked === socket) trips.add(performance.now() - sent);
      });
    }

    setInterval(function () {
      if (!document.hidden) measure();
    }, RTT_EVERY_MS);

    // ---- echo

    onSubmit("echo-form", function () {
      if (socket) socket.emit("client_event", { data: find("echo-input").value });
    });

    // ---- rooms

    function listRooms() {
      if (socket) socket.emit("my_rooms", showRooms);
    }

    function showRooms(rooms) {
      var list = find("rooms");
      var choices = find("room-choices");
      list.textContent = "";
      choices.textContent = "";
      for (var i = 0; i < rooms.length; i += 1) {
        list.appendChild(roomItem(rooms[i]));
        var choice = document.createElement("option");
        choice.value = rooms[i];
        choices.appendChild(choice);
      }
      find("rooms-empty").hidden = rooms.length > 0;
    }

    // Every socket is alone in the room named like its id; leaving that one would only puzzle.
    function roomItem(room) {
      var item = document.createElement("li");
      var own = socket && room === socket.id;
      item.className = own ? "room room-own" : "room";
      item.setAttribute("data-room", room);
      item.appendChild(document.createTextNode(own ? "this socket only" : room));
      if (own) {
        item.title = room;
        return item;
      }
      var leave = document.createElement("button");
      leave.type = "button";
      leave.textContent = "×";
      leave.setAttribute("aria-label", "Leave " + room);
      leave.addEventListener("click", function () {
        socket.emit("leave", room, listRooms);
      });
      item.appendChild(leave);
      return item;
    }

    function withRoom(event) {
      var room = find("room-input").value.trim();
      if (!socket || !room) return find("room-input").focus();
      socket.emit(event, room, listRooms);
    }

    onSubmit("room-form", function () {
      withRoom("join");
    });
    find("room-leave").addEventListener("click", function () {
      withRoom("leave");
    });

    // ---- broadcasts

    onSubmit("broadcast-form", function () {
      var room = find("broadcast-room").value.trim();
      var text = find("broadcast-input").value;
      if (socket && text) socket.emit("broadcast", room || null, text);
    });

    function showMessage(payload) {
      var list = find("messages");
      var item = document.createElement("li");
      var time = document.createElement("time");
      var text = document.createElement("span");
      time.textContent = new Date().toLocaleTimeString();
      text.textContent = typeof payload === "string" ? payload : JSON.stringify(payload);
      item.appendChild(time);
      item.appendChild(text);
      list.insertBefore(item, list.firstChild);
      while (list.children.length > MESSAGES_MAX) list.removeChild(list.lastChild);
      find("messages-empty").hidden = true;
    }

    // ---- packets

    function packet(seen) {
      log.add(seen);
      if (!jacks || !jacks.children.length) return;
      var jack = jacks.children[nextJack];
      nextJack = (nextJack + 1) % jacks.children.length;
      jack.className = "jack";
      void jack.offsetWidth; // starts the animation again
      jack.className = "jack jack-" + seen.direction;
    }

    return { use: use, packet: packet, transport: transport, state: state };
  };

  // The latest round trip in words, and the last ones as a line.
  function createTrips() {
    var values = [];

    function show() {
      var last = values[values.length - 1];
      find("rtt").textContent = last === undefined ? "–" : last.toFixed(last < 10 ? 1 : 0) + " ms";
      var line = find("rtt-line");
      if (!line) return;
      var top = Math.max.apply(null, values.concat(1));
      var points = values.map(function (value, index) {
        return (100 * index) / Math.max(values.length - 1, 1) + "," + (22 - (20 * value) / top);
      });
      line.setAttribute("points", points.join(" "));
    }

    return {
      add: function (value) {
        values = values.concat(value).slice(-RTT_KEPT);
        show();
      },
      reset: function () {
        values = [];
        show();
      }
    };
  }

  function onSubmit(id, handler) {
    find(id).addEventListener("submit", function (event) {
      event.preventDefault();
      handler();
    });
  }

  /** Loads a classic script once; `done` receives whether it is there and ran. */
  jackfield.loadScript = function (url, done) {
    var script = document.createElement("script");
    script.src = url;
    script.onload = function () {
      done(true);
    };
    script.onerror = function () {
      done(false);
    };
    document.head.appendChild(script);
  };

  /** Copies the text of `source` when `button` is pressed, also where the clipboard API is out of reach. */
  jackfield.copyButton = function (button, source) {
    var label = button.textContent;

    function say(text) {
      button.textContent = text;
      setTimeout(function () {
        button.textContent = label;
      }, 1500);
    }

    // Over plain HTTP on another host there is no clipboard API; a selection can still be copied.
    function copySelection() {
      var range = document.createRange();
      range.selectNodeContents(source);
      var selection = root.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      say(document.execCommand("copy") ? "Copied" : "Press Ctrl+C");
    }

    button.addEventListener("click", function () {
      if (!navigator.clipboard) return copySelection();
      navigator.clipboard.writeText(source.textContent).then(function () {
        say("Copied");
      }, copySelection);
    });
  };
})(window);
