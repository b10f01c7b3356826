"""Runs every scenario with the installed python-socketio over one transport:

    python python_clients.py <url> <polling|websocket|upgrade>

Prints a line per scenario. The status is 1 if any failed; the last line then names them.
"""

import os
import queue
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import socketio

from relay import Relay

URL, TRANSPORT = sys.argv[1:3]
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": None}[TRANSPORT]
CURRENT = version("python-socketio").startswith("5.")
# The reference server answers a burst with a poll response of more than 16 packets, which this client takes for an
# attack; against it the bursts are sent in portions.
REFERENCE = bool(os.environ.get("JACKFIELD_TEST_URL"))
# How long any single awaited thing may take, in seconds. Nothing here is slow; this only ends a hang.
WITHIN = 8
# After so many failures the rest is not tried: something basic is broken, and each failure may cost its deadline.
FAILURES_MAX = 5
EVENTS = ("auth", "server_response", "message-back", "echo", "msg", "note", "emit-with-ack")

UNICODE = "€ é 😀 𝕊𝕠𝕔𝕜 👩‍👩‍👧 \u2028\u2029 \u0000\u001f \"quoted\" back\\slash \\n\n\r\t \x1e \uffff"
NESTED = {
    "text": "",
    "list": [[], {}, [None, True, False, [[[["deep"]]]]]],
    "numbers": [0, -1, 1.5, -2.5e-7, 9007199254740991, 4294967296],
    "key with \"quotes\" and 😀": {"a": {"b": {"c": {"d": {"e": [{"f": {}}]}}}}},
    "looks_like_a_packet": '451-/nsp,["x",{"_placeholder":true,"num":0}]',
}


def octets(length, seed=7):
    return bytes((at * 31 + seed) & 0xFF for at in range(length))


def same(got, expected):
    """Not a plain assertion: a difference of a megabyte must not be printed in full."""
    assert got == expected, "expected %.500r, got %.500r" % (expected, got)


class Peer:
    """A client with everything that it has received, in one namespace unless it is asked for others."""

    def __init__(self, *namespaces, in_order=False, **options):
        self.namespaces = list(namespaces) or ["/"]
        self.client = socketio.Client(**{"reconnection": False, **options})
        if in_order:
            self._handle_in_order()
        self._inboxes = {}
        for namespace in self.namespaces:
            for event in EVENTS:
                inbox = self._inboxes[namespace, event] = queue.Queue()
                self.client.on(event, lambda *args, to=inbox: to.put(list(args)), namespace=namespace)
            for event in ("connect", "disconnect", "connect_error"):
                inbox = self._inboxes[namespace, event] = queue.Queue()
                self.client.on(event, lambda *args, to=inbox: to.put(list(args)), namespace=namespace)

    def _handle_in_order(self):
        """The client starts a thread per packet; its own order is only seen without them."""
        engine, trigger = self.client.eio, self.client.eio._trigger_event

        def in_order(event, *args, **options):
            return trigger(event, *args, **{**options, "run_async": False})

        engine._trigger_event = in_order

    def connect(self, url=URL, **options):
        if CURRENT:
            options.setdefault("wait_timeout", WITHIN)
        self.client.connect(url, transports=TRANSPORTS, namespaces=self.namespaces, **options)
        for namespace in self.namespaces:
            self.next("connect", namespace)
        return self

    def next(self, event, namespace=None):
        try:
            return self._inboxes[namespace or self.namespaces[0], event].get(timeout=WITHIN)
        except queue.Empty:
            raise AssertionError("no event %s within %d s" % (event, WITHIN)) from None

    def unread(self, event):
        return self._inboxes[self.namespaces[0], event].qsize()

    def emit(self, event, *args, namespace=None):
        self.client.emit(event, args, namespace=namespace or self.namespaces[0])

    def ask(self, event, *args, namespace=None):
        """Emits with an acknowledgement and returns its arguments."""
        answer = self.client.call(event, args, namespace=namespace or self.namespaces[0], timeout=WITHIN)
        return [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]

    def id(self, namespace=None):
        namespace = namespace or self.namespaces[0]
        if CURRENT:
            return self.client.get_sid(namespace)
        return self.client.sid if namespace == "/" else "%s#%s" % (namespace, self.client.sid)

    def echoes(self, *args, namespace=None):
        same(self.ask("echo", *args, namespace=namespace), list(args))


SCENARIOS = []


def scenario(run):
    SCENARIOS.append(run)
    return run


@scenario
def connects_over_the_transport_it_asked_for(connect):
    peer = connect()
    same(peer.client.transport(), "polling" if TRANSPORT == "polling" else "websocket")
    same(peer.next("auth"), [{}])
    same(peer.ask("whoami"), [peer.id()])


