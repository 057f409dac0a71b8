use std::fs;
use std::io::Write;

use cokv_models::source::Observer;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::*;
use crate::metrics::Metric;

/// Settings for a file that is written here.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// What a `[data]` table without its source gives.
    fn open(&self, name: &str, data: &str) -> Result<OwnRecords, String> {
        let settings: DataSettings = toml::from_str(data).unwrap();
        let settings = DataSettings { source: self.path(name), ..settings };
        open(&settings, &Fetcher::from_env(Observer::default())).map_err(|error| error.to_string())
    }
}

/// What the only task of one file gives.
fn read(name: &str, text: &str, data: &str) -> Result<(TaskRecords, Vec<String>), String> {
    let mut own = Files::new(&[(name, text)]).open(name, data)?;
    Ok((own.tasks.remove(0), own.notices))
}

fn lines(values: &[serde_json::Value]) -> String {
    values.iter().map(|value| value.to_string() + "\n").collect()
}

fn three() -> Vec<serde_json::Value> {
    let one = |at: usize| json!({"question": format!("Who is {at}?"), "context": format!("{at} is Ada {at}."), "answer": format!("Ada {at}")});
    (1..=3).map(one).collect()
}

/// Regression: a file of one's own was no readable archive, and users were told to delete it.
#[test]
fn records_need_nothing_but_a_text_a_question_and_an_answer() {
    let (task, notices) = read("my.jsonl", &lines(&three()), "").unwrap();
    assert_eq!(
        (task.protocol.name.as_str(), task.protocol.metric, task.protocol.max_new_tokens),
        ("my", Metric::QaF1, 32)
    );
    assert_eq!(task.records.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    let prompt = task.protocol.prompt(&task.records[1]);
    assert!(prompt.contains("2 is Ada 2.") && prompt.contains("Question: Who is 2?"), "{prompt}");
    assert_eq!(task.records[1].answers, ["Ada 2"]);
    let said = notices.join("\n");
    for part in [
        "my: context from `context`",
        "question from `question`",
        "answers from `answer`",
        "metric = \"f1\"",
        "the prompt",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(read("my.jsonl", &lines(&three()), "records = 2").unwrap().0.records.len(), 2);
}

#[test]
fn what_is_said_is_not_guessed() {
    let rows = [json!({"title": "T {x}", "body": "b", "text": "t", "q": "why?", "gold": ["g", 2], "nr": 7})];
    let data = "prompt = \"{title}: {context} {question} {{}}\"\nmetric = \"exact\"\nmax_new_tokens = 5\nstop = [\"\\n\"]\n\
                [fields]\ncontext = \"body\"\nquestion = \"q\"\nanswers = \"gold\"\nid = \"nr\"";
    let (task, notices) = read("my.jsonl", &lines(&rows), data).unwrap();
    assert_eq!(task.protocol.prompt(&task.records[0]), "T {x}: b why? {}");
    assert_eq!((task.records[0].answers.join("|"), task.records[0].id.as_str()), ("g|2".into(), "7"));
    assert_eq!(
        (task.protocol.metric, task.protocol.max_new_tokens, &task.protocol.stop[0][..]),
        (Metric::Exact, 5, "\n")
    );
    assert_eq!(notices, [""; 0]);
}

#[test]
fn every_kind_of_file_gives_the_same_records() {
    let parquet = parquet_of(&["question", "context", "answer"], &three());
    let csv = "\u{feff}question,context,answer\r\nWho is 1?,1 is Ada 1.,Ada 1\r\n\"Who is 2?\",\"2 is Ada 2.\",Ada 2\r\nWho is 3?,3 is Ada 3.,Ada 3\r\n";
    let tsv = csv.replace(',', "\t");
    let pretty = serde_json::to_string_pretty(&three()).unwrap();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(lines(&three()).as_bytes()).unwrap();
    let files = Files::new(&[
        ("a.csv", csv),
        ("b.tsv", &tsv),
        ("c.json", &pretty),
        ("d.ndjson", &lines(&three())),
        ("notes.txt", "x"),
    ]);
    fs::write(files.path("e.jsonl.gz"), packed.finish().unwrap()).unwrap();
    fs::write(files.path("f-00000-of-00001.parquet"), parquet).unwrap();
    let own = files.open("", "").unwrap();
    let names: Vec<&str> = own.tasks.iter().map(|task| task.protocol.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f"]);
    let asked = |task: &TaskRecords| task.records.iter().map(|record| task.protocol.prompt(record)).collect::<Vec<_>>();
    for task in &own.tasks {
        assert_eq!(asked(task), asked(&own.tasks[0]), "{}", task.protocol.name);
        let hashes =
            |task: &TaskRecords| task.records.iter().map(|record| record.fingerprint.clone()).collect::<Vec<_>>();
        assert_eq!(hashes(task), hashes(&own.tasks[0]), "what is asked is the same wherever it lies");
    }
    let chosen = files.open("", "tasks = [\"c\", \"a\"]").unwrap();
    assert_eq!(chosen.tasks.iter().map(|task| task.protocol.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert!(
        files.open("", "tasks = [\"aa\"]").unwrap_err().contains("unknown task of these files `aa`; did you mean `a`?")
    );
    assert!(
        Files::new(&[("notes.txt", "x")])
            .open("notes.txt", "")
            .unwrap_err()
            .contains("records are read from files called .jsonl")
    );
}

#[test]
fn a_text_may_have_several_questions() {
    let nested = json!({"article": "long", "article_id": "A", "questions": [
        {"question": "first?", "options": ["x", "y"], "gold_label": 2},
        {"question": "second?", "options": ["x", "y", "z"], "gold_label": 1}]});
    let (task, notices) = read("quality.jsonl", &lines(&[nested]), "").unwrap();
    assert_eq!(task.protocol.metric, Metric::Choice);
    let of = |at: usize| {
        (&task.records[at].input[..], &task.records[at].answers[0][..], task.records[at].all_classes.join(""))
    };
    assert_eq!((of(0), of(1)), (("first?", "(B)", "xy".into()), ("second?", "(A)", "xyz".into())));
    assert!(task.protocol.prompt(&task.records[1]).contains("(A) x\n(B) y\n(C) z"));
    assert!(notices.join("\n").contains("taken to count choices from 1"), "{notices:?}");
    assert_eq!([&task.records[0].id, &task.records[1].id], ["1", "1#2"]);

    let parallel = json!({"text": "long", "question": ["a?", "b?"], "answers": [["x", "y"], "z"]});
    let (task, _) = read("p.jsonl", &lines(&[parallel]), "").unwrap();
    assert_eq!(
        task.records.iter().map(|record| (&record.id[..], record.answers.join("|"))).collect::<Vec<_>>(),
        [("1-q1", "x|y".into()), ("1-q2", "z".into())]
    );
}

#[test]
fn squad_and_longbench_v2_are_read_as_they_are_published() {
    let squad = json!({"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"context": "In France.", "qas": [
        {"question": "Where?", "id": "a1", "answers": [{"text": "In France", "answer_start": 0}], "is_impossible": false},
        {"question": "Why?", "id": "a2", "answers": [], "is_impossible": true}]}]}]});
    let (task, notices) = read("dev.json", &squad.to_string(), "").unwrap();
    assert_eq!((task.records.len(), &task.records[0].id[..], &task.records[0].answers[0][..]), (1, "a1", "In France"));
    assert!(notices.iter().any(|notice| notice == "dev: 1 records have no answer, and are left out"), "{notices:?}");
    let of_hub =
        json!({"context": "c", "question": "q?", "id": "h", "answers": {"text": ["In France"], "answer_start": [0]}});
    assert_eq!(read("hub.jsonl", &lines(&[of_hub]), "").unwrap().0.records[0].answers, ["In France"]);

    let v2 = json!([{"_id": "v", "domain": "Code", "difficulty": "hard", "length": "long", "question": "q?", "choice_A": "a", "choice_B": "b",
        "choice_C": "c", "choice_D": "d", "answer": "C", "context": "text"}]);
    let (task, _) = read("data.json", &v2.to_string(), "metric = \"choice-stated\"").unwrap();
    let record = &task.records[0];
    assert_eq!((&record.answers[0][..], record.all_classes.len(), &record.id[..]), ("(C)", 4, "v"));
    assert_eq!(task.protocol.score("The correct answer is (C).", record), 1.0);
}

