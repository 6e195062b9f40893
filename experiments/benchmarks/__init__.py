"""Benchmarks that one command measures on this machine.

    python -m experiments.benchmarks --out=experiments/results/benchmarks

Each part is a module with `TITLE`, `measure(options) -> record` and `rows(record) -> rows of its
table`:

- `mnist`: runs per hour of a grid, against loops written in PyTorch and in Flax NNX;
- `few_runs`: seconds of the first runs of that grid, against PyTorch;
- `first_record`: seconds from the command to the first record;
- `host_overhead`: share of the time in which the device waits for the host;
- `streaming`: what data on the host cost, against data on the device;
- `image_reading`: JPEG files read, decoded and trained on at 224 pixels, beside grain;
- `many_records`: seconds that 100,000 records take to load, and 100,000 runs to plan;
- `many_workers`: cost of claiming and recording 10,000 tiny runs over 4 workers;
- `devices`: LeNet-5 on two devices against one;
- `interval_coverage`: how often intervals of known truth hold it;
- `race_replay`: full grids of the results, replayed as races;
- `false_sentences`: how often a report finds an effect where there is none;
- `advice`: the largest batch without loss, predicted from short runs, beside full sweeps;

and before all others, if there is an accelerator or `--parts` names them:

- `device_agreement`: whether the accelerator trains as the processor does;
- `wide_resnet`: training images a second of WRN-16-4, by setting, against PyTorch;
- `many_lanes`: a grid of 256 LeNet-5 runs, against one run at a time;
- `wide_resnet_profile`: where WRN-16-4's time goes, kernel by kernel.
"""
