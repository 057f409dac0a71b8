#!/bin/bash
# One stage of a run as an array of PBS: its index (PBS_ARRAY_INDEX) is the task's. On a login node that sees the run's folder:
#
#   cokv cluster prepare --config run.toml --tasks 32        # prints the stages with the number of their tasks
#   fetch=$(qsub -v RUN=$PWD/runs/run,STAGE=fetch configs/clusters/pbs.sh)
#   qsub -J 0-31%8 -W depend=afterok:$fetch -v RUN=$PWD/runs/run,STAGE=matrix configs/clusters/pbs.sh
#
# and so on, each stage behind the one before. A stage of one task is no array, and is task 0.
# `cokv cluster status RUN` says how it goes; the same array again does what is missing.
#PBS -N cokv
#PBS -l select=1:ncpus=8:ngpus=1:mem=64gb
#PBS -l walltime=02:00:00
#PBS -r y
#PBS -j oe
export PBS_ARRAY_INDEX=${PBS_ARRAY_INDEX:-0}
exec cokv cluster work --run "$RUN" --stage "$STAGE"
