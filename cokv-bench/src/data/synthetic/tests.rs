use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// The records that a task's own tests look at.
pub(super) fn records(task: Task) -> Vec<Record> {
    generate(task, 1000, 20, 7, None, &tokens).unwrap()
}

/// Counts much as a byte-pair tokenizer does: words in parts of up to four letters, digits and
/// punctuation one by one, one token for a run of white space other than a space.
pub(super) fn tokens(text: &str) -> usize {
    let mut total = 0;
    let mut letters = 0;
    let mut previous = '\0';
    for letter in text.chars() {
        if letter.is_alphabetic() {
            total += usize::from(letters % 4 == 0);
            letters += 1;
        } else {
            letters = 0;
            let counts = letter != ' ' && !(letter.is_whitespace() && previous.is_whitespace());
            total += usize::from(counts);
        }
        previous = letter;
    }
    total
}

/// Tasks that need nothing but a seed.
fn made_up() -> Vec<Task> {
    Task::EVERY.into_iter().filter(|task| !task.asks_supplied()).collect()
}

/// A length, in tokens as [`tokens`] counts them, that every record of the task fits into.
fn shortest(task: Task) -> usize {
    match task {
        Task::RulerCommonWords => 400,
        _ if Task::SHARED_CONTEXT.contains(&task) => 700,
        _ => 300,
    }
}

fn prompt(task: Task, record: &Record) -> String {
    task.template().replace("{context}", &record.context).replace("{input}", &record.input)
}

#[test]
fn names_lead_back_to_their_tasks() {
    for task in Task::EVERY {
        assert_eq!(task.to_string().parse(), Ok(task));
    }
    let error = |name: &str| Task::named(name, false).unwrap_err().to_string();
    assert!(error("key-needle").contains("multi-key-needle"), "{}", error("key-needle"));
    assert!(error("ruller").contains("did you mean `ruler`?"), "{}", error("ruller"));
    assert!(error("needels").contains("did you mean `needle`?"), "{}", error("needels"));
}

#[test]
fn groups_stand_for_their_tasks() {
    for supplied in [false, true] {
        assert_eq!(Task::named("all", supplied), Ok(Task::ALL.to_vec()));
        assert_eq!(Task::named("needle", supplied), Ok(vec![Task::Needle]));
    }
    let asked = Task::RulerQuestionAnswering;
    assert_eq!(Task::named("ruler", false), Ok(Task::RULER.to_vec()));
    assert_eq!(Task::named("ruler", true), Ok([&Task::RULER[..], &[asked]].concat()));
    assert_eq!(Task::named("ruler-qa", true), Ok(vec![asked]));
    assert_eq!(Task::named("ruler-qa", false), Err(SyntheticError::NoQuestions(asked.name())));
    let names: BTreeSet<&str> = task::known_names().collect();
    assert_eq!(names.len(), Task::EVERY.len() + 4, "no two share a name");
}

#[test]
fn templates_hold_each_field_once() {
    for task in Task::EVERY {
        for field in ["{context}", "{input}"] {
            assert_eq!(task.template().matches(field).count(), 1, "{task}");
        }
    }
}

#[test]
fn prompts_have_nearly_the_length_asked_for() {
    for task in made_up() {
        for context_tokens in [shortest(task), 1000, 4000] {
            for record in generate(task, context_tokens, 20, 1, None, &tokens).unwrap() {
                let length = tokens(&prompt(task, &record));
                assert_eq!(record.length, length as u64);
                assert!(
                    length <= context_tokens && length * 100 >= context_tokens * 97,
                    "{}: {length} tokens",
                    record.id
                );
            }
        }
    }
}

#[test]
fn room_is_left_for_a_chat_template() {
    let with_chat = |text: &str| tokens(text) + 40;
    for task in made_up() {
        let limit = shortest(task) + 200;
        // The longest of several questions fills its prompt.
        let spare = if Task::SHARED_CONTEXT.contains(&task) { 30 } else { 15 };
        for record in generate(task, limit, 10, 1, None, &with_chat).unwrap() {
            let length = tokens(&prompt(task, &record));
            assert!((limit - 40 - spare..=limit - 40).contains(&length), "{}: {length} tokens", record.id);
        }
    }
}

#[test]
fn records_differ() {
    for task in made_up() {
        let of_seed = |seed| generate(task, shortest(task) + 100, 20, seed, None, &tokens).unwrap();
        let prompts: BTreeSet<String> =
            of_seed(1).iter().chain(&of_seed(2)).map(|record| prompt(task, record)).collect();
        assert_eq!(prompts.len(), 40, "{task}");
    }
}

#[test]
fn a_longer_context_keeps_the_question_and_the_answer() {
    for task in made_up() {
        let short = generate(task, shortest(task) + 100, 5, 3, None, &tokens).unwrap();
        let long = generate(task, 2000, 5, 3, None, &tokens).unwrap();
        for (short, long) in short.iter().zip(&long) {
            assert_eq!((&short.input, &short.answers), (&long.input, &long.answers));
            assert_ne!(short.id, long.id);
        }
    }
}

