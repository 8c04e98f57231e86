"""Receivers of notifications: a web server and a mail server on loopback addresses, as a
test wants them to be."""

import base64
import email
import email.policy
import hashlib
import hmac
import socketserver
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness import run, wait_for


def certificate(folder):
    """A certificate of one's own for localhost, and its key."""
    pair = (folder / "certificate.pem", folder / "key.pem")
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2",
        "-addext", "basicConstraints=critical,CA:FALSE", "-out", pair[0], "-keyout", pair[1],
    )
    return pair


def tls(pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    return context


class Webhook:
    """A web server that keeps what it is sent, and answers as it is told to."""

    def __init__(self, port=0, pair=None):
        self.status, self.headers = 200, {}
        self.received = []
        self.answers = threading.Event()
        self.answers.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.received.append((dict(self.headers.items()), body, self.path))
                outer.answers.wait()
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_):
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_):
                # Who asked has gone away.
                pass

        self.listener = Listener(("127.0.0.1", port), Handler)
        if pair:
            context = tls(pair)
            self.listener.socket = context.wrap_socket(self.listener.socket, server_side=True)
        self.port = self.listener.server_port
        self.scheme = "https" if pair else "http"
        self.thread = threading.Thread(target=self.listener.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"{self.scheme}://localhost:{self.port}/hook"

    def events(self):
        return [headers["x-cairn-event"] for headers, _, _ in self.received]

    def wait_for(self, count):
        wait_for(f"delivery {count}", lambda: len(self.received) >= count)
        return self.received[count - 1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answers.set()
        self.listener.shutdown()
        self.listener.server_close()


def is_signed(secret, headers, body):
    """What a receiver checks before it believes a word."""
    text = headers["x-cairn-timestamp"].encode() + b"." + body
    code = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    return hmac.compare_digest(headers["x-cairn-signature"], f"sha256={code}")


class MailServer:
    """An SMTP server that keeps what it is sent; with a certificate, it asks for TLS and a password."""

    def __init__(self, pair=None, user=None, implicit=False):
        self.mails = []
        self.refused = set()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def setup(self):
                if pair and implicit:
                    self.request = tls(pair).wrap_socket(self.request, server_side=True)
                self.protected = implicit
                super().setup()

            def say(self, text):
                self.wfile.write(text.encode() + b"\r\n")

            def handle(self):
                self.say("220 test")
                known, to = user is None, []
                while line := self.rfile.readline(4096):
                    word, _, rest = line.decode().strip().partition(" ")
                    word = word.upper()
                    if word == "EHLO":
                        offered = ["250-test"]
                        if pair and not self.protected:
                            offered.append("250-STARTTLS")
                        elif user:
                            offered.append("250-AUTH PLAIN")
                        self.say("\r\n".join([*offered, "250 8BITMIME"]))
                    elif word == "STARTTLS":
                        self.say("220 go")
                        self.request = tls(pair).wrap_socket(self.request, server_side=True)
                        self.rfile = self.request.makefile("rb")
                        self.wfile = self.request.makefile("wb", 0)
                        self.protected = True
                    elif word == "AUTH":
                        given = base64.b64decode(rest.split(" ")[1]).decode().split("\0")[1:]
                        known = given == list(user)
                        self.say("235 yes" if known else "535 no")
                    elif word == "MAIL":
                        to = []
                        self.say("250 yes" if known else "530 who are you")
                    elif word == "RCPT":
                        address = rest.partition("<")[2].partition(">")[0]
                        if address in outer.refused:
                            self.say("550 nobody here")
                        else:
                            to.append(address)
                            self.say("250 yes")
                    elif word == "DATA":
                        self.say("354 go")
                        text = b""
                        while (line := self.rfile.readline()) != b".\r\n":
                            text += line.removeprefix(b".") if line.startswith(b"..") else line
                        mail = email.message_from_bytes(text, policy=email.policy.default)
                        outer.mails.append((to, mail))
                        self.say("250 kept")
                    elif word == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 yes")

        class Listener(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_):
                pass

        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.port = self.listener.server_address[1]
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown()
        self.listener.server_close()
