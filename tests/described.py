"""Every answer that a test gets, against the server's own description of the API.

Whatever speaks to a server through `requests`, the vendor's SDK too, has each
answer validated: its status must be described, its body must be of the schema,
and no object may have a key that the description does not name.
"""

import functools
import json
import re
from urllib.parse import urlsplit

import jsonschema_rs
import requests

send = requests.Session.send

# Paths that are no operations, although they look like the name of a version.
NO_OPERATIONS = {"/healthz", "/readyz", "/openapi.json", "/v3"}


class Description:
    """The operations of a description, and the schema of each answer."""

    def __init__(self, document):
        self.components = document["components"]
        for schema in self.components["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        # A path of words alone goes before one with parameters.
        paths = sorted(document["paths"].items(), key=lambda item: item[0].count("{"))
        self.paths = [
            (re.compile("[^/]+".join(map(re.escape, re.split(r"\{\w+\}", path)))), methods)
            for path, methods in paths
        ]

    def answers(self, method, path):
        """What the operation at a path answers, by status; nothing for what is no operation."""
        for pattern, methods in self.paths if path not in NO_OPERATIONS else ():
            if pattern.fullmatch(path) and method in methods:
                return methods[method]["responses"]
        return None

    @functools.cache
    def validator(self, schema):
        return jsonschema_rs.Draft202012Validator(
            {"allOf": [json.loads(schema)], "components": self.components}
        )

    def check(self, response):
        method = response.request.method.lower()
        answers = self.answers(method, urlsplit(response.request.url).path)
        status = response.status_code
        if answers is None or status >= 500:
            return
        answer = answers.get(str(status)) or answers.get(f"{status // 100}XX")
        what = f"{method} {response.request.url}: {status} {response.text[:2000]}"
        assert answer, f"the status is not described: {what}"
        content = answer.get("content")
        if content is None:
            assert not response.content, f"a body is not described: {what}"
            return
        if "application/octet-stream" in content:
            return
        schema = json.dumps(content["application/json"]["schema"])
        errors = [str(error) for error in self.validator(schema).iter_errors(response.json())]
        assert not errors, f"{what}\n" + "\n".join(errors)


@functools.cache
def description(endpoint):
    session = requests.Session()
    request = session.prepare_request(requests.Request("GET", f"{endpoint}/openapi.json"))
    response = send(session, request, timeout=60)
    return Description(response.json()) if response.ok else None


def checked_send(session, request, **options):
    response = send(session, request, **options)
    # Answers of other servers have no such id, answers to HEAD no body.
    if response.headers.get("X-Request-Id", "").startswith("req-") and request.method != "HEAD":
        url = urlsplit(request.url)
        described = description(f"{url.scheme}://{url.netloc}")
        if described:
            described.check(response)
    return response


def check_everything():
    """From here on, every answer is checked."""
    requests.Session.send = checked_send
