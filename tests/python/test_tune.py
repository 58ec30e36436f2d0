"""deepseek.tune and BayesianOptimizer: against scikit-learn's Gaussian process, SciPy's Sobol property and closed forms."""

import math
import os
import pathlib
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from deepseek import _tune, tune
from deepseek.optim import BayesianOptimizer

SPACE = {"learning_rate": (1e-5, 1e-2), "batch_size": [32, 64, 128], "dropout": (0.1, 0.5)}


def loss(params):
    return (math.log10(params["learning_rate"]) + 3) ** 2 + abs(params["batch_size"] - 64) / 64 + params["dropout"]


def test_the_call_that_everybody_makes():
    seen = []

    def objective(params):
        assert isinstance(params["learning_rate"], float) and 1e-5 <= params["learning_rate"] <= 1e-2
        assert params["batch_size"] in (32, 64, 128) and isinstance(params["batch_size"], int)
        assert 0.1 <= params["dropout"] <= 0.5
        seen.append(params)
        return loss(params)

    optimizer = BayesianOptimizer(param_space=SPACE, max_evals=50)
    best = optimizer.minimize(objective)
    assert len(seen) == 50
    assert best in seen and loss(best) == min(map(loss, seen)) == optimizer.best_value_
    assert best["batch_size"] == 64 and loss(best) < 0.105  # the least is 0.1


def test_maximize_is_minimize_of_the_negative():
    least = BayesianOptimizer(SPACE, 20).minimize(loss)
    most = BayesianOptimizer(SPACE, 20).maximize(lambda p: -loss(p))
    assert least == most


def test_gaussian_process_is_scikit_learns():
    gaussian_process = pytest.importorskip("sklearn.gaussian_process")
    kernels = gaussian_process.kernels
    rng = np.random.default_rng(0)
    x, y, at = rng.random((30, 3)), rng.normal(size=30), rng.random((9, 3))
    scale, noise, lengths = 1.7, 0.01, np.array([0.3, 1.1, 2.0])
    mean, variance, log_likelihood = _tune.gaussian_process(
        x.tolist(), y.tolist(), [False] * 3, (-2 * np.log(lengths)).tolist(), math.log(scale), math.log(noise), at.tolist())
    kernel = kernels.ConstantKernel(scale) * kernels.Matern(lengths, nu=2.5)
    # A constant mean with variance 1, as ours has, is a constant kernel's.
    whole = gaussian_process.GaussianProcessRegressor(kernel + kernels.ConstantKernel(1.0), alpha=noise, optimizer=None).fit(x, y)
    np.testing.assert_allclose(mean, whole.predict(at), rtol=1e-6, atol=1e-7)
    plain = gaussian_process.GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(x, y)
    np.testing.assert_allclose(np.sqrt(variance), plain.predict(at, return_std=True)[1], rtol=1e-6)
    assert np.isfinite(log_likelihood)


def test_types_of_parameters():
    marker = object()
    space = tune.Space({"a": (1, 8), "b": (1, 1000), "c": tune.uniform(0, 1, step=0.25), "d": tune.log(1e-3, 1.0), "e": tune.integer(2, 10, step=4),
                        "f": [marker, len, "x"], "g": np.array([1, 2, 4]), "h": True})
    points = [space.params(space._space.from_unit(list(u))) for u in np.random.default_rng(0).random((300, 8))]
    assert {p["a"] for p in points} == set(range(1, 9))
    assert {p["c"] for p in points} == {0, 0.25, 0.5, 0.75, 1}
    assert {p["e"] for p in points} == {2, 6, 10}
    assert {id(p["f"]) for p in points} == {id(marker), id(len), id("x")}
    assert all(p["h"] is True for p in points)
    assert np.median([p["b"] for p in points]) < 60 and np.median([p["d"] for p in points]) < 0.06  # logarithmic
    for p in points:
        assert space.params(space.point(p)) == p


