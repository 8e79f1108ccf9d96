"""Opening items in other processes: the same batches in the same order, whatever goes wrong on the way."""

import os
import pickle
import signal
import threading
import time

import pytest

from impart_utils.sources import workers
from impart_utils.sources.workers import open_batches, side_by_side

BATCHES = [range(0, 4), range(4, 8), range(8, 10), range(20, 23)]
forks = pytest.mark.skipif(not workers.FORK, reason="processes are forks on Linux alone")


def numbers(n=23, fault=None):
    """Items that only a fork can take: closures. `fault` is a function of the number, called first."""
    def opener(i):
        def open_item():
            if fault:
                fault(i)
            return i
        return open_item
    return [(f"item-{i}", opener(i)) for i in range(n)]


@pytest.mark.parametrize("count", [0, 1, 3, None])
def test_the_same_batches_in_the_same_order(count):
    def slow_first(i):  # the first batch takes longest: order isn't that of finishing
        time.sleep(0.05 if i < 4 else 0)

    opened = list(open_batches(numbers(fault=slow_first), BATCHES, prepare=lambda i: 10 * i, workers=count))
    assert opened == [([f"item-{i}" for i in rows], [10 * i for i in rows], {}) for rows in BATCHES]


@forks
@pytest.mark.parametrize("count", [1, 2])
def test_items_are_opened_and_prepared_in_other_processes(count):
    found = list(open_batches([(str(i), os.getpid) for i in range(8)],
                              [range(start, start + 2) for start in range(0, 8, 2)],
                              prepare=lambda pid: (pid, os.getpid()), workers=count))
    pids = {pid for _, opened, _ in found for both in opened for pid in both}
    assert os.getpid() not in pids and len(pids) == count


@pytest.mark.parametrize("count", [0, 2])
def test_what_can_not_be_opened_or_prepared_is_listed(count):
    def fault(i):
        if i in (1, 20):
            raise OSError(f"{i} is cut short")

    def prepare(i):
        return 12 // (i - 5)

    opened = list(open_batches(numbers(fault=fault), BATCHES, prepare=prepare, workers=count))
    assert opened[0] == (["item-0", "item-2", "item-3"], [-3, -4, -6], {"item-1": "OSError: 1 is cut short"})
    names, _, skipped = opened[1]
    assert names == ["item-4", "item-6", "item-7"] and list(skipped) == ["item-5"]
    assert skipped["item-5"].startswith("ZeroDivisionError: ")
    assert opened[3][0] == ["item-21", "item-22"] and list(opened[3][2]) == ["item-20"]


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("error", [PermissionError, MemoryError, TimeoutError])
def test_faults_that_are_not_the_items_stop_the_run(count, error):
    def fault(i):
        if i == 6:
            raise error("the disk is away")

    opened = open_batches(numbers(fault=fault), BATCHES, workers=count)
    assert next(opened)[1] == [0, 1, 2, 3]
    with pytest.raises(error, match="the disk is away"):
        next(opened)


@forks
def test_a_process_that_dies_is_told_with_the_remedy():
    def fault(i):
        if i == 5:
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory runs out

    with pytest.raises(RuntimeError, match="process that opens items has died.*Encode with workers=0"):
        list(open_batches(numbers(fault=fault), BATCHES, workers=1))


@forks
def test_what_can_not_be_sent_is_an_error_and_no_hanging():
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError), match="pickle"):
        list(open_batches([("a", threading.Lock)], [range(1)], workers=1))
    assert len(list(open_batches([("a", threading.Lock)], [range(1)], workers=0))) == 1


