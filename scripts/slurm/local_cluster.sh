#!/usr/bin/env bash
# A real SLURM on one machine, for experiments and tests: two nodes with the cores of this machine, on the loopback
# interface only, with a separate munge key and socket, so that nothing outside its folder is changed. Needs root and
# Debian's packages.
#
#   scripts/slurm/local_cluster.sh up [DIR] [--install]     # then: export SLURM_CONF=DIR/slurm.conf
#   scripts/slurm/local_cluster.sh down [DIR]
#
# By default, DIR is lnsgd-slurm in the system's folder for temporary files. --install installs missing packages.
# There are two partitions, main and high. Jobs of high preempt jobs of main, which get 20 seconds to save their state and
# are queued again.
set -euo pipefail

packages="slurmctld slurmd slurm-client munge"
programs="slurmctld slurmd squeue munged"
nodes=2

die() {
    echo "local_cluster.sh: $*" >&2
    exit 1
}

require_programs() {
    local missing=""
    for program in $programs; do
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    [ -n "$missing" ] || return 0
    [ "$install" = yes ] || die "these programs are missing:$missing; run apt-get install --no-install-recommends $packages"
    apt-get update --quiet >"$dir/install.log" 2>&1 || true # the present lists may be enough
    # shellcheck disable=SC2086  # a list
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends $packages \
        >>"$dir/install.log" 2>&1 || die "the packages cannot be installed; see $dir/install.log"
}

# Return whether a process runs. In a container a process that has ended may stay a zombie forever.
is_alive() {
    local state
    state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) || return 1
    [ -n "$state" ] && [ "${state%% *}" != Z ]
}

write_config() {
    local host memory cores
    host=$(hostname -s)
    cores=$(env -u OMP_NUM_THREADS nproc) # nproc would return OMP_NUM_THREADS
    memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
    cat <<CONF
ClusterName=lnsgd
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A job that is queued again waits until its credential has expired, by default two minutes.
AuthInfo=socket=$dir/run/munge.sock,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_interval=2,defer=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout=30
SwitchType=switch/none
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
CONF
    for node in $(seq "$nodes"); do
        echo "NodeName=n$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((16820 + node)) CPUs=$cores" \
            "Boards=1 SocketsPerBoard=1 CoresPerSocket=$cores ThreadsPerCore=1 RealMemory=$memory State=UNKNOWN"
    done
    local both="Nodes=n[1-$nodes] MaxTime=60 DefaultTime=10 State=UP"
    echo "PartitionName=main $both Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20"
    echo "PartitionName=high $both Default=NO PriorityTier=10 PreemptMode=OFF"
}

up() {
    [ "$(id -u)" = 0 ] || die "root is required"
    mkdir -p "$dir"/{run,log,state}
    for node in $(seq "$nodes"); do
        mkdir -p "$dir/spool/n$node"
    done
    chmod 755 "$dir" "$dir/run"
    chmod 700 "$dir/log"
    require_programs
    if [ -s "$dir/run/slurmctld.pid" ] && is_alive "$(cat "$dir/run/slurmctld.pid")"; then
        die "SLURM is running already; export SLURM_CONF=$SLURM_CONF"
    fi
    trap '[ $? = 0 ] || down' EXIT
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    munged --force --num-threads=2 --key-file="$dir/munge.key" --socket="$dir/run/munge.sock" \
        --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log" --seed-file="$dir/run/munged.seed"
    write_config >"$SLURM_CONF"
    slurmctld -c -f "$SLURM_CONF" # -c: forget earlier jobs
    for node in $(seq "$nodes"); do
        slurmd -N "n$node" -f "$SLURM_CONF"
    done
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --Node --partition=main --states=idle --format=%N 2>/dev/null | wc -l)" = "$nodes" ]; then
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.1
    done
    die "SLURM does not start; see $dir/log"
}

down() {
    if [ -s "$dir/run/slurmctld.pid" ]; then
        timeout 5 scancel --quiet --user="$(id -un)" || true
    fi
    for file in "$dir"/run/slurmd-*.pid "$dir/run/slurmctld.pid" "$dir/run/munged.pid"; do
        [ -s "$file" ] || continue
        stop "$(cat "$file")"
        rm -f "$file"
    done
}

stop() {
    kill -TERM "$1" 2>/dev/null || return 0
    for _ in $(seq 100); do
        is_alive "$1" || return 0
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null || true
}

install=no
arguments=()
for argument in "$@"; do
    if [ "$argument" = --install ]; then
        install=yes
    else
        arguments+=("$argument")
    fi
done
dir=$(realpath -m "${arguments[1]:-${TMPDIR:-/tmp}/lnsgd-slurm}")
export SLURM_CONF=$dir/slurm.conf
case ${arguments[0]:-} in
up) up ;;
down) down ;;
*) die "give up or down, then the folder" ;;
esac
