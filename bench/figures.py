"""From single transfers to figures: medians, smallest and largest, multiples of another peer within the same round.

Rules: a ratio compares two transfers of one round and no others, because a machine drifts; its median is the median of
those ratios. A figure says over how many rounds it is. The figures can be computed again from `all`, which holds every
transfer. Refuses to leave anything out because it looks odd.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.peers import PEERS
from bench.rounds import Figure, Found

Json = dict[str, Any]


def spread(values: Sequence[float]) -> Json:
    """Median, smallest, largest, and how many."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "rounds": len(values),
    }


def same_rounds(one: Sequence[Figure], other: Sequence[Figure]) -> list[float]:
    """How many times as fast as `other` `one` was, in each round that has both."""
    base = {each.round: each.seconds for each in other}
    return [base[each.round] / each.seconds for each in one if each.round in base]


def case_as_json(found: Found, ceilings: dict[int, float]) -> Json:
    """One case. `ceilings`: bytes per second, by round. `ratio`: how many times as fast as the peer `base`."""
    case = found.case
    base = found.figures.get(case.base, [])
    peers = []
    for peer in PEERS:
        figures = found.figures.get(peer.name)
        if not figures:
            continue
        ratios = same_rounds(figures, base)
        seconds = spread([each.seconds for each in figures])
        told: Json = {
            "name": peer.name,
            "title": peer.title,
            "seconds": seconds,
            "bytes_per_second": case.bytes / seconds["median"],
            "ratio": spread(ratios) if ratios else None,
            "cpu": {
                "sender": statistics.median(each.cpu_sender for each in figures),
                "receiver": statistics.median(each.cpu_receiver for each in figures),
            },
            "peak": {
                "sender": max(each.peak_sender for each in figures),
                "receiver": max(each.peak_receiver for each in figures),
            },
            "resident_after_login": max((each.resident_after_login or 0 for each in figures), default=0) or None,
            "all": [asdict(each) for each in figures],
        }
        peers.append(told)
    return {
        "name": case.name,
        "title": case.title,
        "unit": case.unit,
        "base": next(peer.title for peer in PEERS if peer.name == case.base),
        "bytes": case.bytes,
        "files": case.count,
        "rtt": case.rtt,
        "rate": case.rate,
        "peers": peers,
        "left_out": found.left_out,
        "ceiling": _ceiling(found, ceilings),
        "after_login": _after_login(found),
    }


def _ceiling(found: Found, ceilings: dict[int, float]) -> Json | None:
    """Ours as a share of the cipher's and the digest's speed in the same round."""
    if not ceilings:
        return None
    shares = [
        found.case.bytes / each.seconds / ceilings[each.round]
        for each in found.figures.get("ours", [])
        if each.round in ceilings
    ]
    return {"bytes_per_second": spread(list(ceilings.values())), "share": spread(shares) if shares else None}


def _after_login(found: Found) -> Json | None:
    """Ours after its login as a share of plain TCP in the same round, less the round trip that connecting takes."""
    if not found.case.rtt:
        return None
    plain = {each.round: each.seconds - found.case.rtt for each in found.figures.get("plain", [])}
    both = [
        (each.after_login, plain[each.round])
        for each in found.figures.get("ours", [])
        if each.after_login and each.round in plain
    ]
    if not both:
        return None
    return {
        "seconds": spread([ours for ours, _ in both]),
        "share_of_plain": spread([theirs / ours for ours, theirs in both]),
    }


def load_as_json(rounds: Sequence[Json]) -> Json:
    """All rounds of one load."""
    return {
        "clients": rounds[0]["clients"],
        "size": rounds[0]["size"],
        "total": spread([each["total"] for each in rounds]),
        "of_one_client": spread([each["total"] / each["alone_whole"] for each in rounds]),
        "alone_whole": spread([each["alone_whole"] for each in rounds]),
        "alone_one": spread([each["alone_one"] for each in rounds]),
        "slowest_to_median": spread([each["slowest"] / each["median"] for each in rounds]),
        "slowest": spread([each["slowest"] for each in rounds]),
        "peak_server": max(each["peak_server"] for each in rounds),
        "peak_client": max(each["peak_client"] for each in rounds),
        "all": list(rounds),
    }
