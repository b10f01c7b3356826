// The log of packets as they are on the wire: newest last, bounded, with a filter, a pause and a clear button.
// Plain ES5: both pages use it.
(function (root) {
  "use strict";

  var jackfield = (root.jackfield = root.jackfield || {});

  // Rows kept; older ones go. Enough to scroll back through a conversation, few enough to stay quick.
  var ROWS_MAX = 500;

  // Characters of one packet that a row shows; a packet may be a megabyte.
  var TEXT_MAX = 1000;

  // Pings, pongs and the page's own round-trip measurements: true, but seldom what one is looking for.
  var ROUTINE = /^(2|3|6)$|\{"rtt":\d+\}\]$/;

  var ARROWS = { "in": "↓", out: "↑" };
  var WORDS = { "in": "received", out: "sent" };

  /**
   * Keeps a log in `list`, driven by the elements of `controls`: `filter` (text), `routine` (checkbox that hides
   * heartbeats), `pause` and `clear` (buttons), `count` (text). Returns `{ add(packet) }`.
   */
  jackfield.createPacketLog = function (list, controls) {
    var waiting = []; // packets until the next drawing, at most ROWS_MAX
    var drawing = null;
    var paused = false;
    var skipped = 0; // packets that arrived during the pause

    function add(packet) {
      if (paused) {
        skipped += 1;
        return count();
      }
      packet.time = new Date();
      waiting.push(packet);
      if (waiting.length > ROWS_MAX) waiting.shift();
      if (!drawing) drawing = setTimeout(draw, 30);
    }

    // Packets come in bursts; one drawing a frame is enough. A timer, because a hidden page has no frames.
    function draw() {
      drawing = null;
      var atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
      var rows = document.createDocumentFragment();
      for (var i = 0; i < waiting.length; i += 1) rows.appendChild(row(waiting[i]));
      waiting = [];
      list.appendChild(rows);
      while (list.children.length > ROWS_MAX) list.removeChild(list.firstChild);
      count();
      if (atEnd) list.scrollTop = list.scrollHeight;
    }

    function row(packet) {
      var text = jackfield.packetText(packet.data);
      var item = element("li", "packet packet-" + packet.direction);
      item.appendChild(element("time", "packet-time", clock(packet.time)));
      var arrow = element("span", "packet-arrow", ARROWS[packet.direction]);
      arrow.title = WORDS[packet.direction];
      arrow.setAttribute("aria-label", WORDS[packet.direction]);
      item.appendChild(arrow);
      item.appendChild(element("span", "packet-transport packet-" + packet.transport, packet.transport));
      item.appendChild(element("span", "packet-name", jackfield.packetName(packet.data)));
      var wire = element("code", "packet-wire", text.length > TEXT_MAX ? text.slice(0, TEXT_MAX) + " …" : text);
      wire.title = text.length + " characters";
      item.appendChild(wire);
      if (ROUTINE.test(text)) item.className += " packet-routine";
      sieve(item);
      return item;
    }

    function sieve(item) {
      var wanted = controls.filter.value.toLowerCase();
      var routine = controls.routine.checked && / packet-routine/.test(item.className);
      item.hidden = routine || (wanted !== "" && item.textContent.toLowerCase().indexOf(wanted) < 0);
    }

    function sieveAll() {
      for (var i = 0; i < list.children.length; i += 1) sieve(list.children[i]);
      count();
      list.scrollTop = list.scrollHeight;
    }

    function count() {
      var shown = 0;
      for (var i = 0; i < list.children.length; i += 1) if (!list.children[i].hidden) shown += 1;
      var text = shown + " of " + list.children.length;
      controls.count.textContent = paused ? text + ", paused (" + skipped + " missed)" : text;
    }

    controls.filter.addEventListener("input", sieveAll);
    controls.routine.addEventListener("change", sieveAll);
    controls.pause.addEventListener("click", function () {
      paused = !paused;
      skipped = 0;
      controls.pause.textContent = paused ? "Resume" : "Pause";
      controls.pause.setAttribute("aria-pressed", String(paused));
      count();
    });
    controls.clear.addEventListener("click", function () {
      waiting = [];
      list.textContent = "";
      count();
    });

    return { add: add };
  };

  function element(tag, name, text) {
    var made = document.createElement(tag);
    made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function clock(time) {
    function pad(number, digits) {
      return ("00" + number).slice(-digits);
    }
    var seconds = pad(time.getHours(), 2) + ":" + pad(time.getMinutes(), 2) + ":" + pad(time.getSeconds(), 2);
    return seconds + "." + pad(time.getMilliseconds(), 3);
  }
})(window);
