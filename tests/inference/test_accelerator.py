"""A predictor in a process of its own does what it does in this one, and its death is not the end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from s3seg import images
from s3seg.errors import CheckpointError, InferenceError, PromptError
from s3seg.inference.accelerator.process import PredictorProcess
from s3seg.sam3.predictor import Predictor, Query
from tests.helpers import small_predictors
from tests.helpers.inference_system import STREET

QUERIES = [Query("car"), Query("tree"), Query("house"), Query("submarine")]
ROOT = Path(__file__).parents[2]


SECRET = "a secret of the service"


@pytest.fixture(scope="module")
def shared():
    """A process of a service that has keys."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("API_SECRET_KEY", "S3SEG_SUPABASE_SECRET_KEY"):
            patch.setenv(name, SECRET)
        process = PredictorProcess(small_predictors.watched, device="cpu")
    yield process
    process.close()


@pytest.fixture(scope="module")
def here() -> Predictor:
    return small_predictors.watched()


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return images.load(STREET).pixels


def predict(predictor, picture, queries=QUERIES):
    (image,) = predictor.encode_resized([predictor.resize(picture)])
    return predictor.predict_pairs([(image, query) for query in queries], threshold=0.1)


def until(condition) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


class TestResults:
    def test_predictions_are_those_of_the_predictor_itself(self, shared, here, picture):
        found, expected = predict(shared, picture), predict(here, picture)
        assert max(len(one.scores) for one in expected) > 1
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one.scores, other.scores)
            assert np.array_equal(one.boxes_xyxy, other.boxes_xyxy)
            assert one.presence == other.presence
            assert one.rles((200, 300)) == other.rles((200, 300))

    def test_it_knows_what_the_predictor_knows_of_itself(self, shared, here):
        assert shared.device == str(here.device)
        assert shared.dtype == "float32"
        for name in ("image_size", "parameters", "weights_bytes"):
            assert getattr(shared, name) == getattr(here, name)
        assert shared.tokenizer("a red car") == here.tokenizer("a red car")
        assert shared.device_status() == here.device_status()

    def test_threads_get_their_own_results(self, shared, here, picture):
        (image,) = shared.encode_resized([shared.resize(picture)])
        expected = {query: one.scores for query, one in zip(QUERIES, predict(here, picture), strict=True)}

        def ask(number: int) -> bool:
            query = QUERIES[number % len(QUERIES)]
            (one,) = shared.predict_pairs([(image, query)], threshold=0.1)
            return np.allclose(one.scores, expected[query], atol=1e-5)

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(ask, range(12)))

    def test_an_error_arrives_as_the_error_that_it_is(self, shared, picture):
        with pytest.raises(PromptError, match="tokens"):
            predict(shared, picture, [Query("word " * 100)])
        with pytest.raises(InferenceError, match="ValueError in the network's process: something that nobody"):
            shared.call("fail")
        assert shared.problem is None

    def test_what_libraries_print_does_not_get_between_the_replies(self, shared):
        shared.call("print_something")
        assert shared.call("sleep", 0.0) == "slept"

    def test_images_that_are_not_needed_any_more_are_freed_on_the_device(self, shared, picture):
        kept = shared.encode_resized([shared.resize(picture)] * 3)
        gc.collect()
        shared.call("sleep", 0.0)  # takes the numbers of earlier images along
        before = shared.call("images")
        del kept[:2]
        gc.collect()
        shared.call("sleep", 0.0)
        assert shared.call("images") == before - 2

    def test_the_keys_of_the_service_stay_with_the_service(self, shared):
        variables = shared.call("variables")
        assert "PATH" in variables
        assert SECRET not in variables.values()


class TestDeath:
    @pytest.fixture(scope="class")
    @classmethod
    def process(cls):
        """Ends in one test, and is started again for the next."""
        process = PredictorProcess(small_predictors.watched, device="cpu")
        yield process
        process.close()

    def test_a_process_that_dies_fails_its_calls_and_is_started_again(self, process, picture):
        (image,) = process.encode_resized([process.resize(picture)])
        first, restarts = process.pid, process.restarts
        with pytest.raises(InferenceError, match=r"process on cpu ended with exit code -9; try again"):
            process.call("die")
        assert process.call("sleep", 0.0) == "slept"  # waits for the new process
        assert process.pid != first
        assert process.problem is None
        assert process.restarts == restarts + 1
        with pytest.raises(InferenceError, match="was restarted; encode the picture again"):
            process.predict_pairs([(image, QUERIES[0])], threshold=0.1)
        assert len(predict(process, picture)) == len(QUERIES)

    def test_images_that_are_not_needed_are_freed_also_if_the_next_call_cannot_be_sent(self, process, picture):
        (old,) = process.encode_resized([process.resize(picture)])
        with pytest.raises(InferenceError):
            process.call("die")
        (new,) = process.encode_resized([process.resize(picture)])
        assert process.call("images") == 1
        del new
        gc.collect()
        with pytest.raises(InferenceError, match="encode the picture again"):
            process.predict_pairs([(old, QUERIES[0])], threshold=0.1)
        process.call("sleep", 0.0)  # takes the number along
        assert process.call("images") == 0

    def test_a_process_that_cannot_answer_ends_rather_than_let_callers_wait(self):
        process = PredictorProcess(small_predictors.watched, device="cpu")
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(process.call, "something_that_cannot_be_sent")
            try:
                with pytest.raises(InferenceError, match="ended with exit code 1; try again"):
                    call.result(30)
            finally:
                process.close()

    def test_all_calls_in_progress_fail(self, process):
        assert process.call("sleep", 0.0) == "slept"  # it is up
        with ThreadPoolExecutor(3) as threads:
            calls = [threads.submit(process.call, "sleep", 60.0) for _ in range(3)]
            until(lambda: len(process._pending) == 3)
            os.kill(process.pid, 9)
            for call in calls:
                with pytest.raises(InferenceError, match="ended with exit code -9"):
                    call.result(60)

    def test_a_closed_process_is_gone_and_not_started_again(self):
        process = PredictorProcess(small_predictors.watched, device="cpu")
        pid = process.pid
        process.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(InferenceError):
            process.call("sleep", 0.0)
        assert process.pid == pid

    def test_one_that_cannot_be_started_again_says_why(self, tmp_path):
        process = PredictorProcess(partial(small_predictors.once, tmp_path / "mark"), device="cuda:1")
        try:
            with pytest.raises(InferenceError):
                process.call("die")
            with pytest.raises(InferenceError, match="on cuda:1 cannot be restarted: the weights are gone"):
                process.call("sleep", 0.0)
            assert process.problem is not None
            assert "the weights are gone" in process.problem
        finally:
            process.close()

    def test_an_error_while_loading_is_raised_here(self):
        with pytest.raises(CheckpointError, match="there are no weights here"):
            PredictorProcess(small_predictors.missing, device="cpu")

    def test_a_process_that_dies_while_loading_is_an_error(self):
        with pytest.raises(CheckpointError, match="process on cpu ended while it loaded, with exit code 7"):
            PredictorProcess(small_predictors.dying, device="cpu")

    def test_it_ends_with_a_service_that_is_killed(self):
        code = (
            "import time; from tests.helpers import small_predictors;"
            "from s3seg.inference.accelerator.process import PredictorProcess;"
            "print(PredictorProcess(small_predictors.watched, device='cpu').pid, flush=True); time.sleep(60)"
        )
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
        ) as service:
            assert service.stdout is not None
            pid = int(service.stdout.readline())
            service.kill()
        until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
