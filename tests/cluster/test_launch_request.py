import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.launch_request import LaunchRequest, parse_order, to_bytes, to_text
from staging.mover.errors import UsageError

raw = st.binary(max_size=20).map(lambda data: to_text(data.replace(b"\0", b"x")))
names = raw.map(lambda text: "v" + text.replace("=", "_"))
paths = raw.map(lambda text: "/" + text)
requests = st.builds(
    LaunchRequest,
    argv=st.lists(raw, max_size=4).map(lambda words: ("command", *words)),
    env=st.dictionaries(names, raw, max_size=4),
    cwd=paths,
    fallback_cwd=st.none() | paths,
    umask=st.integers(0, 0o777),
    kind=st.sampled_from(["command", "mover"]),
)


@given(requests)
def test_a_request_survives_the_wire_whatever_bytes_it_holds(request: LaunchRequest) -> None:
    wire = json.loads(json.dumps(request.to_mapping()).encode("ascii"))
    assert LaunchRequest.from_mapping(wire) == request


@given(st.binary())
def test_every_byte_string_has_its_text(data: bytes) -> None:
    assert to_bytes(to_text(data)) == data


GOOD: dict[str, Any] = {"kind": "command", "argv": ["a"], "env": {}, "cwd": "/", "fallback_cwd": None, "umask": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "shell"}, "kind"),
        ({"argv": []}, "no command"),
        ({"argv": [""]}, "no command"),
        ({"argv": "ls"}, "argv"),
        ({"argv": ["a", 1]}, "argv"),
        ({"argv": ["a\0b"]}, "zero byte"),
        ({"argv": ["\ud800"]}, "surrogate"),
        ({"env": None}, "environment"),
        ({"env": {"A": 1}}, "environment"),
        ({"env": {"A": "\0"}}, "zero byte"),
        ({"env": {"": "x"}}, "name"),
        ({"env": {"A=B": "x"}}, "name"),
        ({"cwd": None}, "directory"),
        ({"cwd": "tmp"}, "absolute"),
        ({"fallback_cwd": 3}, "directory"),
        ({"fallback_cwd": "tmp"}, "absolute"),
        ({"umask": True}, "umask"),
        ({"umask": 0o1000}, "umask"),
        ({"umask": -1}, "umask"),
    ],
)
def test_what_cannot_be_launched_is_refused_with_its_reason(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        LaunchRequest.from_mapping(GOOD | change)


rubbish_values = st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.none())


@given(st.dictionaries(st.sampled_from(list(GOOD)), rubbish_values))
def test_no_rubbish_raises_anything_but_a_usage_error(rubbish: dict[str, Any]) -> None:
    with contextlib.suppress(UsageError):
        LaunchRequest.from_mapping(GOOD | rubbish)


@pytest.mark.parametrize("packet", [b"", b"\xff", b"[" * 100_000, b"9" * 100_000, b"[1]", b"{}", b'{"id": true}'])
def test_what_is_no_order_is_refused(packet: bytes) -> None:
    with pytest.raises(UsageError, match="a packet is not"):
        parse_order(packet)


def test_an_order_is_an_object_with_an_id() -> None:
    assert parse_order(b'{"id": 1, "op": "kill"}') == {"id": 1, "op": "kill"}


def test_a_mover_needs_no_arguments() -> None:
    assert LaunchRequest.from_mapping(GOOD | {"kind": "mover", "argv": []}).argv == ()
