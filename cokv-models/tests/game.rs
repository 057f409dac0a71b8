//! The game against what it stands for: caches that hold a coalition's heads in full and the window of all others.

mod tiny;

use std::cell::RefCell;
use std::ops::ControlFlow;

use cokv_core::{Coalition, Format, Game, HeadSelection, ObservationRequest, Query, Selection};
use cokv_models::ask::{Against, Ask};
use cokv_models::cache::RaggedCache;
use cokv_models::engine::Row;
use cokv_models::game::{GameRecord, GameRules, HeadMaskError, HeadMaskGame, Scorer, Unplayable, UtilityKind};
use cokv_models::source::ModelFiles;
use cokv_models::{ComparedWith, Forced, LanguageModel, LoadOptions, StopRule};
use serde_json::json;
use tiny::Tiny;

const WINDOW: usize = 8;

fn model(format: Format) -> LanguageModel {
    let tiny = Tiny::new("llama", json!({}), false, 8);
    let options = LoadOptions { format, ..LoadOptions::default() };
    LanguageModel::load(&ModelFiles::Folder(tiny.folder().to_path_buf()), &options, |_, _| {}).unwrap()
}

fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 31 + i / 7 + seed) % 50).collect()
}

fn record(prompt: usize, answer: usize) -> GameRecord {
    let stop = StopRule { tokens: vec![], max_new_tokens: 5, min_new_tokens: 0 };
    GameRecord { name: format!("{prompt}/{answer}"), prompt: tokens(prompt, 3), answer: tokens(answer, 11), stop }
}

/// All 16 coalitions of the tiny model's four heads.
fn coalitions() -> Vec<Coalition> {
    (0..16usize).map(|bits| Coalition::from_members(4, (0..4).filter(|head| bits >> head & 1 == 1))).collect()
}

/// A cache that holds what the coalition sees, in memory of its own.
fn ragged(prefill: &cokv_models::Prefill, coalition: &Coalition) -> RaggedCache {
    let length = prefill.prompt_len() as u32;
    let start = |head| if coalition.contains(head) { 0 } else { length - WINDOW as u32 };
    let heads = (0..4).map(|head| HeadSelection::Tokens((start(head)..length).collect())).collect();
    RaggedCache::compressed(prefill.prompt(), &Selection { heads }).unwrap()
}

fn evaluate(game: &mut HeadMaskGame<'_>, coalitions: &[Coalition], instance: usize) -> Vec<f64> {
    let queries: Vec<Query<'_>> = coalitions.iter().map(|coalition| Query { coalition, instance }).collect();
    let mut utilities = vec![f64::NAN; queries.len()];
    game.evaluate(&queries, &mut utilities).unwrap();
    utilities
}

