"""Work done side by side: items opened ahead of time by other processes, functions by two threads."""

import gc
import math
import multiprocessing
import os
import pickle
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

TRIAL = 3         # batches opened here before it is decided; the first ones are slow for other reasons
WORTH_IT = 2.0    # seconds of opening that are left: below, processes cost more than they bring
MOST_WORKERS = 16
# Elsewhere a new process starts the program anew, which a script must be written for
FORK = sys.platform == "linux"


class Opener:
    """``opener[rows]`` opens and prepares a batch: (names, opened, skipped), see `open_batches`."""

    def __init__(self, items, prepare=None):
        self.items, self.prepare = items, prepare

    def __getitem__(self, rows):
        names, opened, skipped = [], [], {}
        for row in rows:
            name, item = self.items[row]
            try:
                opened.append(self._open(item))
                names.append(str(name))
            except (PermissionError, MemoryError, TimeoutError):
                raise  # not the file's fault: it isn't to be remembered as broken
            except Exception as error:  # whatever a broken file makes its reader raise: keep it as the reason
                skipped[str(name)] = f"{type(error).__name__}: {error}"
        return names, opened, skipped

    def _open(self, item):
        from PIL import Image

        item = item() if callable(item) else item
        if isinstance(item, Image.Image):
            item.load()  # PIL reads a file as late as it can: a broken one is to fail here
        return item if self.prepare is None else self.prepare(item)


class _Packed:
    """An opener whose batches can be sent: what can't be fails here and is told, not somewhere on the way.

    As bytes they also need no shared memory, of which containers have little.
    """

    def __init__(self, opener):
        self.opener = opener

    def __getitem__(self, rows):
        return pickle.dumps(self.opener[rows], protocol=5)


def open_batches(items, batches, *, prepare=None, workers=None):
    """Open items, a batch at a time, in order.

    Parameters
    ----------
    items : sequence of (id, item); an item that is callable is called
    batches : list of ranges of rows
    prepare : function of an opened item, optional; it runs where the item is opened
    workers : int, processes that open ahead of time, at most two batches each; 0: all is done here. None:
        the first batches are opened here, and if there is enough left, so many processes take over as keep
        up with the consumer. On Linux items can be anything (processes are forks), but two of them mustn't
        share an open file. Elsewhere None means 0, and what can't be pickled is opened here.

    Yields
    ------
    names, opened, skipped : list of str, list, dict of id -> reason for what can't be opened

    Raises
    ------
    PermissionError, MemoryError, TimeoutError : not the item's fault, so that it isn't skipped.
    RuntimeError : a process has died.
    """
    opener = Opener(items, prepare)
    if workers is None:
        opening = consuming = 0.0
        for rows in batches[:TRIAL]:
            started = time.perf_counter()
            opened = opener[rows]
            opening = time.perf_counter() - started
            yield opened
            consuming = time.perf_counter() - started - opening
        batches = batches[TRIAL:]
        workers = _useful_workers(opening, consuming, len(batches)) if FORK else 0
    if workers and batches and _can_start(opener):
        yield from _opened_by_processes(opener, batches, workers)
    else:
        yield from map(opener.__getitem__, batches)


def _useful_workers(opening, consuming, left):
    """As many processes as keep up with the consumer, from the seconds that a batch takes either."""
    if opening * left < WORTH_IT:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(math.ceil(1.2 * opening / max(consuming, 1e-6)), cores, MOST_WORKERS)


def _can_start(opener):
    if multiprocessing.current_process().daemon:  # a worker of somebody else's may have none
        return False
    if not FORK:
        try:
            pickle.dumps(opener)
        except Exception as error:  # pickle raises what it likes
            warnings.warn(f"Items are opened in this process: other ones can't get them ({error}).",
                          stacklevel=3)
            return False
    return True


def _opened_by_processes(opener, batches, workers):
    import torch
    from torch.utils.data import DataLoader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores; a fork beside threads, which only wait
        # a generator of its own: DataLoader would draw from the global one
        loader = DataLoader(_Packed(opener), batch_size=None, sampler=batches, num_workers=workers,
                            multiprocessing_context="fork" if FORK else "spawn", generator=torch.Generator())
        # Frozen, what is here is no garbage to a fork: what it cleaned up would be this process's
        gc.freeze()
        try:
            arriving = iter(loader)
        finally:
            gc.unfreeze()
    try:
        for packed in arriving:
            yield pickle.loads(packed)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RuntimeError(f"A process that opens items has died: {error}. Encode with workers=0 to see "
                           "which item it was; what is finished is kept.") from error
    finally:
        arriving._shutdown_workers()  # now, and not when an error's traceback is forgotten


def side_by_side(function, items, *, threads=2):
    """``[function(item) for item in items]``, two at a time, each without further threads of its own.

    For functions of many small products: there the threads of one product wait for one another longer than
    they compute, while two functions don't wait at all, for NumPy lets others go on as it computes.

    Parameters
    ----------
    function : of one item, without randomness but from seeds;  items : iterable
    threads : int, how many at a time
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), ThreadPoolExecutor(threads, initializer=threadpool_limits,
                                                  initargs=(1,)) as pool:  # OpenMP counts for each thread
        return list(pool.map(function, items))
