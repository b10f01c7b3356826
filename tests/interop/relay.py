"""A TCP relay in front of the server whose lines can be cut, as a network failure would."""

import socket
import threading
from urllib.parse import urlparse


class Relay:
    def __init__(self, url):
        target = urlparse(url)
        self._target = (target.hostname, target.port)
        self._lines = set()
        self._down = False
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Cuts every line, and every new one until `mend`."""
        with self._lock:
            self._down = True
            lines = list(self._lines)
        for line in lines:
            _end(line)

    def mend(self):
        with self._lock:
            self._down = False

    def close(self):
        self.cut()
        self._listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                down = self._down
                if not down:
                    self._lines |= {near, far}
            if down:
                near.close()
                far.close()
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        _end(source)
        _end(sink)
        with self._lock:
            self._lines.discard(source)
        source.close()


def _end(line):
    try:
        line.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
