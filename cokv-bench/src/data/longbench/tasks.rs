//! LongBench's tasks, their categories, and the groups that they can be asked for by.

use std::fmt;

use cokv_core::config::unknown_name;

use crate::data::DataError;

/// Kinds of tasks, as in the paper's tables; its overall score is the mean of their means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Questions about one document.
    SingleDocumentQa,
    /// Questions about several documents.
    MultiDocumentQa,
    /// Summaries.
    Summarization,
    /// Examples, then a case like them.
    FewShot,
    /// Counting and finding passages.
    SyntheticTasks,
    /// The next line of code.
    Code,
}

impl Category {
    /// In the order of the paper's tables.
    pub const ALL: [Category; 6] = [
        Category::SingleDocumentQa,
        Category::MultiDocumentQa,
        Category::Summarization,
        Category::FewShot,
        Category::SyntheticTasks,
        Category::Code,
    ];

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Category::SingleDocumentQa => "single-document-qa",
            Category::MultiDocumentQa => "multi-document-qa",
            Category::Summarization => "summarization",
            Category::FewShot => "few-shot",
            Category::SyntheticTasks => "synthetic-tasks",
            Category::Code => "code",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Language {
    English,
    Chinese,
    Code,
}

struct Task {
    name: &'static str,
    /// Its name in LongBench-E, if it is part of it.
    name_e: Option<&'static str>,
    category: Category,
    language: Language,
}

const fn task(name: &'static str, name_e: Option<&'static str>, category: Category, language: Language) -> Task {
    Task { name, name_e, category, language }
}

/// All tasks, in the order of the paper's tables.
const TASKS: [Task; 21] = {
    use Category::*;
    use Language::{Chinese, English};
    [
        task("narrativeqa", None, SingleDocumentQa, English),
        task("qasper", Some("qasper_e"), SingleDocumentQa, English),
        task("multifieldqa_en", Some("multifieldqa_en_e"), SingleDocumentQa, English),
        task("multifieldqa_zh", None, SingleDocumentQa, Chinese),
        task("hotpotqa", Some("hotpotqa_e"), MultiDocumentQa, English),
        task("2wikimqa", Some("2wikimqa_e"), MultiDocumentQa, English),
        task("musique", None, MultiDocumentQa, English),
        task("dureader", None, MultiDocumentQa, Chinese),
        task("gov_report", Some("gov_report_e"), Summarization, English),
        task("qmsum", None, Summarization, English),
        task("multi_news", Some("multi_news_e"), Summarization, English),
        task("vcsum", None, Summarization, Chinese),
        task("trec", Some("trec_e"), FewShot, English),
        task("triviaqa", Some("triviaqa_e"), FewShot, English),
        task("samsum", Some("samsum_e"), FewShot, English),
        task("lsht", None, FewShot, Chinese),
        task("passage_count", Some("passage_count_e"), SyntheticTasks, English),
        task("passage_retrieval_en", Some("passage_retrieval_en_e"), SyntheticTasks, English),
        task("passage_retrieval_zh", None, SyntheticTasks, Chinese),
        task("lcc", Some("lcc_e"), Code, Language::Code),
        task("repobench-p", Some("repobench-p_e"), Code, Language::Code),
    ]
};

/// Groups beside the categories.
const GROUPS: [&str; 4] = ["all", "all-e", "english", "chinese"];

fn find(name: &str) -> Option<&'static Task> {
    TASKS.iter().find(|task| task.name == name || task.name_e == Some(name))
}

/// The category of a task, of LongBench or of LongBench-E.
pub fn category(task: &str) -> Option<Category> {
    find(task).map(|task| task.category)
}

/// The task that a task of LongBench-E is asked and scored as: `qasper` for `qasper_e`. `None` for all other names.
pub fn task_of_e(name: &str) -> Option<&'static str> {
    find(name).filter(|task| task.name_e == Some(name)).map(|task| task.name)
}