#[test]
fn records_are_the_same_on_every_platform() {
    // Figures of published runs rest on these; a change here makes them incomparable.
    let records = Task::ALL.map(|task| generate(task, 600, 1, 42, None, &tokens).unwrap().remove(0));
    let answers = records.each_ref().map(|record| record.answers[0].as_str());
    assert_eq!(
        answers,
        [
            "3388603",
            "solar falcon 637",
            "44848743",
            "MONON, GENUR, TAMIP, BONES",
            "health and medicine",
            "IndigoOrchid(settings.bison_height, settings.rocket_count, settings.cedar_cost)",
        ]
    );
    let prompts: String = Task::ALL.iter().zip(&records).map(|(&task, record)| prompt(task, record)).collect();
    assert_eq!(prompts.bytes().fold(0, |state, byte| mix(state ^ u64::from(byte))), 0x3517_01c6_f455_5701);
}

#[test]
fn later_tasks_are_the_same_on_every_platform() {
    // As above; RULER's variable tracking is one of the tasks there.
    let hash = |tasks: Vec<Task>| {
        let of_task = |task| prompt(task, &generate(task, 600, 1, 42, None, &tokens).unwrap()[0]);
        let prompts: String = tasks.into_iter().map(of_task).collect();
        prompts.bytes().fold(0, |state, byte| mix(state ^ u64::from(byte)))
    };
    let groups = [&Task::ALL[..], &Task::LONG_ANSWERS, &Task::SHARED_CONTEXT];
    let known = |task: &Task| groups.iter().any(|group| group.contains(task));
    assert_eq!(hash(made_up().into_iter().filter(|task| !known(task)).collect()), 0xbcd3_203e_cde4_57a8);
    assert_eq!(hash(Task::LONG_ANSWERS.to_vec()), 0x7912_a04d_9db2_86e9);
    assert_eq!(hash(Task::SHARED_CONTEXT.to_vec()), 0x86f2_c368_d25e_2792);
}

#[test]
fn a_context_too_small_is_refused_with_the_smallest_that_is_not() {
    for task in made_up() {
        let Err(SyntheticError::ContextTooSmall { minimum, .. }) = generate(task, 10, 20, 1, None, &tokens) else {
            panic!("{task} fits into 10 tokens");
        };
        assert!(generate(task, minimum - 1, 20, 1, None, &tokens).is_err());
        assert_eq!(generate(task, minimum, 20, 1, None, &tokens).map(|records| records.len()), Ok(20));
    }
}

#[test]
fn several_questions_are_asked_about_one_context() {
    for task in Task::SHARED_CONTEXT {
        let records = generate(task, 900, 12, 5, None, &tokens).unwrap();
        let mut contexts = records.chunk_by(|one, other| one.context == other.context);
        for (questions, of_context) in [5, 5, 2].map(|questions| (questions, contexts.next().unwrap())) {
            assert_eq!(of_context.len(), questions, "{task}");
            let different = |of: fn(&Record) -> String| of_context.iter().map(of).collect::<BTreeSet<_>>().len();
            assert_eq!(different(|record| format!("{:?}", record.text)), 1);
            let parts: [fn(&Record) -> String; 3] =
                [|record| record.id.clone(), |record| record.input.clone(), |record| record.fingerprint.clone()];
            assert_eq!(parts.map(different), [questions; 3], "{task}");
            assert!(of_context.iter().all(|record| record.text.is_some()));
        }
        assert!(contexts.next().is_none());
        assert!(records[3].id.ends_with("-0-q4") && records[11].id.ends_with("-2-q2"), "{}", records[11].id);
    }
}

#[test]
fn no_records_need_no_room() {
    assert_eq!(generate(Task::Passkey, 0, 0, 1, None, &tokens).map(|records| records.len()), Ok(0));
}

#[test]
fn generating_takes_no_time_to_speak_of() {
    for task in made_up() {
        let start = Instant::now();
        generate(task, 8000, 20, 1, None, &tokens).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{task}: {:?}", start.elapsed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_seed_and_length_gives_good_records(
        task in prop::sample::select(made_up()),
        more_tokens in 20_usize..1200,
        seed in any::<u64>(),
        shorter in 0_usize..6,
    ) {
        let context_tokens = shortest(task) + more_tokens;
        let records = generate(task, context_tokens, 6, seed, None, &tokens).unwrap();
        prop_assert_eq!(&records, &generate(task, context_tokens, 6, seed, None, &tokens).unwrap());
        prop_assert_eq!(&records[..shorter], &generate(task, context_tokens, shorter, seed, None, &tokens).unwrap()[..]);
        for record in &records {
            let length = tokens(&prompt(task, record));
            prop_assert!(length <= context_tokens && length * 100 >= context_tokens * 96, "{} {}", record.id, length);
            prop_assert_eq!(record.answers.len(), 1);
            prop_assert!(tokens(&record.answers[0]) > 1);
        }
    }
}
