"""The vendor's Python SDK, unmodified, with every operation in one manner of call.

`Sdk(server).show_vault(vault_id=...)` makes a `ShowVaultRequest` and hands it to the
client's `show_vault`. A `body` of plain values becomes the SDK's own classes: a value
that they do not have is an error here.
"""

import inspect
import re

from huaweicloudsdkcbr import v1
from huaweicloudsdkcore.auth.credentials import BasicCredentials

# The calls that the client has in several forms, or that are none of the API.
OTHER_FORMS = re.compile(r"^_|_invoker$|_http_info$|^new_builder$|^call_api$")
OPERATIONS = {
    name
    for name, member in vars(v1.CbrClient).items()
    if callable(getattr(member, "__func__", member)) and not OTHER_FORMS.search(name)
}


def build(kind, value):
    """A value as the SDK's type of this name, such as `list[Tag]`."""
    several = re.fullmatch(r"list\[(.+)\]", kind)
    if several and value is not None:
        return [build(several.group(1), one) for one in value]
    model = getattr(v1, kind, None)
    if inspect.isclass(model) and isinstance(value, dict):
        types = model.openapi_types
        unknown = value.keys() - types.keys()
        assert not unknown, f"{kind} has no {unknown}"
        return model(**{key: build(types[key], one) for key, one in value.items()})
    return value


class Sdk:
    """A client for one project; it remembers which operations succeeded."""

    def __init__(self, server, credentials=None, succeeded=None):
        known = credentials or server.credentials
        keys = BasicCredentials(known["access_key"], known["secret_key"], known["project_id"])
        builder = v1.CbrClient.new_builder().with_credentials(keys)
        self.client = builder.with_endpoint(server.endpoint).build()
        self.succeeded = set() if succeeded is None else succeeded

    def __getattr__(self, operation):
        if operation not in OPERATIONS:
            raise AttributeError(operation)
        name = "".join(part.title() for part in operation.split("_"))
        request_type = getattr(v1, f"{name}Request")

        def call(body=None, **parameters):
            request = request_type(**parameters)
            if body is not None:
                request.body = build(request_type.openapi_types["body"], body)
            answer = getattr(self.client, operation)(request)
            self.succeeded.add(operation)
            return answer

        return call

    def ids(self, operation, rows, **parameters):
        """The ids of everything that a list has, in its order."""
        return [one.id for one in getattr(getattr(self, operation)(**parameters), rows)]
