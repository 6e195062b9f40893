"""A Ray cluster of several nodes on the loopback interface: a script, which tests talk to.

It prints the address. For every line of its input, the number of a process, it ends the node on
which this runs as a power cut would, and adds another. When its input ends, so does the cluster.
"""

import os
import sys

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # so that Ray takes 127.0.0.1
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import psutil
from ray import cluster_utils

MEMORY = {"object_store_memory": 80 << 20, "include_dashboard": False}


def main():
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0} | MEMORY)
    nodes = [cluster.add_node(num_cpus=1, **MEMORY) for _ in range(2)]
    print(cluster.address, flush=True)
    try:
        for line in sys.stdin:
            above = {process.pid for process in psutil.Process(int(line)).parents()}
            [lost] = [node for node in nodes if raylet(node) in above]
            cluster.remove_node(lost, allow_graceful=False)
            nodes[nodes.index(lost)] = cluster.add_node(num_cpus=1, **MEMORY)
            print("done", flush=True)
    finally:
        cluster.shutdown()


def raylet(node):
    """Number of the process that starts all others of a node."""
    [found] = node.all_processes["raylet"]
    return found.process.pid


if __name__ == "__main__":
    main()