def test_conditional_parameters():
    study = tune.Study({"kind": ["sgd", "adam"], "momentum": tune.uniform(0, 1).when(kind="sgd"), "beta": tune.uniform(0, 1).when(kind=["adam"])})
    for _ in range(30):
        trial = study.ask()
        assert set(trial.params) == ({"kind", "momentum"} if trial["kind"] == "sgd" else {"kind", "beta"})
        study.tell(trial, trial.params.get("momentum", 0.5))
    assert study.best_params["kind"] == "sgd"


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="'a'.*low <= high"):
        tune.Study({"a": (2.0, 1.0)})
    with pytest.raises(ValueError, match="a list is a choice"):
        tune.Study({"a": (1, 2, 3)})
    with pytest.raises(ValueError, match="did you mean 'hybrid'"):
        tune.Study({"a": (1, 2)}, sampler="hybird")
    with pytest.raises(ValueError, match="minimize or maximize"):
        tune.Study({"a": (1, 2)}, direction="up")
    with pytest.raises(ValueError, match="max_evals"):
        BayesianOptimizer(SPACE, 0)
    study = tune.Study({"a": (1, 2)})
    with pytest.raises(ValueError, match="unknown parameter"):
        study.enqueue({"b": 1})
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(ValueError, match="has ended before"):
        study.tell(trial, 1.0)


def test_failures_pruning_and_exceptions():
    study = tune.Study({"x": (0.0, 1.0)}, pruner="median(startup_trials=3)")

    def objective(trial):
        if trial.number == 2:
            raise tune.FailedTrial("no such thing")
        if trial.number == 4:
            return float("nan")
        for step in range(3):
            trial.report(trial["x"] + (10 if trial.number > 8 else 0), step)
            if trial.should_prune():
                raise tune.PrunedTrial
        return trial["x"]

    study.optimize(objective, 12)
    states = [t.state for t in study.trials]
    assert states[2] == states[4] == "failed" and "no such thing" in study.trials[2].error
    assert states[9:] == ["pruned"] * 3 and states[:2] == ["complete"] * 2  # in between the median decides
    with pytest.raises(ZeroDivisionError):
        study.optimize(lambda trial: 1 / 0, 5)
    assert study.trials[-1].state == "failed" and "ZeroDivisionError" in study.trials[-1].error and len(study.trials) == 13
    study.optimize(lambda trial: 1 / 0, 2, catch=(ZeroDivisionError,))
    assert len(study.trials) == 15


def test_several_objectives_and_constraints():
    optimizer = BayesianOptimizer({"a": (0.0, 1.0), "b": (0.0, 1.0)}, 40, objectives=2, constraints=lambda p: p["a"] + p["b"] < 1.2)
    front = optimizer.minimize(lambda p: {"values": [p["a"], (1 - p["a"]) ** 2 + p["b"]], "constraints": [0.2 - p["a"]]})
    assert len(front) > 3 and all(p["a"] >= 0.2 and p["a"] + p["b"] < 1.2 for p in front)


