"""The ceiling for bulk: the cipher and the digest, and nothing else.

One process seals and hashes, another opens and hashes, at the same time, as the two ends of a transfer on one machine
do; with the product's own `RecordCipher`, hashlib's SHA-256 and records of 1 MiB, on several threads each, and without
any order between hashing and sealing. No transport, no file, no login. The opener copies each sealed record into place
first, as a receiver has to.

    python -m bench.ceiling seal|open THREADS RECORDS

Rules: both processes start working at the same moment, after everything is prepared, and the slower one counts. How
many threads are best is found by trying; the best of a round is that round's ceiling. Refuses to know the wire.
"""

import hashlib
import itertools
import os
import subprocess
import sys
import threading
import time

from bench.jobs import HOME, OURS, Failed
from crypto_utils import RecordCipher

RECORD = 1 << 20
_RING = 16
_HEADER = RECORD.to_bytes(4, "big")


def _work(what: str, threads: int, records: int) -> tuple[float, float]:
    """When the work began and ended, by the clock that both processes share."""
    cipher = RecordCipher(bytes(range(32)))
    ring = [bytearray(os.urandom(RECORD)) for _ in range(_RING)]
    tags = [cipher.seal(number, _HEADER, memoryview(each)) for number, each in enumerate(ring)]
    buffers = [bytearray(RECORD) for _ in range(threads)]
    numbers = itertools.count()

    def seal(place: int) -> None:
        while (number := next(numbers)) < records:
            cipher.seal(number, _HEADER, memoryview(ring[number % _RING]))

    def open(place: int) -> None:
        buffer = buffers[place]
        while (number := next(numbers)) < records:
            buffer[:] = ring[number % _RING]
            cipher.open(number % _RING, _HEADER, memoryview(buffer), tags[number % _RING])

    def digest() -> None:
        running = hashlib.sha256()
        plain = bytearray(RECORD)
        for _ in range(records):
            running.update(plain)

    work = seal if what == "seal" else open
    all_threads = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    all_threads.append(threading.Thread(target=digest))
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()
    return begun, time.monotonic()


def measure(threads: int, records: int) -> float:
    """Bytes per second with that many threads for the cipher in each process. Raises Failed."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for what in ("seal", "open"):
            command = [OURS, "-m", "bench.ceiling", what, str(threads), str(records)]
            processes.append(
                subprocess.Popen(
                    command, cwd=HOME, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
                )
            )
        for process in processes:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise Failed("the ceiling could not be measured")
        for process in processes:
            if process.stdin is not None:
                process.stdin.write("\n")
                process.stdin.flush()
        times = [[float(word) for word in process.communicate()[0].split()] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return records * RECORD / (max(ended for _, ended in times) - min(begun for begun, _ in times))


def thread_counts() -> list[int]:
    """What is tried: up to the number of cores."""
    cores = len(os.sched_getaffinity(0))
    return sorted({1, 2, max(1, cores // 2), min(cores, 16)})


if __name__ == "__main__":
    print(*_work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