#[test]
fn masking_equals_a_ragged_cache_with_the_window_as_budget() {
    let model = model(Format::F32);
    for length in [40, 700] {
        let prefill = model.prefill(&tokens(length, 3), ObservationRequest::default(), |_| {}).unwrap();
        let mut masked: Vec<RaggedCache> =
            coalitions().iter().map(|coalition| RaggedCache::masked(prefill.prompt(), coalition, WINDOW)).collect();
        let mut copied: Vec<RaggedCache> = coalitions().iter().map(|coalition| ragged(&prefill, coalition)).collect();
        let fed = tokens(6, 1);
        let ask = Ask::Along { skip: 0, targets: &[], against: Against::Nobody, keep: true };
        let logits = |caches: &mut [RaggedCache]| -> Vec<Vec<f32>> {
            let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row::new(&fed, cache, ask)).collect();
            let answers = model.engine().step(&mut rows).unwrap().into_iter();
            answers.map(|answer| answer.along(String::new).unwrap().kept.unwrap().read().unwrap()).collect()
        };
        for (masked, copied) in logits(&mut masked).iter().zip(&logits(&mut copied)) {
            assert_eq!(masked.len(), 6 * 50);
            assert!(masked.iter().zip(copied).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}

#[test]
fn utilities_are_what_their_names_say() {
    let model = model(Format::F32);
    let records = || vec![record(60, 4), record(300, 6)];
    let mut likelihood = HeadMaskGame::prepare(
        &model,
        records(),
        GameRules { utility: UtilityKind::LogLikelihood, ..GameRules::default() },
        None,
        |_| {},
    )
    .unwrap();
    let mut probability = HeadMaskGame::prepare(
        &model,
        records(),
        GameRules { utility: UtilityKind::AnswerProbability, ..GameRules::default() },
        None,
        |_| {},
    )
    .unwrap();
    let mut agreement = HeadMaskGame::prepare(
        &model,
        records(),
        GameRules { utility: UtilityKind::Agreement, ..GameRules::default() },
        None,
        |_| {},
    )
    .unwrap();
    let rules = GameRules { utility: UtilityKind::Retention, ..GameRules::default() };
    let mut retention = HeadMaskGame::prepare(&model, records(), rules, None, |_| {}).unwrap();
    assert_eq!((likelihood.players(), likelihood.instances()), (4, 2));
    for (instance, record) in records().into_iter().enumerate() {
        let prefill = model.prefill(&record.prompt, ObservationRequest::default(), |_| {}).unwrap();
        let mut expected = Vec::new();
        for coalition in coalitions() {
            let mut cache = [ragged(&prefill, &coalition)];
            let mut total = 0.0;
            let forced = Forced { tokens: &record.answer, skip: 0, targets: &[] };
            let mut rows = model.along(&mut cache, forced, ComparedWith::Nobody, true).unwrap();
            let logits = rows.remove(0).kept.unwrap().read().unwrap();
            for (logits, next) in logits.chunks_exact(50).zip(&record.answer[1..]) {
                let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                total += f64::from(logits[*next as usize]) - sum.ln();
            }
            expected.push(total / (record.answer.len() - 1) as f64);
        }
        let ours = evaluate(&mut likelihood, &coalitions(), instance);
        let probabilities = evaluate(&mut probability, &coalitions(), instance);
        for ((ours, probability), expected) in ours.iter().zip(&probabilities).zip(&expected) {
            assert!((ours - expected).abs() < 1e-5, "{ours} {expected}");
            assert!((probability - expected.exp()).abs() < 1e-5);
        }
        let agreements = evaluate(&mut agreement, &coalitions(), instance);
        assert!(agreements[15].abs() < 1e-6, "everybody agrees with the full cache: {}", agreements[15]);
        assert!(agreements[..15].iter().all(|&utility| utility < 0.0));
        let retained = evaluate(&mut retention, &coalitions(), instance);
        assert!(retained.iter().zip(&agreements).all(|(retained, agreement)| *retained == agreement.exp()));
    }
}

#[test]
fn metrics_see_the_greedy_answers_of_a_ragged_cache() {
    let model = model(Format::F32);
    let record = record(300, 4);
    let prefill = model.prefill(&record.prompt, ObservationRequest::default(), |_| {}).unwrap();
    let go_on = |_, _| ControlFlow::Continue(());
    let mut caches: Vec<RaggedCache> = coalitions().iter().map(|coalition| ragged(&prefill, coalition)).collect();
    let expected = model.greedy(&mut caches, &[prefill.first(&record.stop)], &record.stop, go_on).unwrap();
    let heard = RefCell::new(Vec::new());
    let score = |instance: usize, answer: &[u32]| {
        assert_eq!(instance, 0);
        heard.borrow_mut().push(answer.to_vec());
        Ok(f64::from(answer[1]))
    };
    let rules = GameRules { utility: UtilityKind::Metric, ..GameRules::default() };
    let mut game = HeadMaskGame::prepare(&model, vec![record], rules, Some(Box::new(score)), |_| {}).unwrap();
    let utilities = evaluate(&mut game, &coalitions(), 0);
    assert_eq!(*heard.borrow(), expected);
    assert!(utilities.iter().zip(&expected).all(|(&utility, answer)| utility == f64::from(answer[1])));
}

#[test]
fn a_held_out_suffix_makes_one_token_answers_playable() {
    let model = model(Format::F32);
    let rules = GameRules { holdout_suffix: 3, ..GameRules::default() };
    let one_token = record(300, 1);
    let mut game = HeadMaskGame::prepare(
        &model,
        vec![one_token.clone()],
        GameRules { utility: UtilityKind::LogLikelihood, ..rules.clone() },
        None,
        |_| {},
    )
    .unwrap();
    let utilities = evaluate(&mut game, &coalitions(), 0);
    assert!((utilities[0] - utilities[15]).abs() > 1e-6, "masking matters: {utilities:?}");
    // With everybody inside, holding tokens back changes nothing.
    let whole = model.prefill(&one_token.prompt, ObservationRequest::default(), |_| {}).unwrap();
    let sum: f64 = whole.logits().iter().map(|&logit| f64::from(logit).exp()).sum();
    let expected = f64::from(whole.logits()[one_token.answer[0] as usize]) - sum.ln();
    assert!((utilities[15] - expected).abs() < 1e-5);

    // What is compared along the model's own answer is playable either way.
    for holdout_suffix in [0, 3] {
        for (utility, of_all) in [(UtilityKind::Agreement, 0.0), (UtilityKind::Retention, 1.0)] {
            let rules = GameRules { utility, holdout_suffix, ..GameRules::default() };
            let mut game = HeadMaskGame::prepare(&model, vec![one_token.clone()], rules, None, |_| {}).unwrap();
            let utilities = evaluate(&mut game, &coalitions(), 0);
            assert!((utilities[15] - of_all).abs() < 1e-6 && utilities[0] < of_all, "{utilities:?}");
        }
    }
    let metric = GameRules { utility: UtilityKind::Metric, ..rules };
    let score: Scorer<'_> = Box::new(|_, answer| Ok(answer.len() as f64));
    let mut metric = HeadMaskGame::prepare(&model, vec![one_token], metric, Some(score), |_| {}).unwrap();
    assert_eq!(evaluate(&mut metric, &coalitions(), 0), [5.0; 16]);
}

#[test]
fn batches_and_their_order_change_nothing_but_rounding() {
    let model = model(Format::F16);
    let records = vec![record(300, 4), record(280, 7)];
    let mut game = HeadMaskGame::prepare(&model, records.clone(), GameRules::default(), None, |_| {}).unwrap();
    let all = coalitions();
    let queries: Vec<Query<'_>> =
        (0..32).map(|at| Query { coalition: &all[at * 5 % 16], instance: at * 7 % 2 }).collect();
    let mut mixed = vec![0.0; 32];
    game.evaluate(&queries, &mut mixed).unwrap();
    // Room for the caches and for little else: every coalition is a batch of its own.
    let memory_bytes = Some((580 * 4 * 2 * 8 * 2 + 100) as u64);
    let rules = GameRules { memory_bytes, ..GameRules::default() };
    let mut narrow = HeadMaskGame::prepare(&model, records, rules, None, |_| {}).unwrap();
    assert_eq!(narrow.batch_limit(), 1);
    for (query, utility) in queries.iter().zip(mixed) {
        let alone = evaluate(&mut narrow, std::slice::from_ref(query.coalition), query.instance);
        assert!((alone[0] - utility).abs() < 1e-6);
    }
}

#[test]
fn what_cannot_be_played_is_said_before_anything_is_prefilled() {
    let model = model(Format::F32);
    let prepare = |record: GameRecord, rules: GameRules| {
        HeadMaskGame::prepare(&model, vec![record], rules, None, |_| panic!("prefilled")).err().unwrap()
    };
    let reason = |error: HeadMaskError| match error {
        HeadMaskError::Unplayable { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let rules = GameRules::default;
    let of = |utility| GameRules { utility, ..rules() };
    assert_eq!(reason(prepare(record(60, 0), rules())), Unplayable::EmptyAnswer);
    assert_eq!(reason(prepare(record(60, 1), of(UtilityKind::LogLikelihood))), Unplayable::OneToken);
    let short = Unplayable::ShortPrompt { prompt: 8, window: 8 };
    assert_eq!(reason(prepare(record(8, 5), of(UtilityKind::Agreement))), short);
    let tight = GameRules { memory_bytes: Some(1000), ..rules() };
    let error = prepare(record(60, 5), tight);
    assert!(matches!(error, HeadMaskError::TooLarge { records: 1, tokens: 60, .. }), "{error}");
    assert!(matches!(prepare(record(60, 5), of(UtilityKind::Metric)), HeadMaskError::NoScorer));
    let none = HeadMaskGame::prepare(&model, vec![], rules(), None, |_| {}).err().unwrap();
    assert!(matches!(none, HeadMaskError::NoRecords));

    let mut game = HeadMaskGame::prepare(&model, vec![record(60, 5)], rules(), None, |_| {}).unwrap();
    let five = Coalition::full(5);
    let error = game.evaluate(&[Query { coalition: &five, instance: 0 }], &mut [0.0]).unwrap_err();
    assert_eq!(error.to_string(), "a coalition of 5 players was asked about in a game of 4");
    let four = Coalition::full(4);
    assert!(game.evaluate(&[Query { coalition: &four, instance: 1 }], &mut [0.0]).is_err());
}
