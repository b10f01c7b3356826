// @socket.io/redis-emitter as `compare-emitter` measures it: for each line `<first number> <count>` it emits so many
// events to the room, sends a PING behind them and answers with an empty line once Redis has had all of that.
// It listens on a free loopback port and prints which.

const { createServer } = require("node:net");
const { Emitter } = require("@socket.io/redis-emitter");
const { createClient } = require("redis");

async function main() {
  const client = createClient({ url: process.env.REDIS_URL });
  await client.connect();
  const io = new Emitter(client);
  const padding = "x".repeat(Number(process.env.PAYLOAD_BYTES) - 8);
  const rooms = Number(process.env.ROOMS ?? 1);

  async function handle(line, stream) {
    const [first, count] = line.split(" ").map(Number);
    for (let number = first; number < first + count; number++) {
      io.to("r" + (number % rooms)).emit("msg", String(number).padStart(8, "0") + padding);
    }
    await client.ping();
    stream.write("\n");
  }

  const server = createServer({ noDelay: true }, (stream) => {
    let rest = "";
    stream.on("data", (chunk) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      lines.forEach((line) => handle(line, stream));
    });
    stream.on("error", () => {});
  });
  server.listen(0, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
}

main();
