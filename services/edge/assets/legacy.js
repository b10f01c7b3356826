// The legacy page: the official 2.x client over Engine.IO 3. Plain ES5, as the browsers that still need it.
(function () {
  "use strict";

  var jackfield = window.jackfield;
  var path = document.documentElement.getAttribute("data-path");
  var bundleUrl = path + "/v2/socket.io.js";
  var page = jackfield.createPage();
  var socket = null;

  function find(id) {
    return document.getElementById(id);
  }

  // "jsonp" is polling through script elements and forms, for documents that may not use XMLHttpRequest.
  function options() {
    var choice = find("transport-switch").value;
    return {
      path: path,
      forceNew: true,
      forceJSONP: choice === "jsonp",
      transports: choice === "upgrade" ? ["polling", "websocket"] : [choice === "jsonp" ? "polling" : choice]
    };
  }

  function open() {
    if (socket) socket.disconnect();
    socket = window.io(location.origin, options());
    var tap = jackfield.tapManager(socket.io, 3, page.packet, page.transport);
    var connect = socket.connect;
    // connect() after disconnect() makes a new engine without announcing an attempt.
    socket.connect = function () {
      var result = connect.call(socket);
      tap();
      return result;
    };
    page.use(socket);
  }

  function showSnippet() {
    var elsewhere = path === "/socket.io" ? "" : ', { path: "' + path + '" }';
    find("snippet").textContent = [
      '<script src="' + location.origin + bundleUrl + '"></scr' + "ipt>",
      "<script>",
      '  var socket = io("' + location.origin + '"' + elsewhere + ");",
      "",
      '  socket.on("connect", function () {',
      '    console.log("connected", socket.id);',
      '    socket.emit("client_event", { data: "hello" });',
      "  });",
      '  socket.on("server_response", function (answer) {',
      "    console.log(answer.data); // HELLO",
      "  });",
      "</scr" + "ipt>"
    ].join("\n");
  }

  showSnippet();
  jackfield.copyButton(find("copy"), find("snippet"));
  find("transport-switch").addEventListener("change", function () {
    if (typeof window.io === "function") open();
  });
  jackfield.loadScript(bundleUrl, function (loaded) {
    if (loaded && typeof window.io === "function") return open();
    find("client-note-url").textContent = bundleUrl;
    find("client-note").hidden = false;
    page.state("disconnected", "no client");
    return undefined;
  });
})();
