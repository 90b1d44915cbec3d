import json
import os
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from service.frontends.group_metrics import GroupRegistry


def sample(registry: GroupRegistry, name: str) -> float:
    for line in generate_latest(registry).decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(name)


def test_any_process_tells_the_sum_over_all(tmp_path: Path):
    one, other = GroupRegistry(tmp_path, "one"), GroupRegistry(tmp_path, "other")
    for registry, amount in ((one, 2), (other, 3)):
        Counter("things", "Things.", registry=registry).inc(amount)
        Gauge("present", "At present.", registry=registry).set(amount)
        Histogram("times", "Times.", buckets=(1, 4), registry=registry).observe(amount)
    other.write()

    assert sample(one, "things_total") == 5
    assert sample(one, "present") == 5
    assert sample(one, 'times_bucket{le="4.0"}') == 2
    assert sample(one, "times_sum") == 5


def test_what_a_dead_process_counted_is_kept_and_its_present_state_is_not(tmp_path: Path):
    dead = GroupRegistry(tmp_path, "one")
    Counter("things", "Things.", registry=dead).inc(2)
    Gauge("present", "At present.", registry=dead).set(2)
    dead.write()
    written = tmp_path / "one.json"
    written.write_text(json.dumps(json.loads(written.read_text()) | {"pid": 1 << 30}))

    other = GroupRegistry(tmp_path, "other")
    Gauge("present", "At present.", registry=other).set(1)
    successor = GroupRegistry(tmp_path, "one")
    Counter("things", "Things.", registry=successor).inc(5)

    assert sample(other, "things_total") == 2
    assert sample(other, "present") == 1
    successor.write()
    assert sample(other, "things_total") == 7
    assert json.loads(written.read_text())["pid"] == os.getpid()
