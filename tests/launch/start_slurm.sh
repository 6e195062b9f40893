#!/usr/bin/env bash
# A real Slurm on this host alone, for tests: munged, slurmctld and NODES slurmd's of one core each.
#
#   start_slurm.sh DIR [NODES]    starts it; then: export SLURM_CONF=DIR/slurm.conf
#   DIR/stop                      ends it
#
# Needs Debian's packages slurm-wlm and munge. All that it writes lies in DIR, its ports are free
# ones, so several may run side by side. Jobs of the partition `urgent` preempt those of `main`.
set -euo pipefail

dir=$(mkdir -p "$1" && cd "$1" && pwd)
nodes=${2:-2}
host=$(hostname -s)
user=$(id -un)
PATH=$PATH:/usr/sbin:/sbin
for program in munged slurmctld slurmd sinfo; do
  command -v $program >/dev/null || { echo "no $program: install slurm-wlm and munge" >&2; exit 3; }
done
mkdir -p "$dir"/{state,log,spool}

# Ends what was started, by process id, the daemons of the nodes last: they end the jobs.
cat >"$dir/stop" <<STOP
#!/usr/bin/env bash
export SLURM_CONF=$dir/slurm.conf PATH=$PATH
scancel --signal=KILL --full --user=$user 2>/dev/null
scancel --user=$user 2>/dev/null
for _ in \$(seq 50); do [ -z "\$(squeue --noheader 2>/dev/null)" ] && break; sleep 0.1; done
for file in $dir/*.pid; do kill "\$(cat "\$file")" 2>/dev/null; done
for file in $dir/*.pid; do
  for _ in \$(seq 50); do kill -0 "\$(cat "\$file" 2>/dev/null)" 2>/dev/null || break; sleep 0.1; done
  [ -s "\$file" ] && kill -KILL "\$(cat "\$file")" 2>/dev/null
done
exit 0
STOP
chmod +x "$dir/stop"
trap 'status=$?; [ $status = 0 ] || { tail -n 5 "$dir"/log/* >&2; "$dir/stop"; }; exit $status' EXIT

read -r -a ports < <(python3 - "$((nodes + 1))" <<'PYTHON'
import socket, sys

sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))
PYTHON
)

cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$user
SlurmdUser=$user
CommunicationParameters=NoInAddrAny
AuthType=auth/munge
# A requeued job waits until its credential has expired, two minutes by default and five seconds at least.
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
$(for i in $(seq "$nodes"); do
  echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[$i]} CPUs=1 RealMemory=4000"
done)
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=off
CONF
export SLURM_CONF=$dir/slurm.conf

(umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
munged --force --socket="$dir/munge.socket" --key-file="$dir/munge.key" \
  --pid-file="$dir/munged.pid" --log-file="$dir/log/munged" --seed-file="$dir/munge.seed" \
  --num-threads=2 2>"$dir/log/munged.start"
slurmctld
for i in $(seq "$nodes"); do slurmd -N "n$i"; done

idle() { [ "$(sinfo --noheader --Node --partition=main --format=%t 2>/dev/null | grep -c '^idle$')" = "$nodes" ]; }
for _ in $(seq 300); do idle && exit 0; sleep 0.1; done
echo "the nodes are not ready after 30 seconds" >&2
exit 1
