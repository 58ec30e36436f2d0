"""Workers on one study are killed at random for minutes; at the end each trial must be there once, under its own number and point.

Usage: python bench/tune_faults.py [--minutes 5] [--workers 8] [--storage sqlite:////tmp/study.db | --server]; prints a line of what happened, and
exits with 1 where a trial is lost or doubled, or a worker ended by itself. --server: in a PostgreSQL server of its own, which is stopped, shut down or
killed in turn, every half minute for some seconds. The space is so large that two equal points would be one trial handed out twice.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SPACE = {"x": (0.0, 1.0), "y": (1e-6, 1.0), "c": ["a", "b", "c"]}
GRACE = 5.0  # seconds after which an unheard worker is dead


def work(storage):
    from deepseek import tune

    study = tune.Study(SPACE, name="faults", storage=storage, sampler="hybrid", grace=GRACE)
    rng = random.Random(os.getpid())
    while True:
        trial = study.ask()
        time.sleep(rng.expovariate(20))
        trial.report(trial["x"], 1)
        study.tell(trial, trial["x"] + trial["y"])


class Server:
    """A PostgreSQL server in a folder, as user postgres where we are root, which it refuses to run as."""

    def __init__(self, folder):
        programs = [shutil.which("initdb"), *sorted(map(str, pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)]
        program = next((p for p in programs if p), None)
        if program is None:
            sys.exit("no PostgreSQL server is installed (Debian: postgresql)")
        self.folder, self.programs = pathlib.Path(folder), pathlib.Path(program).parent
        self.who = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self.who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        subprocess.run([self.programs / "initdb", "-D", self.folder / "data", "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/", **self.who)
        self.start()

    url = property(lambda self: f"postgresql://tester@127.0.0.1:{self.port}/postgres")

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", str(self.folder)],
                                            stdout=log, stderr=log, cwd="/", **self.who)

    def stop(self, how):
        self.process.send_signal(how)
        self.process.wait()

    def restart(self, ended, counts):
        """Until `ended` is set: with a crash, with connections cut, or killed."""
        for how in (signal.SIGQUIT, signal.SIGINT, signal.SIGKILL) * 1000:
            if ended.wait(25):
                return
            self.stop(how)
            ended.wait(3)
            if how == signal.SIGKILL:
                time.sleep(2)  # its children notice, and end
            self.start()
            counts.append(how.name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--storage", help="a study's URL; by default SQLite in a temporary folder")
    parser.add_argument("--server", action="store_true", help="in a PostgreSQL server of its own, which is restarted")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.storage)
    from deepseek import tune

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        storage, restarts, ended = args.storage or f"sqlite:///{folder}/study.db", [], threading.Event()
        if args.server:
            server = Server(folder)
            stack.callback(server.stop, signal.SIGQUIT)
            storage = server.url
            restarting = threading.Thread(target=server.restart, args=(ended, restarts))
            restarting.start()
            stack.callback(restarting.join)
            stack.callback(ended.set)
        command = [sys.executable, str(pathlib.Path(__file__).resolve()), "--work", "--storage", storage]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}

        log = stack.enter_context(open(f"{folder}/workers.log", "ab+"))

        def start():
            return subprocess.Popen(command, env=environment, stderr=log)

        rng, kills, died = random.Random(0), 0, 0
        workers = [start() for _ in range(args.workers)]
        end = time.monotonic() + 60 * args.minutes
        try:
            while time.monotonic() < end:
                time.sleep(rng.uniform(0.2, 0.8))
                died += sum(w.poll() is not None for w in workers)  # a worker that ended by itself has met an error
                victim = workers[rng.randrange(len(workers))]
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                kills += 1
                workers = [w if w.poll() is None else start() for w in workers]
        finally:
            died += sum(w.poll() is not None for w in workers)
            for worker in workers:
                worker.kill()
                worker.wait()
        ended.set()
        # One more finishes what was left, and nothing else.
        time.sleep(GRACE)
        study = tune.Study(SPACE, name="faults", storage=storage, sampler="hybrid", grace=GRACE)
        count = len(study.trials)
        while any(t.state not in ("complete", "failed") for t in study.trials[:count]):
            trial = study.ask()
            trial.report(trial["x"], 1)
            study.tell(trial, trial["x"] + trial["y"])
        trials = study.trials[:count]
        states = collections.Counter(t.state for t in trials)
        numbers = [t.number for t in trials] == list(range(count))
        points = len({json.dumps(t.params) for t in trials})
        values = all(t.values == [t.params["x"] + t.params["y"]] and t.reports == [(1, t.params["x"])] for t in trials if t.state == "complete")
        print(f"{args.minutes} minutes, {args.workers} workers, {kills} killed, {died} ended by an error, {len(restarts)} restarts of the server: {count} trials, {dict(states)}, "
              f"numbers {'without a gap' if numbers else 'WRONG'}, {points} different points, values {'right' if values else 'WRONG'}")
        if died:
            log.seek(0)
            print(*log.read().decode().splitlines()[-30:], sep="\n")
        return 0 if numbers and values and points == count and died == 0 and states["complete"] + states["failed"] == count else 1


if __name__ == "__main__":
    sys.exit(main())
