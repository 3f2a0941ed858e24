"""k-centre of many embeddings: ours against the plain loop in numpy; the same centres, or it ends.

    python benchmarks/k_centre.py --points 100000 --width 384 --centres 1000

The peer is what scikit-learn-style code does for each centre: `|x|^2 + |c|^2 - 2 x.c` over all
points by one matrix-vector product, the running minimum, the farthest point next, in float64, as
scikit-learn computes it for float32 points: in float32 alone near ties are decided by rounding.
"""

import duel


def points_of(task: dict):
    """Clusters of unequal size and spread, as embeddings of texts are; the same on both sides."""
    import numpy as np

    random = np.random.default_rng(0)
    centres = random.normal(size=(200, task["width"])).astype(np.float32)
    which = np.minimum(random.geometric(0.02, task["points"]), 200) - 1
    noise = random.normal(size=(task["points"], task["width"])).astype(np.float32)
    points = centres[which] + noise * random.uniform(0.2, 0.8, (task["points"], 1))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def ours(task: dict) -> dict:
    from hen_jax.methods.k_centre import k_centre

    points, found = points_of(task), []

    def run() -> None:  # with what it compiles
        found.append(k_centre(points, task["centres"]))

    return duel.timed(run, task["repeats"]) | {"centres": found[-1].tolist()}


def theirs(task: dict) -> dict:
    import numpy as np

    points, found = points_of(task).astype(np.float64), []

    def run() -> None:
        squares, chosen = (points * points).sum(axis=1), [0]
        nearest = np.full(len(points), np.inf)
        while True:
            last = chosen[-1]
            away = squares + squares[last] - 2 * (points @ points[last])
            np.minimum(nearest, away, out=nearest)
            if len(chosen) == task["centres"]:
                break
            chosen.append(int(nearest.argmax()))
        found.append(chosen)

    return duel.timed(run, task["repeats"]) | {"centres": found[-1]}


def compare() -> None:
    parser = duel.arguments(__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--centres", type=int, default=1000)
    options = parser.parse_args()
    given = ("points", "width", "centres")
    task = {name: vars(options)[name] for name in given} | {"repeats": 1}
    runs = duel.meet({name: duel.Side(name, task) for name in ("ours", "theirs")}, options.rounds)
    first, second = (runs[name][0].pop("centres") for name in ("ours", "theirs"))
    for run in (*runs["ours"][1:], *runs["theirs"][1:]):
        run.pop("centres")
    if first != second:
        at = next(
            at for at, pair in enumerate(zip(first, second, strict=True)) if len(set(pair)) > 1
        )
        raise SystemExit(f"the centres differ from number {at} on: {first[at]} and {second[at]}")
    duel.report(runs, "theirs", options.out)


if __name__ == "__main__":
    duel.main(compare, ours, theirs)