def test_a_search_goes_on_where_it_was(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    whole = tune.Study(SPACE, seed=3)
    whole.optimize(lambda t: loss(t.params), 24)
    for _ in range(4):  # each time a new connection, as another process has
        tune.Study(SPACE, seed=3, storage=url).optimize(lambda t: loss(t.params), 6)
    again = tune.Study(SPACE, seed=3, storage=url)
    assert [t.params for t in again.trials] == [t.params for t in whole.trials]
    assert [t.values for t in again.trials] == [t.values for t in whole.trials]


def test_studies_of_a_database(tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    first = tune.Study({"x": (0.0, 1.0)}, storage=url, name="first", max_trials=2, direction="maximize")
    first.optimize(lambda t: t["x"])
    assert len(first.trials) == 2
    more = tune.Study({"x": (0.0, 1.0)}, storage=url, name="first", max_trials=3, direction="maximize")
    more.optimize(lambda t: t["x"])
    assert len(first.trials) == 3  # budgets are the caller's
    with pytest.raises(ValueError, match="has another space"):
        tune.Study({"y": (0.0, 1.0)}, storage=url, name="first", direction="maximize")
    with pytest.raises(ValueError, match="other directions"):
        tune.Study({"x": (0.0, 1.0)}, storage=url, name="first")
    tune.Study({"y": ["a", "b"]}, storage=url, name="second")
    assert [(s.name, s.trials, s.finished) for s in tune.list_studies(url)] == [("first", 3, 3), ("second", 0, 0)]
    again = tune.Study.load(url, "first")
    assert again.best_value == first.best_value and again.directions == ["maximize"]
    with pytest.raises(FileNotFoundError, match="first"):
        tune.Study.load(url, "firts")
    tune.delete_study(url, "second")
    assert [s.name for s in tune.list_studies(url)] == ["first"]


WORKER = """
import sys, time
from deepseek import tune
study = tune.Study({"x": (0.0, 1.0), "c": ["a", "b"]}, storage=sys.argv[1], max_trials=int(sys.argv[2]), grace=1.0, sampler=sys.argv[3])
while (trial := study.ask()) is not None:
    time.sleep(0.02)
    study.tell(trial, trial["x"])
"""


def test_killed_workers_lose_nothing(tmp_path):
    url, trials = f"sqlite:///{tmp_path}/study.db", 60
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start():
        return subprocess.Popen([sys.executable, "-c", WORKER, url, str(trials), "hybrid"], env=environment)

    workers = [start() for _ in range(4)]
    rng = np.random.default_rng(0)
    for _ in range(6):
        time.sleep(0.5)
        victim = workers.pop(int(rng.integers(len(workers))))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        workers.append(start())
    for worker in workers:
        assert worker.wait(60) == 0
    start().wait(60)  # takes over what a killed one left at the very end
    study = tune.Study({"x": (0.0, 1.0), "c": ["a", "b"]}, storage=url, max_trials=trials)
    done = study.trials
    while any(t.state == "running" for t in done):
        time.sleep(1.1)
        start().wait(60)
        done = study.trials
    assert [t.number for t in done] == list(range(trials))
    assert all(t.state in ("complete", "failed") for t in done) and sum(t.state == "complete" for t in done) >= trials - 2
    assert len({(t.params["x"], t.params["c"]) for t in done}) == trials


def test_optimizer_keeps_its_study_in_a_database(tmp_path):
    from deepseek import optim

    def make():
        return BayesianOptimizer({"x": optim.log(1e-3, 1.0), "n": optim.integer(1, 3)}, max_evals=12, storage=f"sqlite:///{tmp_path}/s.db")

    best = make().maximize(lambda p: p["x"] * p["n"])
    assert make().maximize(lambda p: pytest.fail("all were evaluated")) == best
    with pytest.raises(ValueError, match="other directions"):
        make().minimize(lambda p: p["x"])


def test_ends_of_trials_that_are_not_their_own_fault():
    study = tune.Study({"x": (0.0, 1.0)})

    def interrupted(trial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.optimize(interrupted, 1)
    assert study.trials[0].state == "waiting"

    def ended_elsewhere(trial):
        study.tell(trial.number, 0.5)
        return 1.0

    with pytest.warns(UserWarning, match="trial 0 was taken over"):
        study.optimize(ended_elsewhere, 1)
    assert study.trials[0].values == [0.5]
    with pytest.raises(ValueError, match="returned None"):
        study.optimize(lambda trial: None, 1)
    study.add_trial({"x": 0.5}, math.nan, note={"of": 1})
    study.add_trial({"x": 0.6}, [], state="failed", error="no memory")
    assert [(t.state, t.error, t.note) for t in study.trials[2:]] == [("failed", "the objective was nan", {"of": 1}), ("failed", "no memory", None)]


def test_report_and_importances(tmp_path):
    study = tune.Study({"x": (0.0, 1.0), "y": (0.0, 1.0), "<b>": ["p", "q"]}, sampler="random")
    study.optimize(lambda t: 4 * t["x"] + t["y"], 150)
    shares = study.importances()
    assert list(shares)[0] == "x" and abs(sum(shares.values()) - 1) < 1e-9
    assert abs(shares["x"] - 16 / 17) < 0.05  # of independent uniforms, by the squares of the factors
    study.write_report(tmp_path / "report.html", "a & b")
    page = (tmp_path / "report.html").read_text()
    assert "a &amp; b" in page and "&lt;b&gt;" in page and "<b>\"" not in page and "http://" not in page.replace("http://www.w3.org", "")
    files = study.write_charts(tmp_path / "charts")
    assert files and all(open(f, "rb").read(8) == b"\x89PNG\r\n\x1a\n" for f in files)
    with pytest.raises(ValueError, match="at least 4 complete trials"):
        tune.Study({"x": (0.0, 1.0)}).importances()


def test_fanova_is_optunas():
    optuna = pytest.importorskip("optuna")
    study = tune.Study({"x": (0.0, 1.0), "y": (0.0, 1.0), "z": (0.0, 1.0)}, sampler="random")
    study.optimize(lambda t: 3 * t["x"] + 2 * t["y"] ** 2 + t["z"] * t["x"], 200)
    theirs = optuna.importance.get_param_importances(study.to_optuna(), evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))
    ours = study.importances()
    assert list(ours) == list(theirs)
    for name, share in theirs.items():
        assert abs(ours[name] - share) < 0.08, (name, ours, theirs)


def test_threads_share_a_study():
    study = tune.Study({"x": (0.0, 1.0)})
    study.optimize(lambda trial: time.sleep(0.005) or trial["x"], 40, workers=4)
    assert sorted(t.number for t in study.trials) == list(range(40)) and all(t.state == "complete" for t in study.trials)


def test_command_tunes_runs(tmp_path):
    program = pathlib.Path(_tune.__file__).resolve().parents[2] / "deepseek"
    data = tmp_path / "data"
    for name, value in (("dark", 30), ("light", 220)):
        (data / name).mkdir(parents=True)
        for i in range(12):
            from PIL import Image

            Image.fromarray(np.full((8, 8), value + i, np.uint8)).save(data / name / f"{i}.png")
    config = tmp_path / "run.yaml"
    config.write_text(f"""
data: {{name: image-folder, folder: {data}, size: 8}}
model: {{name: mlp}}
train: {{epochs: 4, batch_size: 4, threads: 1}}
tune:
  parameters:
    optimizer.learning_rate: {{low: 1e-4, high: 0.1}}
    train.batch_size: [2, 4]
  trials: 5
  pruner: asha(min_step=1, factor=2)
  output: {tmp_path}/tuned
""")

    def run(*arguments):
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)

    first = run("tune", str(config))
    assert first.returncode == 0, first.stderr
    assert "all 5 trials" in first.stdout and (tmp_path / "tuned" / "best.yaml").exists()
    assert (tmp_path / "tuned" / "trial-0000" / "history.csv").exists()
    assert "tuned" in run("tune", "list", f"{tmp_path}/tuned").stdout
    report = run("tune", "report", f"{tmp_path}/tuned", "--png", f"{tmp_path}/charts")
    assert report.returncode == 0 and (tmp_path / "tuned" / "report.html").exists(), report.stderr
    assert list((tmp_path / "charts").glob("*.png"))
    more = run("tune", str(config), "--set", "tune.trials=7", "--workers", "2")
    assert more.returncode == 0 and more.stdout.count("all 7 trials") == more.stdout.count("train it") == 1, more.stdout + more.stderr
    assert more.stdout.index("all 7 trials") < more.stdout.index("complete") < more.stdout.index("train it")
    trials = tune.Study.load(f"sqlite:///{tmp_path}/tuned/study.db", "tuned").trials
    assert {t.state for t in trials} <= {"complete", "paused"} and any(t.state == "complete" for t in trials)
    for t in trials:  # what was paused and went on did so from its checkpoint: each epoch once
        epochs = [step for step, _ in t.reports]
        assert epochs == sorted(set(epochs)) and (len(epochs) == 4 or t.state == "paused"), epochs
        rows = (tmp_path / "tuned" / f"trial-{t.number:04}" / "history.csv").read_text().splitlines()
        assert len(rows) == 1 + len(epochs)
    best = run("train", str(tmp_path / "tuned" / "best.yaml"), "--set", "train.epochs=1")
    assert best.returncode == 0, best.stderr
    untuned = run("train", str(config), "--set", "train.epochs=1", "--set", f"train.output={tmp_path}/untuned")
    assert untuned.returncode == 0, untuned.stderr
    wrong = config.read_text().replace("optimizer.learning_rate", "optimizer.learning_rat")
    config.write_text(wrong)
    failed = run("tune", str(config), "--set", f"tune.output={tmp_path}/other")
    assert failed.returncode == 2 and "did you mean 'optimizer.learning_rate'" in failed.stderr
    assert not (tmp_path / "other").exists()


def test_a_loaded_study_takes_other_settings(tmp_path):
    storage = f"sqlite:///{tmp_path}/s.db"
    tune.Study({"x": (0.0, 1.0)}, storage=storage, max_trials=5).optimize(lambda trial: trial["x"])
    assert tune.Study.load(storage).ask() is None
    study = tune.Study.load(storage, max_trials=12, sampler="random", constraints=lambda p: p["x"] > 0.8)
    study.optimize(lambda trial: trial["x"])
    assert len(study.trials) == 12 and all(t.params["x"] > 0.8 for t in study.trials[5:])
    with pytest.raises(TypeError, match="max_trial"):
        tune.Study.load(storage, max_trial=3)


@pytest.mark.parametrize("workers", [1, 3])
def test_stop_begins_no_further_trial(workers):
    study = tune.Study({"x": (0.0, 1.0)}, sampler="random")
    ended = []

    def callback(trial):
        ended.append(trial)
        if len(ended) >= 4:
            study.stop()

    study.optimize(lambda trial: trial["x"], 100, workers=workers, callback=callback)
    assert 4 <= len(study.trials) <= 3 + workers and {t.state for t in study.trials} == {"complete"}
    assert sorted(t.number for t in ended) == [t.number for t in study.trials] and all(t.value == t.params["x"] for t in ended)
    study.optimize(lambda trial: trial["x"], 2)  # goes on
    assert len(study.trials) == len(ended) + 2


def test_constraints_and_callbacks_from_many_threads():
    """Both need the interpreter's lock while another thread has the study's."""
    study = tune.Study({"x": (0.0, 1.0), "y": (0.0, 1.0)}, constraints=lambda p: p["x"] + p["y"] < 1.2, sampler="random", max_trials=200)
    study.optimize(lambda trial: trial["x"], workers=4, callback=lambda trial: len(study.trials))
    assert len(study.trials) == 200 and all(t.params["x"] + t.params["y"] < 1.2 for t in study.trials)


def test_paused_objectives_go_on_where_they_were():
    study = tune.Study({"x": (0.0, 1.0)}, sampler="random", pruner="asha(min_step=1, factor=3)", max_trials=27)
    saved, computed = {}, []

    def objective(trial):
        assert [step for step, _ in trial.reports] == list(range(1, saved.get(trial.number, 0) + 1))
        for step in range(saved.get(trial.number, 0) + 1, 10):
            computed.append((trial.number, step))
            saved[trial.number] = step
            trial.report(trial["x"] + 1 / step, step)
            if trial.should_prune():
                raise tune.PausedTrial
        return trial["x"]

    study.optimize(objective)
    trials = study.trials
    assert len(trials) == 27 and {t.state for t in trials} == {"complete", "paused"}
    assert len(set(computed)) == len(computed) < 27 * 5  # no step twice, and most trials went no further than the first rung
    # Some were taken up again after others had run.
    assert any((n, step + 1) in computed and computed[k + 1] != (n, step + 1) for k, (n, step) in enumerate(computed))


def test_pausing_is_pruning_where_a_pruner_does_not_resume():
    study = tune.Study({"x": (0.0, 1.0)}, pruner="threshold(high=0)", max_trials=1)

    def objective(trial):
        trial.report(1.0, 1)
        assert trial.should_prune()
        raise tune.PausedTrial

    study.optimize(objective)
    assert study.trials[0].state == "pruned" and study.ask() is None


def test_hypervolume_and_front_by_counting():
    rng = np.random.default_rng(3)
    for objectives in (2, 3):
        losses = rng.random((9, objectives))
        samples = rng.random((200_000, objectives))
        dominated = (losses[None, :, :] <= samples[:, None, :]).all(2).any(1).mean()
        assert tune.hypervolume(losses.tolist(), [1.0] * objectives) == pytest.approx(dominated, abs=5e-3)
        front = [i for i, a in enumerate(losses) if not any((b <= a).all() and (b < a).any() for b in losses)]
        assert sorted(tune.pareto_front(losses.tolist())) == front
    assert tune.hypervolume([[2.0, 2.0]], [1.0, 1.0]) == 0


def test_two_workers_in_order_make_the_trials_of_one(tmp_path):
    """A seed gives the same trials for any worker count where they are evaluated in order."""
    space = {"x": (0.0, 1.0), "y": tune.log(1e-4, 1.0), "c": ["a", "b"]}
    value = lambda p: (p["x"] - 0.3) ** 2 + math.log10(p["y"]) ** 2 / 16 + (p["c"] == "a")  # noqa: E731
    alone = tune.Study(space, seed=5, max_trials=30)
    alone.optimize(lambda trial: value(trial.params))
    storage = f"sqlite:///{tmp_path}/s.db"
    workers = [tune.Study(space, seed=5, max_trials=30, storage=storage) for _ in range(3)]
    for k in range(30):
        worker = workers[k * 7 % 3]
        trial = worker.ask()
        worker.tell(trial, value(trial.params))
    assert [t.params for t in workers[0].trials] == [t.params for t in alone.trials]


def test_ctrl_c_while_a_database_is_waited_for(tmp_path):
    """An answer comes at once, not after the ten minutes for which a server may be away."""
    code = "from deepseek import tune\ntry:\n  tune.Study({'x': (0, 1)}, storage='postgresql://nobody@127.0.0.1:9/none')\nexcept KeyboardInterrupt: print('heard')"
    start = lambda c: subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + c],  # noqa: E731
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waiting = start(code)
    assert "waiting up to" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    assert waiting.communicate(timeout=20)[0] == "heard\n"


