"""Python's websocket-client, which knows nothing of Engine.IO, on the plain echo and on the raw endpoint:

    python python_raw.py <url>

Prints a line per scenario. The status is 1 if any failed; the last line then names them.
"""

import json
import os
import sys
import threading
import time
import traceback

import websocket
from websocket import ABNF, create_connection

URL = sys.argv[1].replace("http://", "ws://")
ECHO = URL + "/echo"
RAW = URL + "/socket.io/?EIO=4&transport=websocket"
RAW_EIO3 = URL + "/socket.io/?EIO=3&transport=websocket"
# How long any single awaited thing may take, in seconds. Nothing here is slow; this only ends a hang.
WITHIN = 8

SCENARIOS = []


def scenario(run):
    SCENARIOS.append(run)
    return run


def open_raw(url=RAW, **options):
    """A connection on which the open packet has been read; returns it and the packet."""
    connection = create_connection(url, timeout=WITHIN, **options)
    packet = connection.recv()
    assert packet.startswith("0{"), packet
    return connection, json.loads(packet[1:])


def join(connection):
    """Joins the main namespace and returns the socket id."""
    connection.send("40")
    return joined(connection)


def joined(connection):
    packet = connection.recv()
    assert packet.startswith('40{"sid":"'), packet
    assert connection.recv() == '42["auth",{}]'
    return json.loads(packet[2:])["sid"]


def closing(connection):
    """The code of the close frame that comes next, whatever data comes before; `None` for an empty one."""
    while True:
        opcode, data = connection.recv_data(control_frame=True)
        if opcode == ABNF.OPCODE_CLOSE:
            return int.from_bytes(data[:2], "big") if data else None


@scenario
def short_connection_to_the_echo():
    connection = create_connection(ECHO, timeout=WITHIN)
    for text in ("Hello, World", "", "é😀" * 1000):
        connection.send(text)
        assert connection.recv() == text
    connection.send_binary(b"\x00\xff" * 500)
    assert connection.recv() == b"\x00\xff" * 500
    connection.close()


def long_connection(url, texts, answers, go_on=lambda message: True, **options):
    """A WebSocketApp that sends its first text at once and a further one after each message that `go_on` is true
    for, and closes once it has got so many `answers`."""
    got, errors, closed = [], [], []
    waiting = list(texts)

    def on_open(app):
        app.send(waiting.pop(0))

    def on_message(app, message):
        got.append(message)
        if len(got) == answers:
            app.close()
        elif waiting and go_on(message):
            app.send(waiting.pop(0))

    app = websocket.WebSocketApp(
        url,
        on_open=on_open,
        on_message=on_message,
        on_error=lambda _, error: errors.append(error),
        on_close=lambda _, code, text: closed.append(code),
    )
    app.run_forever(**options)
    assert not errors, errors
    assert len(closed) == 1, closed
    return got


@scenario
def long_connection_to_the_echo():
    texts = ["Hello 0", "Hello 1", "Hello 2"]
    got = long_connection(ECHO, texts, 3, ping_interval=60, ping_timeout=5)
    assert got == texts, got


@scenario
def long_connection_to_the_raw_endpoint():
    texts = ["40", '42["client_event",{"data":"test"}]']
    joins = lambda message: message.startswith("40{")
    got = long_connection(RAW, texts, 4, joins, ping_interval=60, ping_timeout=5)
    assert got[0].startswith("0{") and got[1].startswith("40{"), got
    assert sorted(got[2:]) == ['42["auth",{}]', '42["server_response",{"data":"TEST"}]'], got


def pings(url):
    """Stays open while pings go out and come back, and looks at what comes back."""
    pongs, errors = [], []

    def on_pong(app, payload):
        pongs.append(payload)
        if len(pongs) == 2:
            app.close()

    app = websocket.WebSocketApp(url, on_pong=on_pong, on_error=lambda _, error: errors.append(error))
    app.run_forever(ping_interval=0.5, ping_payload="heartbeat")
    assert not errors, errors
    assert [bytes(pong) for pong in pongs] == [b"heartbeat"] * 2, pongs


@scenario
def pings_to_the_echo():
    pings(ECHO)


@scenario
def pings_to_the_raw_endpoint():
    pings(RAW)


@scenario
def ping_is_answered_with_its_payload_at_any_time():
    connection, _ = open_raw()
    for payload in ("", "hb", "x" * 125):
        connection.ping(payload)
        opcode, data = connection.recv_data(control_frame=True)
        assert (opcode, data.decode()) == (ABNF.OPCODE_PONG, payload), (opcode, data)
    join(connection)
    connection.ping("joined")
    assert connection.recv_data(control_frame=True) == (ABNF.OPCODE_PONG, b"joined")
    connection.close()


