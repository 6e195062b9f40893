"""Says how far a sweep is; it may be running elsewhere.

python -m launch.status --workdir=sweeps/digits
"""

from absl import flags

from launch import command, display, experiment
from noisegen import sweeps

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep.", required=True)


def main(argv: list[str]) -> None:
    """Prints the state of the sweep in --workdir."""
    command.no_arguments(argv)
    plan = experiment.load_from_workdir(_WORKDIR.value)
    task_name = sweeps.read_sweep(_WORKDIR.value)["task"]
    records = sweeps.read(_WORKDIR.value, curves=False)
    runs = plan.runs + sweeps.extension(records, plan.protocol, plan.runs)
    wanted = sweeps.plan(task_name, runs)
    shown = display.Display(
        plan.protocol,
        dict.fromkeys(wanted, 0),
        [record for record in records if record["run_id"] in wanted],
    )
    print("\n".join(shown.lines()))
    if records:
        last = max(record["finished_at"] for record in records)
        print(f"Last record: {last}")


if __name__ == "__main__":
    command.run(main)
