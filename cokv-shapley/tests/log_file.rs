//! The file of samples: what it says, and what is refused.

use cokv_shapley::{Design, Ends, Inserted, LogFile, LogHeader, Sample, SamplingPlan, read_log};

fn header(seed: u64) -> LogHeader {
    let plan = SamplingPlan { players: 6, instances: 3, instances_per_sample: 1, seed, design: Design::middle(6) };
    LogHeader::new("model, records", plan)
}

fn with_text(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    std::fs::write(&path, text).unwrap();
    let read = read_log(&path).unwrap_err().to_string();
    assert_eq!(LogFile::open(&path, &header(1)).unwrap_err().to_string(), read);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "a file that is refused is not touched");
    read.replace(&path.display().to_string(), "log")
}

/// A log of three samples, as text.
fn text() -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let (mut file, _, _) = LogFile::open(&path, &header(1)).unwrap();
    file.append_ends(&Ends { empty: vec![0.0, 0.1, 0.2], full: vec![1.0, 0.9, 1.0 / 3.0] }).unwrap();
    for k in 0..3 {
        file.append(&Sample { k, utilities: vec![0.1 + 0.2, -1e-300 * k as f64] }).unwrap();
    }
    assert!(file.append(&Sample { k: 3, utilities: vec![f64::NAN, 0.0] }).is_err());
    std::fs::read_to_string(&path).unwrap()
}

#[test]
fn the_file_can_be_read_without_this_crate() {
    let text = text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "{\"format\":\"cokv-samples\",\"version\":1,\"game\":\"model, records\",\"plan\":{\"players\":6,\
         \"instances\":3,\"instances_per_sample\":1,\"seed\":1,\"design\":{\"kind\":\"range\",\"smallest\":1,\
         \"largest\":5}}}"
    );
    assert_eq!(lines[1], "{\"ends\":{\"empty\":[0.0,0.1,0.2],\"full\":[1.0,0.9,0.3333333333333333]}}");
    let draw = header(1).plan.draw(2);
    assert_eq!(
        lines[4],
        format!(
            "{{\"k\":2,\"instances\":{:?},\"coalitions\":[\"{}\"],\"utilities\":[0.30000000000000004,-2e-300]}}",
            draw.instances, draw.coalitions[0]
        )
    );
    assert_eq!(lines.len(), 5);
}

#[test]
fn a_header_of_absurd_numbers_is_an_error_before_anything_is_drawn() {
    let text = text();
    for (absurd, of) in [
        ("\"players\":2000000000", "2000000000 players and 3 instances"),
        ("\"players\":18446744073709551615", "18446744073709551615 players and 3 instances"),
        ("\"instances\":99999999999", "6 players and 99999999999 instances"),
    ] {
        let key = absurd.split(':').next().unwrap();
        let sound = if key.contains("players") { "\"players\":6" } else { "\"instances\":3" };
        let message = with_text(&text.replacen(sound, absurd, 1));
        assert!(message.starts_with(&format!("log:1: {of} are more than a game has")), "{message}");
    }
}

#[test]
fn other_games_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    drop(LogFile::open(&path, &header(1)).unwrap());
    let message = |header: LogHeader| LogFile::open(&path, &header).unwrap_err().to_string();
    assert!(message(header(2)).contains("its `plan.seed` is 1, not 2"), "{}", message(header(2)));
    let game = LogHeader { game: "other".into(), ..header(1) };
    assert!(message(game.clone()).contains("its `game` is model, records, not other"), "{}", message(game));
    assert!(LogFile::open(&path, &header(1)).is_ok());

    // What computed it is named, as the reason why the game is another one; logs that do not say are judged by the game alone.
    let by = |computed_by: &str, game: &str| LogHeader {
        computed_by: Some(computed_by.into()),
        ..LogHeader::new(game, header(1).plan)
    };
    assert!(LogFile::open(&path, &by("cpu, numerics 4", "model, records")).is_ok());
    let path = folder.path().join("said.jsonl");
    drop(LogFile::open(&path, &by("cpu, numerics 4", "a")).unwrap());
    let message = LogFile::open(&path, &by("cuda, numerics 4", "b")).unwrap_err().to_string();
    assert!(message.contains("its `computed_by` is cpu, numerics 4, not cuda, numerics 4"), "{message}");
}

