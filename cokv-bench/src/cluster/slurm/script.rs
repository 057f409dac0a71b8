//! The script of a stage, for people to read.

use std::path::Path;

use crate::cluster::error::ClusterError;
use crate::cluster::stages::Stage;
use crate::cluster::submission::{FOLDER, Submission, program};
use crate::cluster::task::AGAIN;

/// What Slurm is asked for, as its own options call it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Slurm's partition; Slurm's own choice where none is named
    #[arg(long)]
    pub partition: Option<String>,
    /// GPUs of each task
    #[arg(long, value_name = "GPUS")]
    pub gpus_per_task: Option<u32>,
    /// Cores of each task
    #[arg(long, value_name = "CORES")]
    pub cpus_per_task: Option<u32>,
    /// Memory of each task, as in 64G; plans of memory obey it
    #[arg(long)]
    pub mem: Option<String>,
    /// Longest time of a task, as in 2:00:00. A task that comes to it finishes its prompt, is requeued and goes on there
    #[arg(long)]
    pub time: Option<String>,
    /// Seconds before the end of its time at which a task is told to stop: longer than one prompt takes
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub grace: u32,
    /// Anything else that sbatch takes, as in account=physics or exclusive; several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub sbatch: Vec<String>,
}

impl Options {
    fn lines(&self, stage: Stage) -> Vec<String> {
        let option = |name: &str, value: Option<String>| value.map(|value| format!("--{name}={value}"));
        // What reads no model needs no GPU.
        let gpus = self.gpus_per_task.filter(|_| stage.duty.computes());
        let mut lines: Vec<String> = [
            option("partition", self.partition.clone()),
            option("gpus-per-task", gpus.map(|count| count.to_string())),
            option("cpus-per-task", self.cpus_per_task.map(|count| count.to_string())),
            option("mem", self.mem.clone()),
            option("time", self.time.clone()),
        ]
        .into_iter()
        .flatten()
        .collect();
        lines.extend(self.sbatch.iter().map(|line| format!("--{}", line.trim_start_matches('-'))));
        lines
    }
}

/// What Slurm is given for a stage of the run in a folder.
///
/// # Errors
/// The program's own file is not known.
pub fn script(run: &Path, submission: &Submission, stage: Stage, options: &Options) -> Result<String, ClusterError> {
    let name = run.file_name().unwrap_or_default().to_string_lossy();
    let at_once = submission.at_once.map_or_else(String::new, |limit| format!("%{limit}"));
    let log = run.join(FOLDER).join("logs").display().to_string().replace('%', "%%");
    let mut lines = vec![
        format!("--job-name=cokv-{name}-{}", stage.duty),
        format!("--array=0-{}{at_once}", stage.tasks - 1),
        "--ntasks=1".into(),
        format!("--chdir=\"{}\"", submission.directory.display()),
        format!("--output=\"{log}/{}-%a.log\"", stage.duty),
        "--open-mode=append".into(),
        "--requeue".into(),
        format!("--signal=B:USR1@{}", options.grace),
    ];
    lines.extend(options.lines(stage));
    let asked: String = lines.iter().map(|line| format!("#SBATCH {line}\n")).collect();
    Ok(format!(
        "#!/bin/bash
# Stage {duty} of {configuration}, written by cokv cluster submit.
# cokv cluster status {shown} says how it goes.
{asked}
# Slurm tells this shell that the time is almost up: the task finishes its prompt, and what is left is requeued.
# What SIGTERM ends is cancelled, or preempted and requeued by Slurm: the task has heard it too.
trap 'again=yes; kill -USR1 \"$task\"' USR1
trap : TERM
{program} cluster work --run {run} --stage {duty} &
task=$!
wait \"$task\"; code=$?
# A signal ends the waiting and not the task.
while kill -0 \"$task\" 2> /dev/null; do wait \"$task\"; code=$?; done
if [ \"$code\" -eq {AGAIN} ] && [ -n \"${{again:-}}\" ]; then scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}\"; fi
exit \"$code\"
",
        duty = stage.duty,
        configuration = submission.configuration.display(),
        shown = quoted(&run.display().to_string()),
        program = quoted(&program()?.display().to_string()),
        run = quoted(&run.display().to_string()),
    ))
}

/// A text as one word of a shell's.
pub fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=@%+,".contains(letter);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::stages::Duty;
    use crate::cluster::submission::Build;

    #[test]
    fn a_script_says_what_it_asks_for_and_runs_one_task() {
        let build = Build { version: String::new(), sha256: String::new(), host: String::new() };
        let stages = vec![Stage { duty: Duty::Matrix, tasks: 16 }, Stage { duty: Duty::Report, tasks: 1 }];
        let submission = Submission {
            configuration: "/home/me/x.toml".into(),
            directory: "/home/me".into(),
            build,
            stages,
            at_once: Some(4),
        };
        let options = Options {
            partition: Some("gpu".into()),
            gpus_per_task: Some(1),
            grace: 90,
            sbatch: vec!["account=physics".into()],
            ..Options::default()
        };
        let of =
            |at: usize| script(Path::new("/home/me/my runs/x"), &submission, submission.stages[at], &options).unwrap();
        let matrix = of(0);
        for line in [
            "#SBATCH --array=0-15%4",
            "#SBATCH --partition=gpu",
            "#SBATCH --gpus-per-task=1",
            "#SBATCH --account=physics",
            "#SBATCH --requeue",
            "#SBATCH --signal=B:USR1@90",
            "#SBATCH --output=\"/home/me/my runs/x/cluster/logs/matrix-%a.log\"",
        ] {
            assert!(matrix.lines().any(|other| other == line), "{line}: {matrix}");
        }
        assert!(matrix.contains(" cluster work --run '/home/me/my runs/x' --stage matrix &"), "{matrix}");
        assert!(!of(1).contains("gpus") && of(1).contains("--array=0-0%4"), "a report computes nothing");
    }

    #[test]
    fn what_is_no_plain_word_is_quoted() {
        assert_eq!(["a/b-1.toml", "", "it's"].map(quoted), ["a/b-1.toml", "''", r"'it'\''s'"]);
    }
}
