from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3seg.decoding import DecodingOptions, DecodingPool
from s3seg.errors import FileTooLargeError, ImageDecodeError, UnavailableError

pytestmark = pytest.mark.anyio
LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited where there is /proc")


@pytest.fixture
async def make():
    pools = []

    def pool(**options) -> DecodingPool:
        pools.append(DecodingPool("tests.decoding.functions:act", DecodingOptions(**({"processes": 1} | options))))
        return pools[-1]

    yield pool
    for one in pools:
        await one.aclose()


async def run(pool: DecodingPool, content: str = "x", *, user: str = "ann", **arguments):
    return await pool.run(content.encode(), user_id=user, name="file", **arguments)


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_the_answer_is_that_of_the_function(make):
    result, body = await run(make(), "content", number=3)
    assert result["arguments"] == {"number": 3}
    assert body == b"tnetnoc"
    assert result["pid"] != os.getpid()


async def test_a_process_serves_many_pictures_and_no_other_is_started_without_need(make):
    pool = make(processes=4)
    assert len({(await run(pool))[0]["pid"] for _ in range(5)}) == 1
    assert len(pool.pids) == 1


async def test_what_a_decoder_prints_does_not_get_between_the_answers(make):
    pool = make()
    assert (await run(pool, "print"))[1] == b"tnirp"
    assert (await run(pool))[1] == b"x"


@pytest.mark.parametrize(("content", "error"), [("bad", ImageDecodeError), ("large", FileTooLargeError)])
async def test_errors_of_the_function_are_raised_here(make, content, error):
    with pytest.raises(error, match=f"file: {content}"):
        await run(make(), content)


async def test_an_unexpected_error_is_raised_with_its_traceback(make):
    pool = make()
    with pytest.raises(RuntimeError, match=r"functions\.py(.|\n)*KeyError: 'bug'"):
        await run(pool, "bug")
    await run(pool)


async def test_a_picture_that_takes_too_long_is_refused_and_its_process_replaced(make):
    pool = make(deadline_s=0.5)
    first = (await run(pool))[0]["pid"]
    with pytest.raises(ImageDecodeError, match=r"file: takes too long to decode, more than 0\.5 s"):
        await run(pool, "compute")
    assert has_ended(first)
    assert (await run(pool))[0]["pid"] != first


@pytest.mark.skipif(sys.platform == "win32", reason="no timer of processor time")
async def test_a_picture_that_gets_too_little_processor_time_is_not_refused_for_good(make, tmp_path):
    pool = make(give_up_s=0.3)
    with pytest.raises(UnavailableError, match="the machine is too busy"):
        await run(pool, f"hold {tmp_path}")
    await run(pool)


@LINUX
async def test_a_picture_that_takes_too_much_memory_is_refused(make):
    pool = make(memory=5 * 10**8)
    with pytest.raises(ImageDecodeError, match=r"file: too large: .* more than the 0\.5 GB of memory"):
        await run(pool, "allocate")
    await run(pool)


@LINUX
async def test_a_process_that_keeps_memory_is_replaced(make):
    pool = make()
    first = (await run(pool, "keep"))[0]["pid"]
    assert (await run(pool))[0]["pid"] != first
    assert has_ended(first)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
async def test_a_picture_that_crashes_its_decoder_is_refused(make):
    pool = make()
    with pytest.raises(ImageDecodeError, match="file: the file is damaged: its decoder crashed"):
        await run(pool, "crash")
    await run(pool)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("content", ["killed", "garbage"])
async def test_a_process_that_is_killed_or_answers_nonsense_is_not_the_pictures_fault(make, content):
    pool = make()
    with pytest.raises(UnavailableError):
        await run(pool, content)
    await run(pool)


async def test_one_picture_of_a_user_is_decoded_at_a_time(make, tmp_path):
    pool = make(processes=3)
    (held := tmp_path / "held").touch()
    first = asyncio.ensure_future(run(pool, f"hold {held}"))
    await until(lambda: pool.busy == 1)
    second = asyncio.ensure_future(run(pool))
    await run(pool, user="bob")
    assert pool.busy == 1
    assert not second.done()
    held.unlink()
    await asyncio.gather(first, second)