#[test]
fn parts_are_of_texts_and_not_of_questions() {
    let row = |at: usize| json!({"context": format!("text {at}"), "questions": [{"question": "a?", "answer": "x y"}, {"question": "b?", "answer": "z"}]});
    let text = lines(&(0..20).map(row).collect::<Vec<_>>());
    let part = |split: &str| read("my.jsonl", &text, &format!("records = 100\nsplit = \"{split}\"")).unwrap().0.records;
    let (validation, test) = (part("validation"), part("test"));
    assert_eq!((validation.len(), test.len()), (6, 34));
    assert!(validation.iter().all(|record| test.iter().all(|other| other.context != record.context)));
    assert_eq!(read("my.jsonl", &text, "records = 3\nsplit = \"test\"").unwrap().0.records[..], test[..3]);
}

#[test]
fn answers_of_choices_may_be_letters_texts_and_numbers() {
    let of = |answer: serde_json::Value, data: &str| {
        let row = json!({"context": "c", "question": "q?", "options": ["red", "blue"], "answer": answer});
        read("my.jsonl", &lines(&[row]), data).map(|(task, _)| task.records[0].answers[0].clone())
    };
    for (answer, data, wanted) in [
        (json!("B"), "", "(B)"),
        (json!("(a)"), "", "(A)"),
        (json!("blue"), "", "(B)"),
        (json!(0), "", "(A)"),
        (json!(1), "", "(B)"),
        (json!(1), "first_choice = 1", "(A)"),
        (json!("1"), "", "(B)"),
    ] {
        assert_eq!(of(answer.clone(), data).unwrap(), wanted, "{answer} {data}");
    }
    assert!(of(json!(2), "").unwrap_err().contains("my.jsonl:1: the answer `2` is none of the 2 choices: a letter"));
    assert!(of(json!("green"), "").unwrap_err().contains("the answer `green` is none of the 2 choices"));
}