#[test]
fn a_writer_locks_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let first = LogFile::open(&path, &header(1)).unwrap();
    let message = LogFile::open(&path, &header(1)).unwrap_err().to_string();
    assert!(message.contains("is locked"), "{message}");
    assert!(read_log(&path).is_ok());
    drop(first);
    assert!(LogFile::open(&path, &header(1)).is_ok());
}

#[test]
fn torn_and_repeated_lines_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let last = text().lines().last().unwrap().to_string();
    std::fs::write(&path, format!("{}{last}\n{last}\n{}", text(), &last[..20])).unwrap();
    let (log, notices) = read_log(&path).unwrap();
    assert_eq!(log.len(), 3);
    let notices: Vec<String> = notices.iter().map(ToString::to_string).collect();
    let expected = ["2 lines repeat earlier ones with equal utilities", "line 8 was never finished and does not count"];
    assert_eq!(notices, expected);
    let (mut file, mut resumed, _) = LogFile::open(&path, &header(1)).unwrap();
    let next = Sample { k: 3, utilities: vec![0.5, 0.25] };
    file.append(&next).unwrap();
    assert_eq!(resumed.insert(next).unwrap(), Inserted::New);
    assert_eq!(read_log(&path).unwrap().0, resumed);
}

#[test]
fn wrong_lines_are_named() {
    let text = text();
    let last = text.lines().last().unwrap();
    let message = with_text(&format!("{text}{}\n", last.replace("0.30000000000000004", "0.7")));
    assert!(message.starts_with("log:6: sample 2 was evaluated twice with different utilities"), "{message}");
    let message = with_text(&format!("{text}{}\n", last.replace("\"k\":2", "\"k\":7")));
    assert!(message.starts_with("log:6: sample 7 evaluated other coalitions or instances"), "{message}");
    assert!(message.ends_with("this log was sampled with another seed or version"), "{message}");
    let message = with_text(&format!("{text}{}\n", last.replace("-2e-300", "null")));
    assert!(message.starts_with("log:6: invalid type: null, expected f64"), "{message}");
    let message = with_text(&format!("{text}{}\n", last.replace(",-2e-300", "")));
    assert!(message.starts_with("log:6: sample 2 has 1 utilities; the plan asks for 2"), "{message}");
    let message = with_text(&format!("{text}\n"));
    assert!(message.starts_with("log:6: EOF"), "{message}");
    let message = with_text(&text.replace("\"seed\":1", "\"seed\":2"));
    assert!(message.contains("log:3") || message.contains("is 2, not 1"), "{message}");
}

#[test]
fn files_that_are_no_logs_are_left_alone() {
    for text in ["my thesis", "my thesis\n", "{\"format\":\"cokv-samples\",\"vers"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, text).unwrap();
        assert!(read_log(&path).is_err());
        // The beginning of our own header is what a crash leaves; anything else is not ours.
        let ours = text.starts_with('{');
        assert_eq!(LogFile::open(&path, &header(1)).is_ok(), ours, "{text}");
        assert!(ours || std::fs::read_to_string(&path).unwrap() == text);
    }
    let message = with_text(&text().replace("\"version\":1", "\"version\":9"));
    assert_eq!(message, "log is not a log of samples: its format is cokv-samples 9, not cokv-samples 1");
    let message = with_text(&text().replace("\"largest\":5", "\"largest\":6"));
    assert!(message.starts_with("log:1: coalitions of 6 of 6 players leave nobody"), "{message}");
}

/// Regression: a log of other settings was refused by two hashes, which say nothing of what to change.
#[test]
fn a_log_of_another_game_is_refused_by_the_setting_that_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let of = |game: &str, records: &str| {
        let about =
            [("records", records), ("task", "passkey")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        LogHeader { game: game.into(), about: about.into(), ..header(1) }
    };
    drop(LogFile::open(&path, &of("3a4b", "2")).unwrap());
    let error = LogFile::open(&path, &of("15ee", "1")).unwrap_err().to_string();
    assert!(error.contains("is the log of another play: its `records` is 2, not 1"), "{error}");
    let silent = LogHeader { game: "15ee".into(), ..header(1) };
    assert!(LogFile::open(&path, &silent).unwrap_err().to_string().contains("its `game` is 3a4b, not 15ee"));
    // What people are told about one game may change from build to build.
    assert!(LogFile::open(&path, &of("3a4b", "two")).is_ok());
}
