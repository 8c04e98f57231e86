"""`openstack`, for the three of its policy commands that cannot run as they are.

`cbr policy show`, `update` and `delete` call the SDK's `find_policy` with an argument
that it does not have and end before they send a request, in every release so far
(0.18.1 to 0.34.8). Here `find_policy` takes that argument; nothing else is changed.
"""

import sys

from openstackclient.shell import main
from otcextensions.sdk.cbr.v3 import _proxy

find_policy = _proxy.Proxy.find_policy


def find_policy_by_either_name(self, name_or_id=None, policy_id=None, ignore_missing=True):
    return find_policy(self, name_or_id or policy_id, ignore_missing=ignore_missing)


_proxy.Proxy.find_policy = find_policy_by_either_name
sys.exit(main())