@forks
def test_no_process_is_left_when_the_consumer_stops():
    def prepare(i):
        return os.getpid()

    opened = open_batches(numbers(), BATCHES, prepare=prepare, workers=2)
    pid = next(opened)[1][0]
    opened.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(pid):
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid):
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@forks
def test_torchs_random_numbers_are_left_alone():
    import torch

    before = torch.random.get_rng_state()
    list(open_batches(numbers(), BATCHES, workers=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_memory_holds_two_batches_a_process_and_not_all(tmp_path):
    """An item that is opened leaves a file: so many may be opened before the first is taken."""
    items = [(str(i), lambda i=i: (tmp_path / str(i)).touch()) for i in range(60)]
    opened = open_batches(items, [range(i, i + 2) for i in range(0, 60, 2)], workers=2 if workers.FORK else 0)
    next(opened)
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) <= 2 * (1 + 2 * 2)
    opened.close()


# ---- how many ----

@pytest.mark.parametrize(("opening", "consuming", "left", "expected"), [
    (0.001, 1.0, 1000, 0),   # one second in all: not worth a process
    (0.1, 1.0, 1000, 1),     # ten times as fast as the encoder: one keeps up
    (1.0, 1.0, 1000, 2),     # as slow as the encoder
    (1.0, 0.2, 1000, 6),
    (1.0, 0.01, 1000, 8),    # no more than cores
    (1.0, 0.2, 1, 0),
])
def test_as_many_processes_as_keep_up(monkeypatch, opening, consuming, left, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert workers._useful_workers(opening, consuming, left) == expected


@forks
def test_processes_take_over_where_opening_is_slow(monkeypatch):
    monkeypatch.setattr(workers, "WORTH_IT", 0.01)
    items = [(str(i), lambda: time.sleep(0.02) or os.getpid()) for i in range(12)]
    pids = [pid for _, opened, _ in open_batches(items, [range(i, i + 2) for i in range(0, 12, 2)])
            for pid in opened]
    first = 2 * workers.TRIAL
    assert set(pids[:first]) == {os.getpid()} and os.getpid() not in pids[first:]


def test_without_forks_the_automatic_way_starts_no_process(monkeypatch):
    """A process that isn't a fork would start the program anew: a script without a guard, a notebook."""
    monkeypatch.setattr(workers, "FORK", False)
    monkeypatch.setattr(workers, "WORTH_IT", 0.0)
    monkeypatch.setattr(workers, "_opened_by_processes", None)
    assert len(list(open_batches(numbers(), [range(i, i + 2) for i in range(0, 20, 2)]))) == 10


def test_without_forks_closures_are_opened_here(monkeypatch):
    monkeypatch.setattr(workers, "FORK", False)
    with pytest.warns(UserWarning, match="opened in this process: other ones can't get them"):
        opened = list(open_batches(numbers(), BATCHES, workers=2))
    assert [row for _, batch, _ in opened for row in batch] == [row for rows in BATCHES for row in rows]


@pytest.mark.slow
def test_without_forks_processes_get_what_can_be_sent(monkeypatch):
    monkeypatch.setattr(workers, "FORK", False)
    items = [(str(i), os.getpid) for i in range(4)]
    (_, opened, _), = open_batches(items, [range(4)], workers=1)
    assert len(set(opened)) == 1 and opened[0] != os.getpid()


@forks
def test_a_worker_of_somebody_else_opens_by_itself():
    """A daemonic process may have no children."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(
        target=lambda: queue.put(list(open_batches(numbers(4), [range(4)], workers=2))), daemon=True)
    process.start()
    assert queue.get(timeout=30)[0][1] == [0, 1, 2, 3]
    process.join()


@forks
@pytest.mark.slow
def test_in_a_notebook(tmp_path):
    """A kernel has threads of its own, and its functions belong to no file."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        "from impart_utils.sources.features import encode_to_cache\n"
        "items = [(str(i), lambda i=i: [i, i]) for i in range(3000)]\n"
        "features, _, _ = encode_to_cache(lambda rows: rows, items, 'cache', key='k', workers=2)\n"
        "print(features.shape, (features == [[i, i] for i in range(3000)]).all())")])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "(3000, 2) True" in "".join(output.get("text", "") for output in notebook.cells[0].outputs)


# ---- Two functions at a time


def test_side_by_side_is_a_list_in_order_two_at_a_time():
    both = threading.Barrier(2, timeout=30)  # a single thread would wait here until it breaks

    def square(number):
        both.wait()
        return number ** 2

    assert side_by_side(square, iter(range(6))) == [0, 1, 4, 9, 16, 25]
    assert side_by_side(square, []) == []


def test_side_by_side_computes_in_one_thread_each_and_gives_the_threads_back():
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads(_=None):
        return {pool["num_threads"] for pool in threadpool_info()}

    with threadpool_limits(2):
        assert side_by_side(threads, range(3)) == [{1}] * 3
        assert threads() == {2}


def test_a_fault_in_one_is_everyones():
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda number: 1 / number, [2, 0, 1])
