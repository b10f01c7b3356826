// Clients of every kind in one room of one server:
//   node mixed.mjs <url> <client>:<transport>[:msgpack] ...
// Each says something in turn, once as text and once with bytes, and all hear it in the same order.
import { bytes, same } from "./scenarios.mjs";
import { Stage, within } from "./peer.mjs";

/// A few dozen peers in one room answer within a second; this only ends a hang.
const ALL_WITHIN_MS = 30_000;

const [url, ...kinds] = process.argv.slice(2);
const room = `everybody-${process.pid}`;

async function meet() {
  const peers = await Promise.all(
    kinds.map(async (kind) => {
      const [client, transport, parser] = kind.split(":");
      const stage = new Stage({ url, client, transport, parser: parser && `socket.io-${parser}-parser` });
      const peer = await stage.connect();
      if (transport === "upgrade") await peer.upgraded();
      return peer;
    }),
  );
  await Promise.all(peers.map((peer) => peer.ask("join", room)));
  for (const [turn, speaker] of peers.entries()) {
    const said = { turn, by: kinds[turn], nested: [{ bytes: bytes(100 + turn), more: [bytes(1)] }] };
    speaker.emit("broadcast", room, kinds[turn]);
    speaker.emit("broadcast", room, said);
    for (const [at, listener] of peers.entries()) {
      try {
        same([await listener.next("msg"), await listener.next("msg")], [[kinds[turn]], [said]]);
      } catch (error) {
        throw new Error(`${kinds[at]} did not hear ${kinds[turn]}`, { cause: error });
      }
    }
    console.log(`${kinds[turn]} is heard by all`);
  }
}

try {
  await within(meet(), "the meeting", ALL_WITHIN_MS);
  process.exit(0);
} catch (error) {
  console.log(error);
  process.exit(1);
}