@scenario
def joins_a_custom_namespace(connect):
    peer = connect("/custom")
    peer.emit("client_event", {"data": "in custom"})
    same(peer.next("server_response"), [{"data": "IN CUSTOM"}])
    same(peer.ask("whoami"), [peer.id()])


@scenario
def sends_credentials(connect):
    if not CURRENT:
        return "this client has no credentials beside the query string"
    peer = connect("/", "/custom", auth={"token": "s€cret"})
    for namespace in peer.namespaces:
        same(peer.next("auth", namespace), [{"token": "s€cret"}])
    return None


@scenario
def is_refused_an_unknown_namespace(connect):
    if CURRENT:
        peer = Peer("/", "/nope")
        try:
            peer.connect()
        except socketio.exceptions.ConnectionError as error:
            assert "/nope" in str(error), error
            return
        raise AssertionError("the client thinks that it is connected")
    peer = Peer("/", "/nope")
    peer.client.connect(URL, transports=TRANSPORTS, namespaces=["/nope"])
    try:
        same(peer.next("connect_error", "/nope"), [{"message": "Invalid namespace"}])
        peer.echoes("unharmed")
    finally:
        peer.client.disconnect()


@scenario
def uses_two_namespaces(connect):
    peer = connect("/", "/custom")
    peer.echoes("root")
    peer.echoes("custom", namespace="/custom")
    room = "apart-%s" % peer.id()
    same(peer.ask("join", room), [True])
    same(peer.ask("join", room, namespace="/custom"), [True])
    same(peer.ask("say", room, "note", "custom only", namespace="/custom"), [True])
    same(peer.next("note", "/custom"), ["custom only"])
    peer.echoes("nothing for me")
    same(peer.unread("note"), 0)


@scenario
def gets_an_event_in_reply(connect):
    peer = connect()
    peer.emit("client_event", {"data": "test"})
    same(peer.next("server_response"), [{"data": "TEST"}])
    peer.emit("message", 1, "two", [3], {"four": 4}, None, True)
    same(peer.next("message-back"), [1, "two", [3], {"four": 4}, None, True])
    peer.emit("echo", "no ack wanted")
    same(peer.next("echo"), ["no ack wanted"])


@scenario
def gets_an_ack(connect):
    peer = connect()
    peer.echoes(1, "2", {"three": [4]}, None, False, 5.5)
    peer.echoes()
    same(peer.ask("message-with-ack", "a", ["b"]), ["a", ["b"]])


@scenario
def gives_an_ack(connect):
    peer = Peer()
    questions = queue.Queue()

    def answer(*args):
        questions.put(list(args))
        return {"answer": len(args)}, octets(5)

    peer.client.on("emit-with-ack", answer)
    peer.connect()
    try:
        peer.emit("emit-with-ack", "question", octets(3))
        same(questions.get(timeout=WITHIN), ["question", octets(3)])
        same(questions.get(timeout=WITHIN), [{"answer": 2}, octets(5)])
    finally:
        peer.client.disconnect()


@scenario
def connects_a_hundred_times_in_parallel(connect):
    def one(number):
        peer = connect()
        peer.echoes(number)
        return peer.id()

    with ThreadPoolExecutor(100) as pool:
        ids = set(pool.map(one, range(100)))
    same(len(ids), 100)


@scenario
def has_a_hundred_acks_in_flight(connect):
    peer = connect()
    answers = queue.Queue()
    for number in range(100):
        peer.client.emit("echo", number, callback=lambda *got, asked=number: answers.put((asked, got)))
        if REFERENCE and number % 5 == 4:
            peer.echoes("portion")
    got = [answers.get(timeout=WITHIN) for _ in range(100)]
    same(sorted(got), [(number, (number,)) for number in range(100)])


@scenario
def keeps_the_order_of_two_hundred_events(connect):
    peer = connect(in_order=True)
    for number in range(200):
        peer.emit("message", number, octets(number + 1) if number % 10 == 0 else "text")
        if REFERENCE and number % 5 == 4:
            peer.echoes("portion")
    for number in range(200):
        same(peer.next("message-back"), [number, octets(number + 1) if number % 10 == 0 else "text"])


@scenario
def takes_a_burst_from_the_server(connect):
    """Forty events at once: more than the client takes in one poll response."""
    if REFERENCE:
        return "the reference server sends them in one poll response"
    ada, bob = connect(), connect(in_order=True)
    for number in range(40):
        ada.emit("broadcast", bob.id(), number)
    for number in range(40):
        same(bob.next("msg"), [number])
    bob.echoes("still connected")
    return None


@scenario
def keeps_every_character(connect):
    peer = connect()
    peer.echoes(UNICODE, {UNICODE: [UNICODE]})
    for letters in ("é", "€", "😀", "😀€é\u0000"):
        peer.echoes(letters * 50, letters)
    peer.emit("message", UNICODE)
    same(peer.next("message-back"), [UNICODE])


