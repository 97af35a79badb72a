"""What `make powercut` calls torn, lost and stale. The cuts themselves need root, and have their own make target."""

from powercut.verdict import Sent, judge, usage_in

OLD, NEW, NEWER, TORN = "0" * 64, "1" * 64, "2" * 64, "f" * 64


def replaced() -> Sent:
    sent = Sent()
    for digest in (OLD, NEW, NEWER):
        sent.add("replace/a", digest)
    return sent


def test_content_that_was_never_sent_is_torn() -> None:
    assert judge(replaced(), [], {"replace/a": TORN, "replace/unknown": OLD}) == [
        "torn: replace/a",
        "torn: replace/unknown",
    ]


def test_name_with_a_receipt_that_is_not_there_is_lost() -> None:
    assert judge(replaced(), [("replace/a", OLD)], {}) == ["lost: replace/a"]
    assert judge(replaced(), [], {}) == []


def test_content_older_than_the_last_receipt_is_stale_and_a_later_one_is_not() -> None:
    receipts = [("replace/a", OLD), ("replace/a", NEW)]
    verdicts = {digest: judge(replaced(), receipts, {"replace/a": digest}) for digest in (OLD, NEW, NEWER)}
    assert verdicts == {OLD: ["stale: replace/a"], NEW: [], NEWER: []}


def test_receipt_may_be_for_the_first_of_equal_contents() -> None:
    sent = Sent()
    for digest in (OLD, NEW, OLD):
        sent.add("replace/a", digest)
    assert judge(sent, [("replace/a", OLD)], {"replace/a": NEW}) == []


def test_renamed_file_holds_what_its_receipt_says() -> None:
    sent = Sent()
    for digest in (OLD, NEW):
        sent.add("rename/a", digest, renames=True)
    assert judge(sent, [("rename/a.1", NEW)], {"rename/a": OLD, "rename/a.1": NEW}) == []
    assert judge(sent, [("rename/a.1", NEW)], {"rename/a": TORN, "rename/a.1": OLD}) == [
        "stale: rename/a.1",
        "torn: rename/a",
    ]


def test_usage_is_read_off_both_commands() -> None:
    users = "alice    put,get,list  16.6 MB in 206 files  of 900 MB  865.5 kB kept of 3 interrupted transfers"
    assert usage_in(users) == ["16.6 MB in 206 files", "865.5 kB kept of 3 interrupted transfers"]
    assert usage_in("alice: 1.0 kB in 1 file") == ["1.0 kB in 1 file"]
    assert usage_in("alice put") == []
