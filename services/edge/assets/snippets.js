// Code that a reader can paste: the same conversation from a browser, from Node.js and from Python.

/**
 * Returns one text per language for a server at `origin` with the given path.
 * `official` says whether the server has the official browser bundle.
 */
export function snippets(origin, path, official) {
  return {
    browser: official ? browserOfficial(origin, path) : browserOurs(origin, path),
    node: node(origin, path),
    python: python(origin, path),
  };
}

// The default path needs no mention; another one does, in each library's own words.
function given(path, text) {
  return path === "/socket.io" ? "" : text;
}

function browserOfficial(origin, path) {
  return `<script src="${origin}${path}/socket.io.min.js"></script>
<script>
  const socket = io("${origin}"${given(path, `, { path: "${path}" }`)});

  socket.on("connect", () => {
    console.log("connected", socket.id);
    socket.emit("client_event", { data: "hello" });
  });
  socket.on("server_response", ({ data }) => console.log(data)); // HELLO
</script>`;
}

function browserOurs(origin, path) {
  return `<script type="module">
  import { io } from "${origin}/assets/client.js";
  const socket = io("${origin}"${given(path, `, { path: "${path}" }`)});

  socket.on("connect", () => {
    console.log("connected", socket.id);
    socket.emit("client_event", { data: "hello" });
  });
  socket.on("server_response", ({ data }) => console.log(data)); // HELLO
</script>`;
}

function node(origin, path) {
  return `// npm install socket.io-client
import { io } from "socket.io-client";

const socket = io("${origin}"${given(path, `, { path: "${path}" }`)});

socket.on("connect", () => {
  console.log("connected", socket.id);
  socket.emit("client_event", { data: "hello" });
});
socket.on("server_response", ({ data }) => console.log(data)); // HELLO`;
}

function python(origin, path) {
  return `# pip install "python-socketio[client]"
import socketio

sio = socketio.Client()

@sio.event
def connect():
    print("connected", sio.get_sid())
    sio.emit("client_event", {"data": "hello"})

@sio.event
def server_response(answer):
    print(answer["data"])  # HELLO

sio.connect("${origin}"${given(path, `, socketio_path="${path}"`)})
sio.wait()`;
}
