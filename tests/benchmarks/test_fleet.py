"""The benchmark of fleets: its simulation against what queueing theory says, and a short run on real servers."""

import json
import sys

import pytest
from benchmarks.fleet.page import as_text, write_page
from benchmarks.fleet.simulation import Calls, Fleet, simulate

from benchmarks import fleet as command

FREE = Calls(servers=4, idle=0.0, claim=0.0, finish=0.0, submit=0.0, deliveries=0.0)


def test_idle_workers_look_once_in_a_pause_each():
    seen = simulate(Fleet(workers=100, task_s=1.0, poll_s=2.0, busy=0.0), FREE, seconds=200)
    assert seen.polls_per_s == pytest.approx(50, rel=0.05)
    assert (seen.claims_per_s, seen.waiting, seen.used) == (0, 0, 0)


def test_a_task_waits_for_the_first_of_the_idle_workers():
    """Of n workers that look at random times within a second, the first one comes after 1 / (n + 1) s on average."""
    few = simulate(Fleet(workers=200, task_s=0.001, poll_s=1.0, busy=0.0001), FREE, seconds=400)
    assert few.claims_per_s == pytest.approx(20, rel=0.1)
    assert few.wait_p50_ms < 10
    alone = simulate(Fleet(workers=1, task_s=0.001, poll_s=1.0, busy=0.0001), FREE, seconds=2000)
    assert 300 < alone.wait_p50_ms < 700


def test_all_tasks_are_done_as_long_as_workers_and_database_keep_up():
    calls = Calls(servers=2, idle=0.001, claim=0.002, finish=0.002, submit=0.003, deliveries=0.0)
    seen = simulate(Fleet(workers=50, task_s=1.0, poll_s=1.0, busy=0.5), calls, seconds=200)
    assert seen.claims_per_s == pytest.approx(25, rel=0.05)
    assert seen.waiting < 10
    expected = (25 * (0.002 + 0.002 + 0.003) + seen.polls_per_s * 0.001) / 2
    assert seen.used == pytest.approx(expected, rel=0.05)


def test_a_database_that_looks_alone_use_up_lets_tasks_wait():
    calls = Calls(servers=1, idle=0.002, claim=0.002, finish=0.002, submit=0.002, deliveries=0.0)
    enough = simulate(Fleet(workers=100, task_s=2.0, poll_s=1.0, busy=0.5), calls, seconds=60)
    too_many = simulate(Fleet(workers=1000, task_s=2.0, poll_s=1.0, busy=0.5), calls, seconds=60)
    assert too_many.used == pytest.approx(1.0, abs=0.01)
    assert too_many.wait_p99_ms > 20 * enough.wait_p99_ms


def test_looks_for_webhooks_are_counted():
    calls = Calls(servers=1, idle=0.0, claim=0.0, finish=0.0, submit=0.0, deliveries=0.001)
    seen = simulate(Fleet(workers=100, task_s=1.0, poll_s=1.0, busy=0.0), calls, seconds=100)
    assert seen.used == pytest.approx(100 / 2 * 0.001, rel=0.05)


def test_the_same_seed_gives_the_same_run():
    fleet = Fleet(workers=10, task_s=1.0, poll_s=1.0, busy=0.5)
    assert simulate(fleet, FREE, seconds=50) == simulate(fleet, FREE, seconds=50)
    assert simulate(fleet, FREE, seconds=50) != simulate(fleet, FREE, seconds=50, seed=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the servers are not available for other systems")
def test_a_quick_run_measures_real_servers(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "explanation"
    folder.mkdir()
    (tmp_path / "images").mkdir()
    made = "<!-- made by python -m benchmarks fleet -->\nold\n<!-- end of what was made -->\n"
    (folder / "fleet.md").write_text(f"# Page\n\n{made}end\n")
    assert command.main(["--quick", "--write", str(folder)]) == 0
    found = json.loads((folder / "fleet.json").read_text())
    assert found["real"]["failed"] == found["real_idle"]["failed"] == 0
    assert found["real"]["claims_per_s"] > 0
    assert found["real_idle"]["polls_per_s"] > 0
    assert {"idle", "claim", "finish", "submit"} < found["calls"].keys()
    page = (folder / "fleet.md").read_text()
    assert page.startswith("# Page")
    assert page.endswith("end\n")
    assert "old" not in page
    assert as_text(found).strip() in page
    assert as_text(found).splitlines()[-2] in capsys.readouterr().out
    before = (tmp_path / "images" / "fleet.svg").read_bytes()
    assert command.main(["--draw", str(folder)]) == 0
    assert ((folder / "fleet.md").read_text(), (tmp_path / "images" / "fleet.svg").read_bytes()) == (page, before)
    write_page(folder, found)
    assert (folder / "fleet.md").read_text() == page