@scenario
def keeps_nested_json(connect):
    peer = connect()
    peer.echoes(NESTED, [NESTED, [NESTED]])
    peer.echoes({"_placeholder": True, "num": 0})


@scenario
def moves_900_kb_of_text(connect):
    peer = connect()
    peer.echoes("0123456789" * 90_000)
    peer.echoes("small again")


@scenario
def moves_600_kb_of_bytes(connect):
    connect().echoes(octets(600_000))


@scenario
def moves_nested_bytes(connect):
    peer = connect("/", "/custom")
    value = {"a": octets(10), "b": [octets(300), {"c": octets(1), "d": "text é"}], "e": []}
    peer.echoes(value, "between", octets(70_000))
    peer.echoes(value, namespace="/custom")
    peer.emit("message", octets(4), value)
    same(peer.next("message-back"), [octets(4), value])


@scenario
def moves_ten_attachments(connect):
    peer = connect()
    many = [octets(1 + at * 100, at) for at in range(10)]
    peer.echoes(*many)
    peer.emit("message", many)
    same(peer.next("message-back"), [many])


@scenario
def uses_rooms(connect):
    ada, bob, eve = connect(), connect(), connect()
    room = "room-%s" % ada.id()
    same(ada.ask("join", room) + bob.ask("join", room), [True, True])
    same(sorted(ada.ask("my_rooms")[0]), sorted([ada.id(), room]))
    same(ada.ask("say", room, "note", "for members", {"n": octets(5)}), [True])
    same(ada.next("note"), ["for members", {"n": octets(5)}])
    same(bob.next("note"), ["for members", {"n": octets(5)}])
    same(bob.ask("leave", room), [True])
    same(bob.ask("my_rooms"), [[bob.id()]])
    ada.emit("broadcast", room, "ada alone")
    same(ada.next("msg"), ["ada alone"])
    ada.emit("broadcast", None, room)
    for peer in (ada, bob, eve):
        # Others may use the server at the same time.
        while peer.next("msg") != [room]:
            pass
    same([bob.unread("note"), eve.unread("note")], [0, 0])


@scenario
def is_kicked_out_of_one_namespace(connect):
    peer = connect("/", "/custom")
    peer.emit("kick", namespace="/custom")
    peer.next("disconnect", "/custom")
    peer.echoes("unharmed")


@scenario
def disconnects_and_connects_again(connect):
    peer = connect()
    first = peer.id()
    peer.ask("join", "left-behind")
    peer.client.disconnect()
    peer.client.wait()
    peer.connect()
    assert peer.id() != first
    same(peer.ask("my_rooms"), [[peer.id()]])


@scenario
def comes_back_after_its_connection_was_cut(connect):
    relay = Relay(URL)
    try:
        peer = connect(
            url=relay.url, reconnection=True, reconnection_delay=0.02, reconnection_delay_max=0.02, randomization_factor=0
        )
        first = peer.id()
        peer.echoes("before")
        relay.cut()
        peer.next("disconnect")
        relay.mend()
        peer.next("connect")
        assert peer.id() != first
        peer.echoes("after")
    finally:
        relay.close()


def play(run):
    """Runs one scenario; the clients that it connects end with it. Returns the reason if it does not apply."""
    peers = []
    lock = threading.Lock()

    def connect(*namespaces, in_order=False, url=URL, auth=None, **options):
        peer = Peer(*namespaces, in_order=in_order, **options)
        with lock:
            peers.append(peer)
        return peer.connect(url, **({"auth": auth} if auth else {}))

    try:
        return run(connect)
    finally:
        for peer in peers:
            # Not `client.disconnect()`: it may wait for a poll that nothing ends before the next ping.
            peer.client.eio.disconnect(abort=True)


def main():
    failed = []
    for run in SCENARIOS:
        name = run.__name__.replace("_", " ")
        if os.environ.get("SCENARIO", "") not in name:
            continue
        if len(failed) == FAILURES_MAX:
            print("the rest was not tried")
            break
        started = time.monotonic()
        try:
            reason = play(run)
        except Exception:
            print("FAILED %6d ms  %s\n%s" % ((time.monotonic() - started) * 1000, name, traceback.format_exc()))
            failed.append(name)
        else:
            took = "   n/a      " if reason else "    ok %6d ms " % ((time.monotonic() - started) * 1000)
            print("%s %s%s" % (took, name, ": " + reason if reason else ""))
    if failed:
        print("failed over %s: %s" % (TRANSPORT, "; ".join(failed)))
    sys.stdout.flush()
    # Threads of clients that went wrong must not keep the process.
    os._exit(1 if failed else 0)


main()
