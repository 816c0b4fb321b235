#!/usr/bin/env bash
# A SLURM of one node in a folder, on loopback, from Debian's packages with nothing installed.
#   slurm_one_node.sh DIR start | stop       then: . DIR/env; sbatch --gpus-per-node=0 ...
set -euo pipefail
folder=$1 root=$1/root host=$(hostname -s) packages=$1/packages
libraries=$root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo "$(uname -m)-linux-gnu")
if [[ $2 == stop ]]; then
  kill "$(cat "$folder/slurmd.pid")" "$(cat "$folder/slurmctld.pid")"
  exit
fi
mkdir -p "$root" "$packages" "$folder/state" "$folder/spool"
(cd "$packages" && apt-get download -qq slurmctld slurmd slurm-client slurm-wlm-basic-plugins libmunge2 libhwloc15)
for package in "$packages"/*.deb; do dpkg -x "$package" "$root"; done
cat > "$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
PluginDir=$libraries/slurm-wlm
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.file
SlurmdPidFile=$folder/slurmd.file
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
cat > "$folder/env" <<ENV
export SLURM_CONF=$folder/slurm.conf LD_LIBRARY_PATH=$libraries:$libraries/slurm-wlm PATH=$root/usr/bin:\$PATH
ENV
# shellcheck disable=SC1091
. "$folder/env"
"$root/usr/sbin/slurmctld-wlm" -D > "$folder/slurmctld.out" 2>&1 &
echo $! > "$folder/slurmctld.pid"
sleep 2
"$root/usr/sbin/slurmd-wlm" -D -d "$root/usr/sbin/slurmstepd-wlm" > "$folder/slurmd.out" 2>&1 &
echo $! > "$folder/slurmd.pid"
for ((second = 0; second < 30; second++)); do
  [[ $(sinfo -h -o %T 2>/dev/null) != idle ]] || exit 0
  sleep 1
done
echo "error: the node is not idle after 30 seconds: see $folder/*.log" >&2
exit 1
