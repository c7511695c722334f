#!/bin/sh
# A Slurm cluster on this one computer, to try the slurm profile: no accounting, no cgroups, nothing kept.
#
#   apt-get install slurm-wlm munge               # Debian, Ubuntu
#   workflow/slurm_local.sh up                    # as root; all is in build/slurm, but a link in /etc/slurm
#   make reproduce PROFILE=slurm GRID=demo DEVICE=cpu TARGET=runs \
#       ARGS="--set-threads run=1 --slurm-no-account --slurm-status-command squeue"
#   workflow/slurm_local.sh kill slurmd           # the node dies; `up` brings it back
#   workflow/slurm_local.sh down
set -eu

HERE=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)/build/slurm
NODE=$(hostname -s)
CONF=/etc/slurm/slurm.conf # job steps forget the variable SLURM_CONF

# running NAME: is the process in NAME.pid alive, and is it NAME?
running() {
    test -s "$HERE/$1.pid" && test "$(cat "/proc/$(cat "$HERE/$1.pid")/comm" 2>/dev/null)" = "$1"
}

stop() { # NAME SIGNAL
    if running "$1"; then kill "-$2" "$(cat "$HERE/$1.pid")"; fi
    for _ in $(seq 20); do running "$1" || return 0; sleep 1; done
}

ours() { test "$(readlink "$CONF")" = "$HERE/slurm.conf"; }

up() {
    mkdir -p "$HERE/state" "$HERE/spool"
    if test -e "$CONF" && ! ours; then
        echo "error: there is a Slurm here already: $CONF" >&2
        exit 1
    fi
    ln -sf "$HERE/slurm.conf" "$CONF"
    if ! test -s "$HERE/munge.key"; then
        (umask 077; head -c 128 /dev/urandom > "$HERE/munge.key")
    fi
    cat > "$HERE/slurm.conf" <<END
ClusterName=local
SlurmctldHost=$NODE
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$HERE/munge.socket
CryptoType=crypto/munge
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$HERE/slurmctld.pid
SlurmdPidFile=$HERE/slurmd.pid
SlurmctldLogFile=$HERE/slurmctld.log
SlurmdLogFile=$HERE/slurmd.log
StateSaveLocation=$HERE/state
SlurmdSpoolDir=$HERE/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
# A node that comes back is used again; ended jobs stay visible to squeue, which stands in for sacct.
ReturnToService=2
SlurmdTimeout=30
MinJobAge=600
NodeName=$NODE CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
PartitionName=local Nodes=$NODE Default=YES MaxTime=INFINITE State=UP
END
    running munged || munged --force --key-file="$HERE/munge.key" --socket="$HERE/munge.socket" \
        --pid-file="$HERE/munged.pid" --log-file="$HERE/munged.log" --seed-file="$HERE/munged.seed" --num-threads=2
    running slurmctld || slurmctld
    running slurmd || slurmd
    for _ in $(seq 60); do
        if sinfo --noheader --format=%t 2>/dev/null | grep -qE '^(idle|mix|alloc)$'; then sinfo; return; fi
        sleep 1
    done
    echo "error: the node did not come up; see $HERE/slurmd.log and slurmctld.log" >&2
    exit 1
}

case "${1:-}" in
up) up ;;
kill) stop "$2" KILL ;;
down)
    for name in slurmd slurmctld munged; do stop "$name" TERM; done
    if ours; then rm "$CONF"; fi
    ;;
*) echo "usage: $0 up | kill slurmd | down" >&2; exit 2 ;;
esac