@scenario
def raw_endpoint_speaks_protocol_4():
    connection, packet = open_raw()
    assert list(packet) == ["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"], packet
    assert (packet["upgrades"], packet["pingInterval"], packet["pingTimeout"]) == ([], 25000, 20000), packet
    assert join(connection) != packet["sid"]
    connection.send('420["echo","é",1]')
    assert connection.recv() == '430["é",1]'
    connection.send('451-1["echo",{"_placeholder":true,"num":0}]')
    connection.send_binary(b"\x01\x02")
    assert connection.recv() == '461-1[{"_placeholder":true,"num":0}]'
    assert connection.recv() == b"\x01\x02"
    connection.close()


@scenario
def raw_endpoint_speaks_protocol_3():
    connection, packet = open_raw(RAW_EIO3)
    assert connection.recv() == "40"
    assert connection.recv() == '42["auth",{}]'
    connection.send("2")
    assert connection.recv() == "3"
    connection.send('420["whoami"]')
    assert connection.recv() == '430["%s"]' % packet["sid"]
    connection.send('451-1["echo",{"_placeholder":true,"num":0}]')
    connection.send_binary(b"\x04\x01\x02")
    assert connection.recv() == '461-1[{"_placeholder":true,"num":0}]'
    assert connection.recv() == b"\x04\x01\x02"
    connection.close()


@scenario
def leaves_and_joins_under_a_new_id():
    connection, _ = open_raw()
    first = join(connection)
    connection.send("41")
    connection.ping("still open")
    assert connection.recv_data(control_frame=True) == (ABNF.OPCODE_PONG, b"still open")
    assert join(connection) != first
    connection.close()


@scenario
def first_offered_subprotocol_is_selected():
    for url in (RAW, ECHO):
        connection = create_connection(url, timeout=WITHIN, subprotocols=["chat.v2", "chat.v1"])
        assert connection.getsubprotocol() == "chat.v2", connection.getsubprotocol()
        connection.close()
    connection, _ = open_raw()
    assert connection.getsubprotocol() is None
    connection.close()


@scenario
def any_header_and_mask_are_accepted():
    zeros, headers = [], {"X-Anything": "goes", "Authorization": "Bearer x"}
    connection, _ = open_raw(header=headers, cookie="a=b", get_mask_key=lambda length: zeros.append(length) or b"\0" * length)
    join(connection)
    assert zeros
    connection.close()
    connection, _ = open_raw(suppress_origin=True)
    join(connection)
    connection.close()


@scenario
def unmasked_frame_is_closed_with_1002():
    for url in (RAW, ECHO):
        connection = create_connection(url, timeout=WITHIN)
        connection.sock.sendall(b"\x81\x0240")
        assert closing(connection) == 1002
        connection.shutdown()


@scenario
def fragmented_text_is_put_together():
    connection, _ = open_raw()
    connection.send_frame(ABNF.create_frame("4", ABNF.OPCODE_TEXT, fin=0))
    connection.ping("between")
    connection.send_frame(ABNF.create_frame("0", ABNF.OPCODE_CONT, fin=1))
    assert connection.recv_data(control_frame=True) == (ABNF.OPCODE_PONG, b"between")
    joined(connection)
    connection.close()


@scenario
def foreign_frames_close_the_raw_endpoint():
    for send in (
        lambda connection: connection.send("Hello"),
        lambda connection: connection.send(""),
        lambda connection: connection.send("4abc"),
        lambda connection: connection.send_binary(b"\x01\x02"),
    ):
        connection, _ = open_raw()
        join(connection)
        send(connection)
        closing(connection)
        connection.shutdown()


@scenario
def close_is_answered_with_its_code():
    for url in (RAW, ECHO):
        connection = create_connection(url, timeout=WITHIN)
        connection.send_close(1000)
        assert closing(connection) == 1000
        connection.shutdown()
        connection = create_connection(url, timeout=WITHIN)
        connection.send(b"", ABNF.OPCODE_CLOSE)
        assert closing(connection) is None
        connection.shutdown()


@scenario
def query_without_a_transport_is_refused_before_the_upgrade():
    for query in ("", "?EIO=4", "?EIO=4&transport=carrier-pigeon"):
        try:
            create_connection(URL + "/socket.io/" + query, timeout=WITHIN)
        except websocket.WebSocketBadStatusException as error:
            assert error.status_code == 400, error
        else:
            raise AssertionError("accepted %r" % query)


@scenario
def many_threads_use_one_connection_each():
    failures = []

    def one(number):
        try:
            connection, _ = open_raw()
            join(connection)
            for at in range(20):
                connection.send('42%d["echo",%d]' % (at, number))
                assert connection.recv() == "43%d[%d]" % (at, number)
            connection.close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def main():
    failed = []
    for run in SCENARIOS:
        name = run.__name__.replace("_", " ")
        if os.environ.get("SCENARIO", "") not in name:
            continue
        started = time.monotonic()
        try:
            run()
        except Exception:
            print("FAILED  %s\n%s" % (name, traceback.format_exc()))
            failed.append(name)
        else:
            print("    ok %6d ms  %s" % ((time.monotonic() - started) * 1000, name))
    if failed:
        print("failed: " + "; ".join(failed))
    sys.stdout.flush()
    os._exit(1 if failed else 0)


main()