#[test]
fn mistakes_are_named_with_their_record_and_its_fields() {
    let error = |rows: &[serde_json::Value], data: &str| read("my.jsonl", &lines(rows), data).unwrap_err();
    let mut rows = three();
    rows.push(json!({"context": "c", "answer": "a"}));
    assert!(
        error(&rows, "").contains(
            "my.jsonl:4: record 4 has no `question`, which the prompt names; its fields are `context`, `answer`"
        ),
        "{}",
        error(&rows, "")
    );
    assert!(error(&three(), "prompt = \"{context} {author}\"").contains(":1: record 1 has no `author`"));
    assert!(error(&three(), "prompt = \"no field\"").contains("[data] prompt: it names no field"));
    assert!(error(&three(), "prompt = \"{choices}\"").contains("no field of my looks like it: [data.fields] choices"));
    assert!(
        error(&three(), "[fields]\ncontext = \"contxt\"")
            .contains("[data.fields] context: unknown field `contxt`; did you mean `context`?")
    );
    assert!(error(&three(), "metric = \"classification\"").contains("record 1 cannot be scored: it has no classes"));
    assert!(
        error(&[json!({"context": "c", "question": "q"})], "")
            .contains("no field looks like answers among `context`, `question`")
    );
    assert!(
        error(&[json!({"x": "c", "question": "q", "answer": "a"})], "").contains("no field looks like the long text")
    );
    assert!(error(&[json!({"context": "c", "answer": "a"})], "").contains("no field looks like a question"));
    assert!(
        error(&[json!({"context": ["a", 1, [null]], "question": "q", "answer": "a"})], "")
            .contains("the context is null, not a text")
    );
    let mixed = [json!({"context": "c", "question": "q", "answer": ["a", {"b": 1}]})];
    assert!(error(&mixed, "").contains("`answer` is a list with a table in it, not a text or a list of texts"));
    assert!(error(&[json!([1])], "").contains("my.jsonl:1: "));
    assert!(error(&[json!("text")], "").contains("the record is a text, not a table of fields"));
    assert!(read("my.jsonl", "", "").unwrap_err().contains("there is no record in it"));
    assert!(read("my.parquet", "PAR1", "").unwrap_err().contains("not a readable Parquet file"));
    assert!(read("my.csv", "a,b\n1,2,3\n", "").unwrap_err().contains("my.csv:2: "));
    assert!(
        error(&[json!({"context": "c", "question": "q", "answer": ""})], "")
            .contains("holds no record that can be asked")
    );
}

#[test]
fn records_with_the_same_name_are_told_apart_and_it_is_said() {
    let row = |at: usize| json!({"id": "a", "context": format!("c{at}"), "question": "q", "answer": "x y"});
    let (task, notices) = read("my.jsonl", &lines(&[row(1), row(2)]), "").unwrap();
    assert_eq!([&task.records[0].id[..], &task.records[1].id[..]], ["a", "a#2"]);
    assert!(notices.iter().any(|notice| notice.contains("1 records have an id that another has")), "{notices:?}");
}

/// Files are read as far as records are asked for, whatever their length.
#[test]
fn no_more_is_read_than_is_asked_for() {
    let many: String = (0..30).map(|at| three()[at % 3].to_string() + "\n").collect::<String>() + "not a record\n";
    assert_eq!(read("my.jsonl", &many, "records = 3").unwrap().0.records.len(), 3);
    assert!(read("my.jsonl", &many, "records = 40").unwrap_err().contains("my.jsonl:31: "));
}

/// A Parquet file with columns of texts.
fn parquet_of(names: &[&str], rows: &[serde_json::Value]) -> Vec<u8> {
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    let columns: String = names.iter().map(|name| format!("required binary {name} (UTF8);")).collect();
    let schema = parse_message_type(&format!("message records {{ {columns} }}")).unwrap();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema.into(), WriterProperties::new().into()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for name in names {
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = rows.iter().map(|row| row[*name].as_str().unwrap().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn a_missing_file_is_named() {
    let settings = DataSettings { source: "nowhere.jsonl".into(), ..DataSettings::default() };
    let error = open(&settings, &Fetcher::from_env(Observer::default())).unwrap_err().to_string();
    assert!(error.starts_with("nowhere.jsonl: "), "{error}");
}