def noise(x, y):
    return zlib.crc32(repr((x, y)).encode()) / 2**32


@pytest.mark.parametrize("name, function", [
    ("noise", noise),
    ("a needle in a plain", lambda x, y: 1 - ((x - 0.83) ** 2 + (y - 0.21) ** 2 < 0.008)),  # 2.5 % of the space
    ("a wide bowl beside a narrow deep one", lambda x, y: min(0.3 + 2 * (x - 0.2) ** 2 + 2 * (y - 0.3) ** 2, 40 * ((x - 0.8) ** 2 + (y - 0.8) ** 2))),
    ("bowl under heavy noise", lambda x, y: (x - 0.6) ** 2 + (y - 0.6) ** 2 + 3 * noise(x, y)),
])
def test_the_default_never_loses_to_random_search_by_more_than_noise(name, function):
    def best(sampler, seed):
        study = tune.Study({"x": (0.0, 1.0), "y": (0.0, 1.0)}, sampler=sampler, seed=seed, max_trials=40)
        return study.optimize(lambda trial: function(trial["x"], trial["y"])).best_value

    ours, theirs = (np.array([best(sampler, seed) for seed in range(40 if sampler == "hybrid" else 200)]) for sampler in ("hybrid", "random"))
    assert ours.mean() < theirs.mean() + 2.5 * theirs.std() / math.sqrt(len(ours)), (ours.mean(), theirs.mean(), theirs.std())


def test_progress_is_a_line_for_each_better_trial(capsys):
    optimizer = BayesianOptimizer({"x": (0.0, 1.0)}, 12, sampler="random", progress=True)
    optimizer.maximize(lambda p: p["x"])
    values = [t.value for t in optimizer.study.trials]
    better = [k for k, v in enumerate(values) if v == max(values[:k + 1])]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"trial {k}" for k in better] and len(lines) > 1
    front = BayesianOptimizer({"x": (0.0, 1.0)}, 3, objectives=2, progress=True)
    front.minimize(lambda p: (p["x"], -p["x"]))  # all are on the front
    assert len(capsys.readouterr().err.splitlines()) == 3
