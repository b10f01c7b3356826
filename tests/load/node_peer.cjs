// The reference server with the part of the demo upstream that the load generator uses.
// `compare --node <node_modules>` starts it; it listens on a free loopback port and prints which.
// With REDIS_URL it is one node of a cluster on the reference's Redis adapter, as `compare-cluster` wants it.

const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { serveClient: false, perMessageDeflate: false });

io.on("connection", (socket) => {
  socket.emit("auth", socket.handshake.auth);
  socket.on("echo", (...args) => {
    const ack = args.pop();
    ack(...args);
  });
  socket.on("broadcast", (room, payload) => {
    const target = room === null ? io : io.to(room);
    target.emit("msg", payload);
  });
});

async function joinCluster(url) {
  const { createAdapter } = require("@socket.io/redis-adapter");
  const { createClient } = require("redis");
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

async function main() {
  if (process.env.REDIS_URL) {
    await joinCluster(process.env.REDIS_URL);
  }
  http.listen(0, "127.0.0.1", 4096, () => console.log(`listening on 127.0.0.1:${http.address().port}`));
}

main();
