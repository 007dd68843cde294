"""drivers/etcd: however a history is cut up, repeated and compacted, a watch tells each change once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from meshnode_etcd._keys import Keys
from meshnode_etcd.configuration._progress import Progress, spans
from meshnode_etcd.wire.etcdserverpb import Event, EventEventType, KeyValue, WatchResponse

KEYS = Keys("conf")
OPERATIONS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=25)
"""A key, and whether it is written or deleted; each is a revision of its own."""


def history(operations):
    """Its events, as etcd has them: what is not there cannot be deleted."""
    events, there = [], set()
    for name, written in operations:
        if not written and name not in there:
            continue
        (there.add if written else there.discard)(name)
        revision = len(events) + 2
        kv = KeyValue(key=KEYS.of(name), mod_revision=revision)
        if written:
            kv = KeyValue(
                key=kv.key, value=b"%d" % revision, mod_revision=revision, create_revision=2, version=1
            )
        kind = EventEventType.PUT if written else EventEventType.DELETE
        events.append(Event(type=kind, kv=kv))
    return events


def what_is_there(events):
    state = {}
    for event in events:
        state.pop(event.kv.key, None)
        if event.type is EventEventType.PUT:
            state[event.kv.key] = event.kv
    return list(state.values()), len(events) + 1


def as_told(changes):
    return [(name, item and int(item.version)) for name, item in changes.items()]


def as_meant(events):
    return [
        (KEYS.name(event.kv.key), event.kv.mod_revision if event.type is EventEventType.PUT else None)
        for event in events
    ]


@given(OPERATIONS, st.integers(0, 25), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=12))
def test_each_change_is_told_once_and_in_order(operations, begun, pieces):
    """`pieces`: how many events come in a response, and how many of those before come again with them."""
    events = history(operations)
    begun = min(begun, len(events))
    progress = Progress(KEYS, spans(KEYS, []))
    progress.read([what_is_there(events[:begun])])
    told, at = [], begun
    for count, again in [*pieces, (len(events), 0)]:
        some = events[max(begun, at - again) : at + count]
        at = min(at + count, len(events))
        for changes in progress.take(WatchResponse(watch_id=1, events=some)):
            assert changes, "an empty notification"
            told += as_told(changes)
        assert progress.requests()[0].create_request.start_revision == at + 2
    assert told == as_meant(events[begun:])


@given(OPERATIONS, st.integers(0, 25), st.integers(0, 25))
def test_what_a_compaction_took_is_told_as_a_difference(operations, begun, lost):
    events = history(operations)
    begun = min(begun, len(events))
    lost = min(begun + lost, len(events))
    progress = Progress(KEYS, spans(KEYS, []))
    progress.read([what_is_there(events[:begun])])
    assert list(progress.take(WatchResponse(watch_id=1, canceled=True, compact_revision=9))) == []
    assert progress.compacted
    changes = progress.read([what_is_there(events[:lost])])
    assert not progress.compacted
    before, after = (
        {kv.key: kv.mod_revision for kv in what_is_there(events[:end])[0]} for end in (begun, lost)
    )
    differ = {KEYS.name(key): after.get(key) for key in before | after if before.get(key) != after.get(key)}
    assert dict(as_told(changes)) == differ
    told = [one for some in progress.take(WatchResponse(watch_id=1, events=events)) for one in as_told(some)]
    assert told == as_meant(events[lost:])


def test_keys_that_are_named_have_watches_of_their_own():
    progress = Progress(KEYS, spans(KEYS, ["a", "b", "a"]))
    kv = KeyValue(key=b"conf/a", mod_revision=5)
    progress.read([([kv], 7), ([], 7)])
    requests = [one.create_request for one in progress.requests()]
    assert [(one.key, one.range_end, one.start_revision, one.watch_id) for one in requests] == [
        (b"conf/a", b"", 8, 1),
        (b"conf/b", b"", 8, 2),
    ]
    written = Event(kv=KeyValue(key=b"conf/b", mod_revision=9))
    assert [as_told(some) for some in progress.take(WatchResponse(watch_id=2, events=[written]))] == [
        [("b", 9)]
    ]
    assert [one.create_request.start_revision for one in progress.requests()] == [8, 10]
    assert as_told(progress.read([([], 11), ([written.kv], 11)])) == [("a", None)]
    assert list(progress.take(WatchResponse(watch_id=3, events=[written]))) == []


def test_a_key_that_is_no_text_is_no_item():
    progress = Progress(KEYS, spans(KEYS, []))
    kv = KeyValue(key=b"conf/\xff", mod_revision=5)
    assert progress.read([([kv], 7)]) == {}
    event = Event(kv=KeyValue(key=b"conf/\xff", mod_revision=9))
    assert list(progress.take(WatchResponse(watch_id=1, events=[event]))) == []
    assert progress.requests()[0].create_request.start_revision == 10
