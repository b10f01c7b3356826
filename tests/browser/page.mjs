// A person with the page in two tabs: echo, rooms, broadcasts, the log, a restart of the server.
// Arguments: the server's URL and the client, "ours", "official" or "legacy".

import { equal, holds, main, request, withBrowser } from "./chromium.mjs";

const [url, client] = process.argv.slice(2);

function address() {
  return client === "legacy" ? `${url}/legacy` : `${url}/?client=${client}`;
}

async function open(context, consoleErrors) {
  const page = await context.newPage();
  const greeted = page.waitForEvent("console", (message) => message.text() === "connected");
  page.on("console", (message) => message.type() === "error" && consoleErrors.push(message.text()));
  await page.goto(address());
  await greeted;
  await connected(page);
  return page;
}

async function connected(page, transport = "websocket") {
  await page.locator("#state[data-state=connected]").waitFor();
  await page.locator(`#transport[data-transport=${transport}]`).waitFor();
}

async function echo(page, text, expected) {
  await page.fill("#echo-input", text);
  await page.click("#echo-send");
  await page.waitForFunction((answer) => document.getElementById("echo-output").textContent === answer, expected);
}

async function broadcast(page, room, text) {
  await page.fill("#broadcast-room", room);
  await page.fill("#broadcast-input", text);
  await page.click("#broadcast-send");
}

const message = (page, text) => page.locator("#messages li", { hasText: text });
const room = (page, name) => page.locator(`#rooms [data-room="${name}"]`);
const logged = (page, text) => page.locator("#log li", { hasText: text }).first();

async function join(page, name) {
  await page.fill("#room-input", name);
  await page.click("#room-join");
  await room(page, name).waitFor();
}

async function checkConnection(first, second) {
  const sids = [await first.textContent("#sid"), await second.textContent("#sid")];
  holds(/^[\w-]{20}$/.test(sids[0]), `an odd socket id: ${sids[0]}`);
  holds(sids[0] !== sids[1], "two pages share one socket id");
  await first.locator("#rtt", { hasText: /^\d+(\.\d)? ms$/ }).waitFor();
  equal(await first.textContent("#transport-path"), "upgraded from polling", "the way to the transport");
}

async function checkRoomsAndBroadcasts(first, second) {
  await join(first, "lobby");
  await broadcast(second, "lobby", "only for the lobby");
  await message(first, "only for the lobby").waitFor();
  await broadcast(second, "", "for everyone");
  await message(first, "for everyone").waitFor();
  await message(second, "for everyone").waitFor();
  equal(await second.locator("#messages li").count(), 1, "messages at the page outside the room");

  await first.fill("#room-input", "lobby");
  await first.click("#room-leave");
  await room(first, "lobby").waitFor({ state: "detached" });
  await broadcast(second, "lobby", "to an empty room");
  await broadcast(second, "", "after leaving");
  await message(first, "after leaving").waitFor();
  equal(await message(first, "to an empty room").count(), 0, "messages of a room after leaving it");
}

// The log holds the conversation as the transports carried it, from the open packet on.
async function checkLog(page) {
  await logged(page, '0{"sid":"').waitFor();
  await logged(page, "2probe").waitFor();
  await logged(page, "3probe").waitFor();
  const sent = page.locator("#log .packet-out", { hasText: '42["client_event",{"data":"grüße 😀"}]' });
  equal(await sent.locator(".packet-transport").textContent(), "websocket", "the transport of an event");
  equal(await sent.locator(".packet-name").textContent(), "event", "the name of an event packet");

  await page.fill("#log-filter", "3probe");
  equal(await page.locator("#log li:visible").count(), 1, "rows that the filter leaves");
  await page.fill("#log-filter", "");
  await page.click("#log-pause");
  await page.click("#log-clear");
  await echo(page, "unseen", "UNSEEN");
  equal(await page.locator("#log li").count(), 0, "rows of a cleared and paused log");
  await page.click("#log-pause");
  await echo(page, "noticed", "NOTICED");
  await logged(page, '42["server_response",{"data":"NOTICED"}]').waitFor();
}

async function checkLogBound(page) {
  for (let turn = 0; turn < 300; turn += 1) await page.evaluate(() => document.querySelector("#echo-send").click());
  await echo(page, "the last one", "THE LAST ONE");
  // Its own event has the same words in small letters.
  await logged(page, /THE LAST ONE/).waitFor();
  equal(await page.locator("#log li").count(), 500, "rows of a full log");
}

async function checkSnippet(page) {
  await page.click("#copy");
  await page.locator("#copy", { hasText: "Copied" }).waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  equal(copied, await page.textContent("#snippet"), "the copied snippet");
  holds(copied.includes(url), "the snippet does not name this server");
  if (client === "legacy") return;
  for (const [tab, word] of [["Node.js", "socket.io-client"], ["Python", "import socketio"]]) {
    await page.getByRole("tab", { name: tab }).click();
    holds((await page.textContent("#snippet")).includes(word), `the ${tab} snippet lacks ${word}`);
  }
}

async function checkRestart(page) {
  const before = await page.textContent("#sid");
  await request("stop");
  await page.locator("#state:not([data-state=connected])").waitFor();
  await request("start");
  await connected(page);
  holds((await page.textContent("#sid")) !== before, "the socket id outlived its server");
  await echo(page, "back again", "BACK AGAIN");
  await join(page, "after the restart");
}

async function checkToggle(page) {
  await page.click("#connection-toggle");
  await page.locator("#state[data-state=disconnected]").waitFor();
  await page.click("#connection-toggle");
  await connected(page);
  await echo(page, "by hand", "BY HAND");
}

// Each way to connect that the page offers besides the automatic one, and the other client.
async function checkSwitches(page) {
  const polling = client === "legacy" ? ["polling", "jsonp"] : ["polling"];
  for (const choice of [...polling, "websocket"]) {
    await page.selectOption("#transport-switch", choice);
    await page.locator("#state:not([data-state=disconnected])").waitFor();
    await connected(page, choice === "websocket" ? "websocket" : "polling");
    await echo(page, `over ${choice}`, `OVER ${choice.toUpperCase()}`);
  }
  if (client === "legacy") return;
  const other = client === "ours" ? "official" : "ours";
  await page.check(`#client-${other}`);
  await connected(page);
  await echo(page, `now ${other}`, `NOW ${other.toUpperCase()}`);
}

main(() =>
  withBrowser(async (context, errors) => {
    const consoleErrors = [];
    const first = await open(context, consoleErrors);
    const second = await open(context, consoleErrors);
    await echo(first, "grüße 😀", "GRÜSSE 😀");
    await checkConnection(first, second);
    await checkRoomsAndBroadcasts(first, second);
    await checkLog(first);
    await checkLogBound(first);
    await checkSnippet(first);
    equal(consoleErrors, [], "errors on the console");
    await checkRestart(first);
    await checkToggle(first);
    await checkSwitches(second);
    equal(errors, [], "errors thrown in the page");
  }),
);
