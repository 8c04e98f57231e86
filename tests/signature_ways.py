"""Ways to tamper with a signed request, and ways to change one that do no harm, each by name."""

import base64
import copy
import hashlib
import hmac
import http.client
import json
import socket
from dataclasses import dataclass, field
from datetime import datetime

from harness import PATIENCE_S, ago, authorization, canonical_request

STAMP = "%Y%m%dT%H%M%SZ"


@dataclass
class Message:
    """A request as it goes over the wire, with what is needed to sign it."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    headers: list = field(default_factory=list)
    access_key: str = ""
    secret_key: str = ""

    def get(self, name):
        [value] = [value for key, value in self.headers if key == name]
        return value

    def put(self, name, value):
        """Replaces a header, or adds it."""
        at = [number for number, (key, _) in enumerate(self.headers) if key == name]
        if at:
            self.headers[at[0]] = (name, value)
        else:
            self.headers.append((name, value))
        return self

    def drop(self, name):
        self.headers = [(key, value) for key, value in self.headers if key != name]
        return self

    def add(self, name, value):
        """Adds a header, also beside one of the same name."""
        self.headers.append((name, value))
        return self

    def sign(self, **how):
        """Signs the request as it is now; `how` changes single parts of that."""
        plain = dict(self.drop("authorization").headers)
        signature = authorization(
            self.method, how.pop("path", self.path), how.pop("query", self.query), plain,
            how.pop("data", self.body), how.pop("access_key", self.access_key),
            how.pop("secret_key", self.secret_key), **how,
        )
        return self.put("authorization", signature)

    def proof(self, change):
        """Changes the whole header Authorization."""
        return self.put("authorization", change(self.get("authorization")))

    def part(self, name, change):
        """Changes one part of the header Authorization: Access, SignedHeaders or Signature."""
        algorithm, rest = self.get("authorization").split(" ", 1)
        parts = dict(part.split("=", 1) for part in rest.split(", "))
        parts[name] = change(parts[name])
        joined = ", ".join(f"{key}={value}" for key, value in parts.items())
        return self.put("authorization", f"{algorithm} {joined}")

    def date(self, text):
        """Signs with this for a date."""
        return self.put("x-sdk-date", text).sign()

    def send(self, port):
        """Sends exactly this; returns the status and the body."""
        target = self.path + (f"?{self.query}" if self.query else "")
        lines = [f"{self.method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body and not any(name == "transfer-encoding" for name, _ in self.headers):
            lines.append(f"content-length: {len(self.body)}")
        head = "\r\n".join([*lines, "connection: close", "", ""])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            connection.sendall(head.encode("latin-1") + self.body)
            answer = http.client.HTTPResponse(connection, method=self.method)
            answer.begin()
            return answer.status, answer.read()


WAYS, HARMLESS = {}, {}


def way(name, base="create", among=WAYS):
    """Registers a way to tamper with the request that `base` makes."""

    def register(tamper):
        assert name not in among, f"{name} is there twice"
        among[name] = (base, tamper)
        return tamper

    return register


def ways(base, among=WAYS, **simple):
    for name, tamper in simple.items():
        way(name.replace("_", " "), base, among)(tamper)


def flip(text, at):
    """Another hexadecimal digit in one place."""
    at %= len(text)
    return text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :]


def moved(text, seconds):
    """A date of a request, some seconds later."""
    moment = datetime.strptime(text, STAMP).timestamp() + seconds
    return datetime.fromtimestamp(moment).strftime(STAMP)


def fields(message):
    """The header Authorization after the algorithm."""
    return message.get("authorization").split(" ", 1)[1]


# -- the header Authorization as a whole ------------------------------------

ways(
    "create",
    no_authorization=lambda m, w: m.drop("authorization"),
    empty_authorization=lambda m, w: m.put("authorization", ""),
    only_the_algorithm=lambda m, w: m.put("authorization", "SDK-HMAC-SHA256"),
    no_algorithm=lambda m, w: m.put("authorization", fields(m)),
    bearer_scheme=lambda m, w: m.put("authorization", f"Bearer {m.secret_key}"),
    basic_scheme=lambda m, w: m.put(
        "authorization",
        "Basic " + base64.b64encode(f"{m.access_key}:{m.secret_key}".encode()).decode(),
    ),
    a_good_and_a_bad_authorization=lambda m, w: m.add("authorization", "SDK-HMAC-SHA256 Access=x"),
    a_bad_and_a_good_authorization=lambda m, w: m.put("authorization", "none").add(
        "authorization", copy.deepcopy(m).sign().get("authorization")
    ),
    the_same_authorization_twice=lambda m, w: m.add("authorization", m.get("authorization")),
    two_authorizations_in_one_header=lambda m, w: m.proof(lambda v: f"{v}, {v}"),
    an_unknown_part=lambda m, w: m.proof(lambda v: f"{v}, Extra=1"),
    the_key_twice=lambda m, w: m.proof(lambda v: f"{v}, Access={m.access_key}"),
    another_key_added=lambda m, w: m.proof(lambda v: f"{v}, Access={w.stranger['access_key']}"),
    the_signature_twice=lambda m, w: m.proof(lambda v: f"{v}, {v.rsplit(' ', 1)[1]}"),
    the_header_list_twice=lambda m, w: m.proof(lambda v: f"{v}, SignedHeaders=host;x-sdk-date"),
    no_key=lambda m, w: m.proof(lambda v: v.replace(f"Access={m.access_key}, ", "")),
    no_header_list=lambda m, w: m.proof(lambda v: v.replace(f"{v.split(', ')[1]}, ", "")),
    no_signature=lambda m, w: m.proof(lambda v: v.rsplit(", ", 1)[0]),
    names_of_parts_in_lower_case=lambda m, w: m.proof(
        lambda v: v.replace("Access=", "access=").replace("Signature=", "signature=")
    ),
    quoted_parts=lambda m, w: m.part("Signature", lambda v: f'"{v}"').part("Access", lambda v: f'"{v}"'),
    parts_without_commas=lambda m, w: m.proof(lambda v: v.replace(", ", " ")),
    authorization_under_another_name=lambda m, w: m.add(
        "proxy-authorization", m.get("authorization")
    ).drop("authorization"),
)


@way("the proof in the query")
def _(message, _world):
    algorithm, rest = message.get("authorization").split(" ", 1)
    message.query = "X-Sdk-Algorithm=" + algorithm + "&" + rest.replace(", ", "&").replace(";", "%3B")
    return message.drop("authorization")


# -- the algorithm -----------------------------------------------------------

ALGORITHMS = [
    "SDK-SM3", "SDK-HMAC-SM3", "SDK-SM2-SM3", "SDK-ECDSA-P256-SHA256", "V11-HMAC-SHA256",
    "SDK-HMAC-SHA1", "SDK-HMAC-SHA512", "AWS4-HMAC-SHA256", "sdk-hmac-sha256", "SDK-HMAC-SHA256X",
    "none",
]
for ALGORITHM in ALGORITHMS:
    way(f"renamed to algorithm {ALGORITHM}")(
        lambda m, w, to=ALGORITHM: m.proof(lambda v: v.replace("SDK-HMAC-SHA256", to))
    )
    way(f"signed as algorithm {ALGORITHM}")(lambda m, w, to=ALGORITHM: m.sign(algorithm=to))


@way("a derived key as of algorithm V11")
def _(message, _world):
    scope = f"{message.get('x-sdk-date')[:8]}/cairn-1/cbr"
    derived = hmac.new(message.secret_key.encode(), scope.encode(), hashlib.sha256).hexdigest()
    message.sign(algorithm="V11-HMAC-SHA256", secret_key=derived)
    return message.part("Access", lambda v: f"{v}/{scope}")


# -- keys --------------------------------------------------------------------

ways(
    "create",
    an_unknown_key=lambda m, w: m.sign(access_key="0" * len(m.access_key)),
    an_empty_key=lambda m, w: m.sign(access_key=""),
    a_shortened_key=lambda m, w: m.sign(access_key=m.access_key[:-1]),
    an_extended_key=lambda m, w: m.sign(access_key=m.access_key + "A"),
    the_key_in_another_case=lambda m, w: m.sign(access_key=m.access_key.swapcase()),
    a_key_that_is_a_database_s_language=lambda m, w: m.sign(access_key="' OR '1'='1"),
    a_key_with_a_wildcard=lambda m, w: m.sign(access_key="%"),
    the_user_s_name_for_a_key=lambda m, w: m.sign(access_key=w.server.credentials["user_name"]),
    the_secret_for_a_key=lambda m, w: m.sign(access_key=m.secret_key),
    the_key_of_another_user=lambda m, w: m.part("Access", lambda _: w.stranger["access_key"]),
    the_secret_of_another_user=lambda m, w: m.sign(secret_key=w.stranger["secret_key"]),
    signed_by_another_user=lambda m, w: m.sign(
        access_key=w.stranger["access_key"], secret_key=w.stranger["secret_key"]
    ),
    an_empty_secret=lambda m, w: m.sign(secret_key=""),
    the_key_for_a_secret=lambda m, w: m.sign(secret_key=m.access_key),
    the_password_for_a_secret=lambda m, w: m.sign(secret_key=w.server.credentials["password"]),
    the_secret_in_another_case=lambda m, w: m.sign(secret_key=m.secret_key.swapcase()),
    the_secret_with_a_line_end=lambda m, w: m.sign(secret_key=m.secret_key + "\n"),
)


# -- the signature -----------------------------------------------------------

SIGNATURES = {
    "in upper case": str.upper,
    "without its last byte": lambda v: v[:-2],
    "without its last digit": lambda v: v[:-1],
    "without its first byte": lambda v: v[2:],
    "extended by a byte": lambda v: v + "00",
    "twice in one": lambda v: v + v,
    "empty": lambda v: "",
    "all zeros": lambda v: "0" * len(v),
    "with another first digit": lambda v: flip(v, 0),
    "with another last digit": lambda v: flip(v, -1),
    "reversed": lambda v: v[::-1],
    "that is no number": lambda v: "z" * len(v),
    "in base64": lambda v: base64.b64encode(bytes.fromhex(v)).decode(),
    "with a prefix": lambda v: "0x" + v,
    "with a space inside": lambda v: v[:8] + " " + v[8:],
    "with a comment": lambda v: v + "#",
}
for NAME, CHANGE in SIGNATURES.items():
    way(f"a signature {NAME}")(lambda m, w, change=CHANGE: m.part("Signature", change))


def canonical(message):
    plain = {name: value for name, value in message.headers if name != "authorization"}
    body_hash = hashlib.sha256(message.body).hexdigest()
    return canonical_request(
        message.method, message.path, message.query, plain, sorted(plain), body_hash
    ).encode()


@way("a plain digest for a signature")
def _(message, _world):
    digest = hashlib.sha256(canonical(message)).hexdigest()
    return message.part("Signature", lambda _: digest)


@way("the canonical request signed without its digest")
def _(message, _world):
    mac = hmac.new(message.secret_key.encode(), canonical(message), hashlib.sha256).hexdigest()
    return message.part("Signature", lambda _: mac)


@way("the signature of another request")
def _(message, world):
    return message.part("Signature", lambda _: world.create().get("authorization")[-64:])


@way("the signature for another project")
def _(message, world):
    other = copy.deepcopy(message)
    other.path = other.path.replace(world.server.project, world.stranger["project_id"])
    return message.put("authorization", other.sign().get("authorization"))


# -- the list of signed headers ----------------------------------------------

HEADER_LISTS = {
    "a signed header is taken off the list": lambda v: v.replace("content-type;", ""),
    "a header that is there is added to the list": lambda v: v + ";connection",
    "a header that is missing is added to the list": lambda v: v + ";x-missing",
    "the list is reordered": lambda v: ";".join(reversed(v.split(";"))),
    "a header is on the list twice": lambda v: "host;" + v,
    "the list is in upper case": str.upper,
    "one name of the list is in another case": lambda v: v.replace("host", "Host"),
    "the list is empty": lambda v: "",
    "the list is separated by commas": lambda v: v.replace(";", ","),
    "the list is separated by spaces": lambda v: v.replace(";", " "),
    "the list ends with a separator": lambda v: v + ";",
    "the list has spaces": lambda v: v.replace(";", "; "),
    "the list has a name that is none": lambda v: v + ";(x)",
    "the list has far too many names": lambda v: v + ";x" * 5000,
    "the list is encoded": lambda v: v.replace(";", "%3B"),
}
for NAME, CHANGE in HEADER_LISTS.items():
    way(NAME)(lambda m, w, change=CHANGE: m.part("SignedHeaders", change))

ways(
    "create",
    the_date_is_not_covered=lambda m, w: m.sign(names=["content-type", "host", "x-project-id"]),
    a_missing_header_is_covered_as_empty=lambda m, w: m.sign(
        names=["content-type", "host", "x-missing", "x-project-id", "x-sdk-date"]
    ),
    nothing_is_covered=lambda m, w: m.sign(names=[]),
)


# -- headers -----------------------------------------------------------------

ways(
    "create",
    a_signed_header_removed=lambda m, w: m.drop("content-type"),
    a_signed_header_emptied=lambda m, w: m.put("content-type", ""),
    a_signed_header_changed=lambda m, w: m.put("content-type", "text/plain"),
    a_signed_header_in_another_case=lambda m, w: m.put("content-type", "APPLICATION/JSON"),
    a_signed_header_extended=lambda m, w: m.put("content-type", "application/json;charset=utf-16"),
    a_signed_header_doubled=lambda m, w: m.add("content-type", "application/json"),
    a_signed_header_doubled_with_another_value=lambda m, w: m.add("x-project-id", w.stranger["project_id"]),
    a_signed_header_renamed=lambda m, w: m.add("x-project", m.get("x-project-id")).drop("x-project-id"),
    a_signed_header_with_an_invisible_byte=lambda m, w: m.put("content-type", "application/json\xa0"),
    the_project_header_changed=lambda m, w: m.put("x-project-id", w.stranger["project_id"]),
    the_project_header_removed=lambda m, w: m.drop("x-project-id"),
    the_host_changed=lambda m, w: m.put("host", "cbr.example.org"),
    the_port_of_the_host_changed=lambda m, w: m.put("host", "127.0.0.1:1"),
    the_port_of_the_host_removed=lambda m, w: m.put("host", "127.0.0.1"),
    the_host_by_another_name=lambda m, w: m.put("host", f"localhost:{w.server.port}"),
    the_host_removed=lambda m, w: m.drop("host"),
    the_host_doubled=lambda m, w: m.add("host", m.get("host")),
    a_second_other_host=lambda m, w: m.add("host", "cbr.example.org"),
    the_forwarded_host_for_the_host=lambda m, w: m.add("x-forwarded-host", m.get("host")).put("host", "b"),
)


# -- the date ----------------------------------------------------------------

ways(
    "create",
    the_date_removed=lambda m, w: m.drop("x-sdk-date"),
    the_date_emptied=lambda m, w: m.put("x-sdk-date", ""),
    the_date_doubled=lambda m, w: m.add("x-sdk-date", m.get("x-sdk-date")),
    a_second_other_date=lambda m, w: m.add("x-sdk-date", moved(m.get("x-sdk-date"), 1)),
    the_date_a_second_later=lambda m, w: m.put("x-sdk-date", moved(m.get("x-sdk-date"), 1)),
    the_date_a_second_earlier=lambda m, w: m.put("x-sdk-date", moved(m.get("x-sdk-date"), -1)),
    the_date_under_another_name=lambda m, w: m.add("date", m.get("x-sdk-date")).drop("x-sdk-date"),
    signed_16_minutes_ago=lambda m, w: m.date(ago(minutes=16).strftime(STAMP)),
    signed_16_minutes_ahead=lambda m, w: m.date(ago(minutes=-16).strftime(STAMP)),
    signed_a_day_ago=lambda m, w: m.date(ago(days=1).strftime(STAMP)),
    signed_a_year_ahead=lambda m, w: m.date(ago(days=-365).strftime(STAMP)),
    signed_in_the_year_1=lambda m, w: m.date("00010101T000000Z"),
    signed_in_the_year_9999=lambda m, w: m.date("99991231T235959Z"),
    an_old_request_with_a_new_date=lambda m, w: m.date(ago(minutes=16).strftime(STAMP)).put(
        "x-sdk-date", ago().strftime(STAMP)
    ),
    a_date_with_hyphens=lambda m, w: m.date(ago().strftime("%Y-%m-%dT%H:%M:%SZ")),
    a_date_of_mail=lambda m, w: m.date(ago().strftime("%a, %d %b %Y %H:%M:%S GMT")),
    a_date_in_seconds=lambda m, w: m.date(str(int(ago().timestamp()))),
    a_date_without_its_zone=lambda m, w: m.date(ago().strftime("%Y%m%dT%H%M%S")),
    a_date_with_another_zone=lambda m, w: m.date(ago(hours=-8).strftime("%Y%m%dT%H%M%S+0800")),
    a_date_with_fractions=lambda m, w: m.date(ago().strftime("%Y%m%dT%H%M%S.%fZ")),
    a_date_in_lower_case=lambda m, w: m.date(ago().strftime(STAMP).lower()),
    a_day_without_a_time=lambda m, w: m.date(ago().strftime("%Y%m%d")),
    a_day_that_is_none=lambda m, w: m.date("20260230T000000Z"),
    a_date_with_more_behind_it=lambda m, w: m.date(ago().strftime(STAMP) + " x"),
)


# -- the method --------------------------------------------------------------

for METHOD in ("PUT", "DELETE", "PATCH", "get", "Get", "HEAD", "OPTIONS", "TRACE", "PURGE"):
    way(f"a question sent as {METHOD}", base="list")(
        lambda m, w, method=METHOD: setattr(m, "method", method) or m
    )


@way("a change sent as a deletion", base="rename")
def _(message, _world):
    message.method = "DELETE"
    return message


@way("a creation sent as a question")
def _(message, _world):
    message.method = "GET"
    return message


# -- the path ----------------------------------------------------------------

PATHS = {
    "another vault in the path": lambda p, w: p.replace(w.vault, w.other_vault),
    "another project in the path": lambda p, w: p.replace(w.server.project, w.stranger["project_id"]),
    "no vault in the path": lambda p, w: p.replace(w.vault, ""),
    "a slash behind": lambda p, w: p + "/",
    "a double slash": lambda p, w: p.replace("/vaults/", "//vaults/"),
    "a double slash in front": lambda p, w: "/" + p,
    "an encoded slash": lambda p, w: p.replace("/vaults/", "/vaults%2F"),
    "an encoded slash behind": lambda p, w: p + "%2F",
    "a slash encoded twice": lambda p, w: p.replace("/vaults/", "/vaults%252F"),
    "a backslash": lambda p, w: p.replace("/vaults/", "/vaults\\"),
    "a dot segment": lambda p, w: p.replace("/vaults/", "/./vaults/"),
    "dot segments to another vault": lambda p, w: f"{p}/../{w.other_vault}",
    "encoded dot segments": lambda p, w: f"{p}/%2e%2e/{w.other_vault}",
    "dot segments that come to nothing": lambda p, w: p.replace("/vaults/", "/x/../vaults/"),
    "the path in another case": lambda p, w: p.replace("/vaults/", "/VAULTS/"),
    "the id in another case": lambda p, w: p.replace(w.vault, w.vault.upper()),
    "a parameter of the path": lambda p, w: p + ";a=b",
    "an operation behind": lambda p, w: p + "/addresources",
    "a character behind": lambda p, w: p + "0",
    "an encoded zero byte": lambda p, w: p + "%00",
    "an encoded question mark": lambda p, w: p + "%3Fa=b",
    "a broken encoding": lambda p, w: p + "%",
    "a path encoded twice": lambda p, w: p.replace("v3", "%2576%2533"),
    "another version": lambda p, w: p.replace("/v3/", "/v1/"),
    "no version": lambda p, w: p.removeprefix("/v3"),
}
for NAME, CHANGE in PATHS.items():
    way(NAME, base="rename")(
        lambda m, w, change=CHANGE: setattr(m, "path", change(m.path, w)) or m
    )


@way("replayed on another path", base="list")
def _(message, _world):
    message.path = message.path.replace("/vaults", "/backups")
    return message


@way("replayed on the path of another kind", base="list")
def _(message, _world):
    message.path = "/v3/auth/catalog"
    return message


# -- the query ---------------------------------------------------------------

QUERIES = {
    "a key added to the query": lambda q: q + "&status=available",
    "a key without a value added": lambda q: q + "&status",
    "a key removed from the query": lambda q: q.replace("&name=kept", ""),
    "the whole query removed": lambda q: "",
    "a value of the query changed": lambda q: q.replace("limit=10", "limit=1000"),
    "a value of the query emptied": lambda q: q.replace("name=kept", "name="),
    "a key of the query in another case": lambda q: q.replace("name=", "Name="),
    "a value of the query in another case": lambda q: q.replace("kept", "KEPT"),
    "a key of the query doubled": lambda q: q + "&limit=10",
    "a key of the query doubled with another value": lambda q: q + "&limit=1000",
    "a value of the query encoded twice": lambda q: q.replace("kept", "%256bept"),
    "a space added to a value": lambda q: q.replace("kept", "kept%20"),
    "a plus added to a value": lambda q: q.replace("kept", "kept+"),
    "a zero byte added to a value": lambda q: q.replace("kept", "kept%00"),
    "the query separated by semicolons": lambda q: q.replace("&", ";"),
    "an encoded separator in the query": lambda q: q.replace("&", "%26"),
    "an encoded equals sign in the query": lambda q: q.replace("name=", "name%3D"),
    "values of the query swapped": lambda q: q.replace("limit=10", "limit=0").replace("offset=0", "offset=10"),
    "a second question mark": lambda q: "?" + q,
}
for NAME, CHANGE in QUERIES.items():
    way(NAME, base="list")(lambda m, w, change=CHANGE: setattr(m, "query", change(m.query)) or m)


SIGNS = {
    "an encoded plus as a bare one": lambda q: q.replace("%2B", "+"),
    "an encoded percent as a bare one": lambda q: q.replace("%25d", "%d"),
    "an encoded plus as a space": lambda q: q.replace("%2B", "%20"),
}
for NAME, CHANGE in SIGNS.items():
    way(NAME, base="seek")(lambda m, w, change=CHANGE: setattr(m, "query", change(m.query)) or m)


@way("a query where none was")
def _(message, _world):
    message.query = "a=b"
    return message


# -- the body ----------------------------------------------------------------

BODIES = {
    "a value of the body changed": lambda b: b.replace(b'"size": 10', b'"size": 90'),
    "a space added to the body": lambda b: b.replace(b": ", b":  ", 1),
    "a space removed from the body": lambda b: b.replace(b": ", b":", 1),
    "a line end behind the body": lambda b: b + b"\n",
    "a byte order mark before the body": lambda b: b"\xef\xbb\xbf" + b,
    "keys of the body reordered": lambda b: json.dumps(
        {"vault": dict(reversed(json.loads(b)["vault"].items()))}
    ).encode(),
    "a key added to the body": lambda b: b.replace(b'{"vault": {', b'{"vault": {"locked": true, '),
    "another body": lambda b: b'{"vault": {}}',
    "no body": lambda b: b"",
    "the body in UTF-16": lambda b: b.decode().encode("utf-16"),
    "the body twice": lambda b: b + b,
    "the body cut": lambda b: b[:-1],
}
for NAME, CHANGE in BODIES.items():
    way(NAME)(lambda m, w, change=CHANGE: setattr(m, "body", change(m.body)) or m)

UNSIGNED = "UNSIGNED-PAYLOAD"


@way("a body on a question", base="list")
def _(message, _world):
    message.body = b"{}"
    return message


@way("a body that is said to be unsigned")
def _(message, _world):
    return message.put("x-sdk-content-sha256", UNSIGNED).sign(body_hash=UNSIGNED)


@way("a body that is unsigned without a word")
def _(message, _world):
    return message.sign(body_hash=UNSIGNED)


@way("a body said to be unsigned after signing")
def _(message, _world):
    message.body = message.body.replace(b'"size": 10', b'"size": 90')
    return message.add("x-sdk-content-sha256", UNSIGNED)


@way("another body with the digest of the signed one")
def _(message, _world):
    digest = hashlib.sha256(message.body).hexdigest()
    message.put("x-sdk-content-sha256", digest).sign()
    message.body = message.body.replace(b'"size": 10', b'"size": 90')
    return message


@way("the digest of an empty body")
def _(message, _world):
    return message.sign(data=b"")


@way("a body unsigned because it is said to be no JSON")
def _(message, _world):
    message.put("content-type", "application/octet-stream").put("x-sdk-content-sha256", UNSIGNED)
    return message.sign(body_hash=UNSIGNED)


# -- tokens beside signatures ------------------------------------------------

ways(
    "create",
    an_unknown_token_beside_a_good_signature=lambda m, w: m.add("x-auth-token", "0" * 64),
    an_unknown_token_for_a_signature=lambda m, w: m.add("x-auth-token", "0" * 64).drop("authorization"),
    the_secret_for_a_token=lambda m, w: m.add("x-auth-token", m.secret_key).drop("authorization"),
    a_token_without_its_last_character=lambda m, w: m.add(
        "x-auth-token", w.server.token()[:-1]
    ).drop("authorization"),
    a_token_with_one_more_character=lambda m, w: m.add(
        "x-auth-token", w.server.token() + "0"
    ).drop("authorization"),
    a_token_in_another_case=lambda m, w: m.add(
        "x-auth-token", w.server.token().swapcase()
    ).drop("authorization"),
    a_good_token_beside_a_bad_signature=lambda m, w: m.part(
        "Signature", lambda v: flip(v, 7)
    ).add("x-auth-token", w.server.token()),
    a_good_and_an_unknown_token=lambda m, w: m.add("x-auth-token", w.server.token()).add(
        "x-auth-token", "0" * 64
    ).drop("authorization"),
)


# -- what signing allows -----------------------------------------------------


@way("the query in another order", base="list", among=HARMLESS)
def _(message, _world):
    message.query = "&".join(reversed(message.query.split("&")))
    return message


@way("a letter of the query encoded", base="list", among=HARMLESS)
def _(message, _world):
    message.query = message.query.replace("kept", "%6bept")
    return message


@way("a space as a plus, as the SDK for Go sends it", base="seek", among=HARMLESS)
def _(message, _world):
    message.query = message.query.replace("%20", "+")
    return message


@way("headers in another order", among=HARMLESS)
def _(message, _world):
    message.headers.reverse()
    return message


@way("names of headers in another case", among=HARMLESS)
def _(message, _world):
    message.headers = [(name.title(), value) for name, value in message.headers]
    return message


@way("spaces around a header's value", among=HARMLESS)
def _(message, _world):
    return message.put("content-type", "   application/json \t")


@way("a body in pieces", among=HARMLESS)
def _(message, _world):
    half = len(message.body) // 2
    pieces = [message.body[:half], message.body[half:], b""]
    message.body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return message.add("transfer-encoding", "chunked")


ways(
    "create",
    HARMLESS,
    an_unsigned_header_more=lambda m, w: m.add("x-forwarded-for", "192.0.2.1"),
    an_unsigned_agent=lambda m, w: m.add("user-agent", "client/1.0"),
    # The vendor's SDK for Go does not sign the host.
    the_host_is_not_covered=lambda m, w: m.sign(names=["content-type", "x-project-id", "x-sdk-date"]),
    only_host_and_date_signed=lambda m, w: m.sign(names=["host", "x-sdk-date"]),
    signed_headers_in_their_own_order=lambda m, w: m.sign(names=["x-sdk-date", "host", "content-type"]),
    signed_14_minutes_ago=lambda m, w: m.date(ago(minutes=14).strftime(STAMP)),
    signed_14_minutes_ahead=lambda m, w: m.date(ago(minutes=-14).strftime(STAMP)),
    a_preset_header_beside_a_token=lambda m, w: m.put("authorization", "none").add(
        "x-auth-token", w.server.token()
    ),
)
