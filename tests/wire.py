"""A wire between two servers: it counts what it carries, and can be cut, stopped and disturbed."""

import socket
import threading

PIECE = 16384


class Wire:
    """Carries connections to a port of this machine; `sent` is what went there, `came` what came back."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.2", 0))
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Condition()
        self.sent = self.came = 0
        self.connections = set()
        self.is_cut = self.stopped = False
        self.cut_at = self.stop_at = self.flip_at = None
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.2:{self.port}"

    def cut(self):
        """Ends every connection, and every one that is made until it is mended."""
        with self.lock:
            self.is_cut, ends = True, list(self.connections)
            self.connections.clear()
            self.lock.notify_all()
        for end in ends:
            _close(end)

    def mend(self):
        with self.lock:
            self.is_cut = self.stopped = False
            self.cut_at = self.stop_at = None
            self.lock.notify_all()

    def wait_until(self, what, limit_s=120):
        """Waits until something is true of the wire."""
        with self.lock:
            assert self.lock.wait_for(lambda: what(self), limit_s), f"{self.sent} bytes went over"

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                cut = self.is_cut
            if cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self.lock:
                self.connections |= {near, far}
            for one, other, there in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._carry, args=(one, other, there), daemon=True).start()

    def _carry(self, one, other, there):
        try:
            while piece := one.recv(PIECE):
                piece = self._count(piece, there)
                if piece is None:
                    break
                other.sendall(piece)
        except OSError:
            pass
        _close(one)
        _close(other)

    def _count(self, piece, there):
        """Counts a piece, and does to it what is to be done; nothing if the wire is cut now."""
        with self.lock:
            if not there:
                self.came += len(piece)
                return None if self.is_cut else piece
            start, self.sent = self.sent, self.sent + len(piece)
            if self.flip_at is not None and start <= self.flip_at < self.sent:
                at = self.flip_at - start
                piece = piece[:at] + bytes([piece[at] ^ 0x40]) + piece[at + 1 :]
                self.flip_at = None
            if self.stop_at is not None and self.sent >= self.stop_at:
                self.stopped = True
            due = self.cut_at is not None and self.sent >= self.cut_at
            self.lock.notify_all()
            while self.stopped and not self.is_cut:
                self.lock.wait()
        if due:
            self.cut()
        return None if self.is_cut else piece


def _close(end):
    for act in (lambda: end.shutdown(socket.SHUT_RDWR), end.close):
        try:
            act()
        except OSError:
            pass