async def test_without_a_free_process_it_is_unavailable_and_passes(make, tmp_path):
    pool = make(wait_s=0.01)
    (held := tmp_path / "held").touch()
    first = asyncio.ensure_future(run(pool, f"hold {held}"))
    await until(lambda: pool.busy == 1)
    with pytest.raises(UnavailableError, match="too many pictures are being decoded") as caught:
        await run(pool, user="bob")
    assert caught.value.retry_after >= 1
    held.unlink()
    await first
    await run(pool, user="bob")


async def test_users_whose_pictures_were_slow_leave_a_process_to_others(make, tmp_path):
    pool = make(processes=2, wait_s=0.01, slow_s=0.0)
    slow = ("eve", "mallory", "trudy")
    for user in slow:
        await run(pool, user=user)  # more than no second, so each of them is slow from now on
    (held := tmp_path / "held").touch()
    first = asyncio.ensure_future(run(pool, f"hold {held}", user="eve"))
    await until(lambda: pool.busy == 1)
    for user in slow[1:]:
        with pytest.raises(UnavailableError, match="too many pictures are being decoded"):
            await run(pool, user=user)
    await run(pool, user="bob")
    held.unlink()
    await first
    await run(pool, user="mallory")


async def test_a_user_whose_pictures_are_quick_may_take_the_last_process(make, tmp_path):
    pool = make(processes=2, wait_s=0.01, slow_s=1000.0)
    for user in ("ann", "bob"):
        await run(pool, user=user)
    (held := tmp_path / "held").touch()
    both = [asyncio.ensure_future(run(pool, f"hold {held}", user=user)) for user in ("ann", "bob")]
    await until(lambda: pool.busy == 2)
    held.unlink()
    await asyncio.gather(*both)


async def test_without_a_limit_of_waiting_it_waits_for_a_free_process(make, tmp_path):
    pool = make(wait_s=None)
    (held := tmp_path / "held").touch()
    first = asyncio.ensure_future(run(pool, f"hold {held}"))
    await until(lambda: pool.busy == 1)
    others = [asyncio.ensure_future(run(pool, user=user)) for user in ("ann", "bob")]
    held.unlink()
    await asyncio.gather(first, *others)


async def test_the_process_of_a_cancelled_caller_is_killed(make, tmp_path):
    pool = make()
    pid = (await run(pool))[0]["pid"]
    caller = asyncio.ensure_future(run(pool, f"hold {tmp_path}"))
    await until(lambda: pool.busy == 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await until(lambda: has_ended(pid))
    await run(pool)


async def test_closing_ends_the_processes_and_the_pictures_in_them(make, tmp_path):
    pool = make()
    pid = (await run(pool))[0]["pid"]
    caller = asyncio.ensure_future(run(pool, f"hold {tmp_path}"))
    await until(lambda: pool.busy == 1)
    await pool.aclose()
    with pytest.raises(UnavailableError):
        await caller
    assert has_ended(pid)
    with pytest.raises(UnavailableError):
        await run(pool)


async def test_a_process_ends_with_its_service():
    code = """
import os
from s3seg.decoding.process import DecodingProcess
process = DecodingProcess("tests.decoding.functions:act", memory=10**9, deadline_s=20)
process.start()
print(process.pid, flush=True)
os._exit(9)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    await until(lambda: has_ended(int(done.stdout)))


async def test_a_process_that_cannot_start_is_unavailable_and_logged(caplog, capfd):
    pool = DecodingPool("s3seg.decoding:no_such_function")
    with pytest.raises(UnavailableError, match="a decoding process did not start"):
        await run(pool)
    await pool.aclose()
    assert "a decoding process did not start" in caplog.text
    assert "no_such_function" in capfd.readouterr().err


async def test_a_machine_without_room_for_a_process_is_unavailable_and_passes(make, monkeypatch):
    def full(*_, **__):
        raise BlockingIOError("resource temporarily unavailable")

    pool = make()
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", full)
        with pytest.raises(UnavailableError, match="cannot be started"):
            await run(pool)
    await run(pool)


async def test_a_process_does_not_get_the_keys_of_the_service(make, monkeypatch):
    for name in ("API_SECRET_KEY", "S3SEG_R2_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "SUPABASE_KEY"):
        monkeypatch.setenv(name, "secret")
    result, _ = await run(make())
    assert not [name for name in result["environment"] if "KEY" in name]
