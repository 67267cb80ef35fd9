#!/bin/bash
# A sweep inside a SLURM allocation, in an environment with requirements.lock on a disk that all nodes see:
#
#     sbatch cluster/slurm.sh sweeps/compare.yaml --set data.root=/scratch/cityscapes --set storage=/scratch/$USER/runs
#
# The same command continues the sweep; a job that is pre-empted or reaches its time limit does so by itself (--requeue).
# The first node also holds Ray's head and the sweep itself, beside its own trials.
#SBATCH --job-name=segbench
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail
umask 077 # the token and the logs are nobody else's

# a port of our own, since others may have a Ray on these nodes; the secret is read from the file, never passed as text
port=$((20000 + SLURM_JOB_ID % 20000))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --overlap --nodes=1 --ntasks=1 -w "$head" hostname -i | awk '{print $1}')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$PWD/.segbench-token-$SLURM_JOB_ID
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=4
export OMP_NUM_THREADS=1
python -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH"
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

# the head, without cores for trials
srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --block --node-ip-address="$address" --port=$port --num-cpus=0 --num-gpus=0 \
  --object-store-memory=100000000 --include-dashboard=false --temp-dir="/tmp/segbench-$SLURM_JOB_ID" &
sleep 10

# a worker on every node
srun --overlap ray start --block --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" \
  --object-store-memory=100000000 &

# SLURM's signal reaches this script two minutes before the end; the sweep stops in good order and the job is queued again
python -m segbench.sweep "$@" --address "$address:$port" --min-nodes "$SLURM_JOB_NUM_NODES" &
sweep=$!
again() {
  kill -TERM $sweep
  wait $sweep || true
  scontrol requeue "$SLURM_JOB_ID"
}
trap again TERM
wait $sweep