/// The tasks of a group.
fn group(name: &str) -> Option<Vec<&'static str>> {
    let of = |kept: &dyn Fn(&Task) -> bool| {
        Some(TASKS.iter().filter(|task| kept(task)).map(|task| task.name).collect::<Vec<_>>())
    };
    match name {
        "all" => of(&|_| true),
        "all-e" => Some(TASKS.iter().filter_map(|task| task.name_e).collect()),
        "english" => of(&|task| task.language == Language::English),
        "chinese" => of(&|task| task.language == Language::Chinese),
        name => {
            let category = Category::ALL.into_iter().find(|category| category.name() == name)?;
            of(&|task| task.category == category)
        }
    }
}

/// The tasks that users mean by names of tasks and groups. A group stands for those of its tasks that are `present`, of
/// which there must be one; a task that is named need not be, so that the missing file can be named.
pub(super) fn resolve(names: &[String], present: impl Fn(&str) -> bool) -> Result<Vec<&'static str>, DataError> {
    let mut tasks = Vec::new();
    for name in names {
        if let Some(mut members) = group(name) {
            members.retain(|task| present(task));
            if members.is_empty() {
                return Err(DataError::Setting(format!("tasks: there is no file of any task in the group `{name}`")));
            }
            tasks.extend(members);
        } else if let Some(task) = find(name) {
            tasks.push(if task.name == name { task.name } else { task.name_e.unwrap_or(task.name) });
        } else {
            let groups = GROUPS.into_iter().chain(Category::ALL.map(Category::name));
            let tasks = TASKS.iter().map(|task| task.name).chain(TASKS.iter().filter_map(|task| task.name_e));
            let message = unknown_name("LongBench task or group", name, groups.chain(tasks));
            return Err(DataError::UnknownTask(message));
        }
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    fn resolved(names: &[&str]) -> Result<Vec<&'static str>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        resolve(&names, |task| task != "lcc").map_err(|error| error.to_string())
    }

    #[test]
    fn groups_are_those_of_the_papers() {
        assert_eq!(group("all").unwrap().len(), 21);
        assert_eq!(group("all-e").unwrap().len(), 13);
        assert_eq!(group("english").unwrap().len(), 14);
        assert_eq!(group("chinese").unwrap(), ["multifieldqa_zh", "dureader", "vcsum", "lsht", "passage_retrieval_zh"]);
        let counts = Category::ALL.map(|category| group(category.name()).unwrap().len());
        assert_eq!(counts, [4, 4, 4, 4, 3, 2]);
        assert_eq!(resolved(&["code", "trec", "all-e"]).unwrap()[..3], ["repobench-p", "trec", "qasper_e"]);
    }

    #[test]
    fn every_task_has_a_metric_and_a_category() {
        for task in TASKS {
            assert!(metrics::of_task(task.name).is_some(), "{}", task.name);
            assert_eq!(category(task.name), Some(task.category));
            if let Some(name_e) = task.name_e {
                assert_eq!(name_e, format!("{}_e", task.name));
                assert_eq!((task_of_e(name_e), category(name_e)), (Some(task.name), Some(task.category)));
            }
            assert_eq!(task_of_e(task.name), None);
        }
        assert_eq!(category("passkey"), None);
    }

    #[test]
    fn mistakes_find_their_nearest_name() {
        for (wrong, right) in
            [("tric", "trec"), ("fewshot", "few-shot"), ("englsh", "english"), ("qaspr_e", "qasper_e")]
        {
            let error = resolved(&[wrong]).unwrap_err();
            assert!(error.contains(&format!("did you mean `{right}`?")), "{error}");
        }
        // Not every task is part of LongBench-E.
        assert!(resolved(&["narrativeqa_e"]).unwrap_err().contains("did you mean `narrativeqa`?"));
        let names = ["chinese".to_owned()];
        assert!(resolve(&names, |_| false).unwrap_err().to_string().contains("any task in the group `chinese`"));
    }
}
