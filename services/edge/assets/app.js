// The demo page: connects with our small client or the official 4.x one, and shows the code that does the same.

import { io as ourIo } from "./client.js";
import { snippets } from "./snippets.js";

const { createPage, tapManager, loadScript, copyButton } = window.jackfield;
const path = document.documentElement.dataset.path;
const bundleUrl = `${path}/socket.io.min.js`;
const find = (id) => document.getElementById(id);

const page = createPage();
let socket = null;

function transports() {
  const choice = find("transport-switch").value;
  return choice === "upgrade" ? ["polling", "websocket"] : [choice];
}

// ---- the two clients

function openOurs() {
  return ourIo(location.origin, {
    path,
    transports: transports(),
    onPacket: page.packet,
    onTransport: page.transport,
  });
}

function openOfficial() {
  const opened = window.io(location.origin, { path, transports: transports(), forceNew: true });
  const tap = tapManager(opened.io, 4, page.packet, page.transport);
  // connect() after disconnect() makes a new engine without announcing an attempt.
  const connect = opened.connect.bind(opened);
  opened.connect = () => {
    const result = connect();
    tap();
    return result;
  };
  return opened;
}

function open() {
  if (socket) socket.disconnect();
  socket = chosenClient() === "official" ? openOfficial() : openOurs();
  page.use(socket);
  remember();
  showSnippet();
}

// ---- choosing the client

function chosenClient() {
  return find("client-official").checked ? "official" : "ours";
}

// The choice lives in the address, so that a reload or a link keeps it.
function remember() {
  const url = new URL(location.href);
  url.searchParams.set("client", chosenClient());
  url.searchParams.set("transport", find("transport-switch").value);
  history.replaceState(null, "", url);
}

function recall() {
  const wanted = new URL(location.href).searchParams;
  const transport = wanted.get("transport");
  if ([...find("transport-switch").options].some((option) => option.value === transport)) {
    find("transport-switch").value = transport;
  }
  return wanted.get("client") === "official";
}

// The official bundle is there only if the operator installed it; our client needs nothing.
function offerOfficial() {
  return new Promise((resolve) => {
    loadScript(bundleUrl, (loaded) => {
      const there = loaded && typeof window.io === "function";
      find("client-official").disabled = !there;
      find("client-note").hidden = there;
      if (!there) find("client-note-url").textContent = bundleUrl;
      resolve(there);
    });
  });
}

// ---- snippets

let language = "browser";

function showSnippet() {
  const official = !find("client-official").disabled;
  find("snippet").textContent = snippets(location.origin, path, official)[language];
}

const tabs = [...document.querySelectorAll("[role=tab]")];

function selectTab(chosen) {
  language = chosen.dataset.language;
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
  }
  find("snippet-panel").setAttribute("aria-labelledby", chosen.id);
  showSnippet();
}

tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => selectTab(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(index + step + tabs.length) % tabs.length];
    next.focus();
    selectTab(next);
  });
});

// ---- start

copyButton(find("copy"), find("snippet"));
find("client-switch").addEventListener("change", open);
find("transport-switch").addEventListener("change", open);

const wantsOfficial = recall();
if (!wantsOfficial) open();
offerOfficial().then((there) => {
  find("client-official").checked = wantsOfficial && there;
  find("client-ours").checked = !find("client-official").checked;
  if (wantsOfficial) open();
  else showSnippet();
});
