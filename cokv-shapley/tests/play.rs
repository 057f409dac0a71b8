//! However the samples are shared out and whatever interrupts, the result has the same bits.

mod common;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use cokv_core::{
    Answered, ConfigTable, Game, GameError, HeadLayout, ImportanceEstimator, LayerView, Limits, PolicyError, Query,
    Shard, Study, Subject, Teller, Told,
};
use cokv_shapley::diagnostics::{silent, spreads};
use cokv_shapley::estimators::{Exact, LeaveOneOut, Permutation, Scpr, Ssv};
use cokv_shapley::games::{Additive, Glove, Instances, Noisy, Symmetric, Unanimity};
use cokv_shapley::{
    Design, Estimator, FitError, Kept, LogFile, Outcome, PlayError, PlaySettings, Progress, SampleLog, Sampled,
    SamplingPlan, Stop, exact_shapley, play, read_log,
};
use common::{assert_close, empty_log, plan};

const PLAYERS: usize = 10;

fn game() -> impl Game {
    Noisy { game: Instances::new(Unanimity::like_heads(PLAYERS, 1), 4, 0.05, 1), deviation: 0.02, seed: 1 }
}

fn fresh() -> SampleLog {
    empty_log(SamplingPlan { instances_per_sample: 2, ..plan(&game(), Design::middle(PLAYERS), 5) })
}

fn evaluations(limit: u64) -> PlaySettings {
    let stop = Stop { reliability: None, evaluations: Some(limit), ..Stop::default() };
    PlaySettings { stop, batch: 3, round: 7, ..PlaySettings::default() }
}

fn run(log: &mut SampleLog, settings: &PlaySettings) -> Outcome {
    let proceed = &mut |_: &Progress| ControlFlow::Continue(());
    play(&mut game(), log, &Scpr::default(), settings, &mut |_| Ok(()), proceed).unwrap()
}

#[test]
fn shards_are_the_whole() {
    let mut whole = fresh();
    // 8 evaluations of the ends and 60 samples of two coalitions on two instances.
    assert_eq!(run(&mut whole, &evaluations(8 + 240)), Outcome::Evaluations);
    assert_eq!((whole.len(), whole.evaluations()), (60, 248));
    let mut merged = fresh();
    for index in [2, 0, 1] {
        let mut shard = fresh();
        let stop = Stop { reliability: None, ..Stop::default() };
        let settings = PlaySettings { shard: Shard { index, count: 3 }, samples: Some(60), stop, ..evaluations(0) };
        assert_eq!(run(&mut shard, &settings), Outcome::Exhausted);
        // Rounds of seven samples.
        assert!(shard.samples().all(|sample| sample.k / 7 % 3 == index));
        merged.merge(shard).unwrap();
    }
    assert_eq!(merged, whole);
    assert_eq!(Scpr::default().fit(&merged).unwrap(), Scpr::default().fit(&whole).unwrap());
}

/// Rounds utilities as a machine with other registers does.
struct Rounding<G>(G, f64);

impl<G: Game> Game for Rounding<G> {
    fn players(&self) -> usize {
        self.0.players()
    }
    fn instances(&self) -> usize {
        self.0.instances()
    }
    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        self.0.evaluate(queries, utilities)?;
        utilities.iter_mut().for_each(|utility| *utility += self.1);
        Ok(())
    }
}

/// Regression: every shard evaluates the ends, and shards of an AVX2 and an AVX-512 machine were refused as two games.
#[test]
fn shards_of_machines_that_round_differently_are_the_whole() {
    let shard = |index: u64, error: f64| {
        let mut log = fresh();
        let settings = PlaySettings { shard: Shard { index, count: 2 }, ..evaluations(8 + 80) };
        let proceed = &mut |_: &Progress| ControlFlow::Continue(());
        let mut game = Rounding(game(), error);
        play(&mut game, &mut log, &Scpr::default(), &settings, &mut |_| Ok(()), proceed).unwrap();
        log
    };
    let mut merged = shard(0, 0.0);
    let ends = merged.ends().cloned();
    let notice = merged.merge(shard(1, 2e-7)).unwrap().unwrap().to_string();
    assert!(notice.starts_with("1 utilities that other logs hold too differ by up to 2.0e-7"), "{notice}");
    assert_eq!((merged.len(), merged.ends().cloned()), (40, ends), "the first ends stay");
    // A sample that both evaluated, as well.
    assert!(merged.merge(shard(0, 1e-7)).unwrap().is_some());
    assert_eq!(merged.merge(shard(0, 0.0)).unwrap(), None, "what is equal is not worth a word");
    // Another game is not rounding.
    let message = merged.merge(shard(1, 0.1)).unwrap_err().to_string();
    assert!(message.contains("was evaluated twice with different utilities"), "{message}");
}

#[test]
fn batches_and_rounds_change_nothing() {
    let mut first = fresh();
    run(&mut first, &evaluations(248));
    for (batch, round) in [(1, 1), (1000, 1000), (5, 64)] {
        let mut second = fresh();
        run(&mut second, &PlaySettings { batch, round, ..evaluations(248) });
        assert_eq!(second, first);
    }
}

#[test]
fn a_batch_is_about_one_instance() {
    struct Strict<G>(G);
    impl<G: Game> Game for Strict<G> {
        fn players(&self) -> usize {
            self.0.players()
        }
        fn instances(&self) -> usize {
            self.0.instances()
        }
        fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
            assert!(queries.len() <= 3 && queries.iter().all(|query| query.instance == queries[0].instance));
            self.0.evaluate(queries, utilities)
        }
    }
    let mut log = fresh();
    let proceed = &mut |_: &Progress| ControlFlow::Continue(());
    let settings = evaluations(100);
    play(&mut Strict(game()), &mut log, &Scpr::default(), &settings, &mut |_| Ok(()), proceed).unwrap();
}

/// Plays into a file until the observer has been called `patience` times.
fn play_file(path: &std::path::Path, settings: &PlaySettings, mut patience: usize) -> (Outcome, SampleLog) {
    let header = fresh().header().clone();
    let (mut file, mut log, _) = LogFile::open(path, &header).unwrap();
    let observe = &mut |_: &Progress| {
        patience = patience.saturating_sub(1);
        if patience == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let keep = &mut |kept: Kept<'_>| match kept {
        Kept::Ends(ends) => file.append_ends(ends),
        Kept::Sample(sample) => file.append(sample),
    };
    let outcome = play(&mut game(), &mut log, &Scpr::default(), settings, keep, observe).unwrap();
    (outcome, log)
}

#[test]
fn an_interrupted_play_resumes_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop { reliability: Some(0.98), evaluations: Some(4000), ..Stop::default() };
    let settings = PlaySettings { stop, batch: 2, round: 1, ..PlaySettings::default() };
    let straight = folder.path().join("straight.jsonl");
    let (outcome, whole) = play_file(&straight, &settings, usize::MAX);
    assert_eq!(outcome, Outcome::Reliable);
    assert!(whole.len() > 64, "as many rounds as are each followed by a fit: {}", whole.len());
    assert_eq!(read_log(&straight).unwrap(), (whole.clone(), Vec::new()));

    let path = folder.path().join("new folder").join("interrupted.jsonl");
    let mut outcomes = Vec::new();
    for patience in [1, 2, 3, 5, 8, 13, 2, 1, 7, usize::MAX] {
        let (outcome, _) = play_file(&path, &settings, patience);
        outcomes.push(outcome);
        if outcome != Outcome::Interrupted {
            break;
        }
        // The machine dies in the middle of a line.
        let bytes = std::fs::read(&path).unwrap();
        let torn = bytes.len() - (7 * bytes.len() + patience) % (bytes.len() / 3);
        std::fs::write(&path, &bytes[..torn]).unwrap();
    }
    assert_eq!(outcomes.pop(), Some(Outcome::Reliable));
    assert!(outcomes.len() > 5 && outcomes.iter().all(|outcome| *outcome == Outcome::Interrupted));
    assert_eq!(read_log(&path).unwrap().0, whole);
}

#[test]
fn a_file_cut_at_any_byte_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let settings = evaluations(8 + 40);
    let (_, whole) = play_file(&path, &settings, usize::MAX);
    let bytes = std::fs::read(&path).unwrap();
    for length in (0..bytes.len()).step_by(13) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let (outcome, log) = play_file(&path, &settings, usize::MAX);
        assert_eq!(outcome, Outcome::Evaluations);
        assert_eq!(log, whole, "cut at {length}");
        assert_eq!(read_log(&path).unwrap(), (log, Vec::new()), "cut at {length}");
    }
}

#[test]
fn finite_designs_end() {
    let proceed = &mut |_: &Progress| ControlFlow::Continue(());
    let settings = PlaySettings { stop: Stop { reliability: None, ..Stop::default() }, ..PlaySettings::default() };
    for estimator in [&Exact {} as &dyn Estimator, &LeaveOneOut {}] {
        let mut log = empty_log(plan(&game(), estimator.design(PLAYERS), 0));
        let outcome = play(&mut game(), &mut log, estimator, &settings, &mut |_| Ok(()), proceed).unwrap();
        assert_eq!(outcome, Outcome::Exhausted);
        assert_eq!(Some(log.len() as u64), log.plan().samples());
    }
}

#[test]
fn one_player_is_worth_everything() {
    let mut game = Additive::new(vec![3.0]);
    let proceed = &mut |_: &Progress| ControlFlow::Continue(());
    for estimator in [&Exact {} as &dyn Estimator, &LeaveOneOut {}] {
        let mut log = empty_log(plan(&game, estimator.design(1), 0));
        let settings = PlaySettings::default();
        play(&mut game, &mut log, estimator, &settings, &mut |_| Ok(()), proceed).unwrap();
        assert_eq!(estimator.fit(&log).unwrap().values, [1.0]);
    }
}

#[test]
fn reliability_stops_at_planted_levels_of_noise() {
    let players = 24;
    let truth = Unanimity::like_heads(players, 3).shapley();
    let mut spent = Vec::new();
    for deviation in [0.02, 0.1, 0.3] {
        let mut game = Noisy { game: Unanimity::like_heads(players, 3), deviation, seed: 2 };
        let mut log = empty_log(plan(&game, Design::middle(players), 2));
        let mut last = None;
        let observe = &mut |progress: &Progress| {
            last = Some(progress.clone());
            ControlFlow::Continue(())
        };
        let settings = PlaySettings { round: 20, ..PlaySettings::default() };
        let outcome = play(&mut game, &mut log, &Scpr::default(), &settings, &mut |_| Ok(()), observe).unwrap();
        assert_eq!(outcome, Outcome::Reliable);
        let last = last.unwrap();
        let estimate = last.estimate.unwrap();
        assert_eq!((last.samples, last.evaluations), (log.len() as u64, log.evaluations()));
        assert!(estimate.reliability >= 0.9);
        let actual = cokv_shapley::statistics::pearson(&estimate.values, &truth).powi(2);
        assert!(actual > 0.75, "stopped at {actual} with noise {deviation}");
        spent.push(log.evaluations());
    }
    assert!(spent.is_sorted() && spent[2] > 2 * spent[0], "{spent:?}");

    let mut noise = Noisy { game: Symmetric { by_size: vec![0.0; players + 1] }, deviation: 0.1, seed: 2 };
    let mut log = empty_log(plan(&noise, Design::middle(players), 2));
    let stop = Stop { evaluations: Some(2000), ..Stop::default() };
    let settings = PlaySettings { stop, round: 20, ..PlaySettings::default() };
    let proceed = &mut |_: &Progress| ControlFlow::Continue(());
    let outcome = play(&mut noise, &mut log, &Scpr::default(), &settings, &mut |_| Ok(()), proceed).unwrap();
    assert_eq!(outcome, Outcome::Evaluations);
}

#[test]
fn the_other_rules_stop() {
    let outcome = |stop: Stop, deviation: f64| {
        let mut game = Noisy { game: Unanimity::like_heads(40, 3), deviation, seed: 2 };
        let mut log = empty_log(plan(&game, Design::authors(40), 2));
        let settings = PlaySettings { stop, round: 20, ..PlaySettings::default() };
        let proceed = &mut |_: &Progress| ControlFlow::Continue(());
        play(&mut game, &mut log, &Ssv::default(), &settings, &mut |_| Ok(()), proceed).unwrap()
    };
    let limited = Stop { reliability: None, evaluations: Some(3000), ..Stop::default() };
    let mae = Stop { two_run_mae: true, ..limited.clone() };
    assert_eq!(outcome(mae.clone(), 0.05), Outcome::TwoRunMae);
    assert_eq!(outcome(mae, 5.0), Outcome::Evaluations);
    let distance = Stop { allocation_distance: Some(0.15), ..limited.clone() };
    assert_eq!(outcome(distance.clone(), 0.01), Outcome::AllocationDistance);
    assert_eq!(outcome(distance.clone(), 5.0), Outcome::Evaluations);
    // Where both are asked for, neither is enough.
    let both = |reliability: f64, most: f64| Stop {
        reliability: Some(reliability),
        allocation_distance: Some(most),
        ..limited.clone()
    };
    assert_eq!(outcome(both(0.9, 0.15), 0.01), Outcome::Reliable);
    assert_eq!(outcome(both(0.9, 1e-9), 0.01), Outcome::Evaluations);
    assert_eq!(outcome(both(0.9999999, 0.9), 0.1), Outcome::Evaluations);
    assert_eq!(outcome(Stop { time: Some(Duration::ZERO), ..limited }, 0.1), Outcome::Time);
}

#[test]
fn broken_games_and_settings_say_so() {
    struct Broken;
    impl Game for Broken {
        fn players(&self) -> usize {
            4
        }
        fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
            for (query, utility) in queries.iter().zip(utilities) {
                *utility = if query.coalition.to_string() == "4:6" { f64::NAN } else { 0.5 };
            }
            Ok(())
        }
    }
    let mut log = empty_log(plan(&Broken, Design::Exhaustive, 0));
    let mut kept = 0;
    let proceed = &mut |_: &Progress| ControlFlow::Continue(());
    let keep = &mut |_: Kept<'_>| {
        kept += 1;
        Ok(())
    };
    let settings = PlaySettings::default();
    let error = play(&mut Broken, &mut log, &Exact {}, &settings, keep, proceed).unwrap_err();
    assert_eq!(error.to_string(), "the utility of coalition 4:6 on instance 0 is NaN, which is not a finite number");
    // The ends and seven of eight pairs were whole.
    assert_eq!((kept, log.len()), (8, 7));

    let attempt = |log: &mut SampleLog, estimator: &dyn Estimator, settings: PlaySettings| {
        let proceed = &mut |_: &Progress| ControlFlow::Continue(());
        play(&mut Glove { left: 2, right: 2 }, log, estimator, &settings, &mut |_| Ok(()), proceed)
    };
    let log = || empty_log(plan(&Broken, Design::AllSizes, 0));
    let shard = PlaySettings { shard: Shard { index: 2, count: 2 }, ..settings.clone() };
    assert!(matches!(attempt(&mut log(), &Scpr::default(), shard), Err(PlayError::Settings(_))));
    let batch = PlaySettings { batch: 0, ..settings.clone() };
    assert!(matches!(attempt(&mut log(), &Scpr::default(), batch), Err(PlayError::Settings(_))));
    assert!(matches!(attempt(&mut fresh(), &Scpr::default(), settings.clone()), Err(PlayError::Settings(_))));
    let mut unplayed = log();
    let wrong = attempt(&mut unplayed, &Permutation::default(), settings);
    assert!(matches!(wrong, Err(PlayError::Fit(FitError::Design { .. }))));
    assert_eq!(unplayed.evaluations(), 0);
}

/// A study that is a game and nothing else.
struct OfGame<G> {
    subject: Subject,
    log: std::path::PathBuf,
    game: G,
    told: Tells,
}

#[derive(Default)]
struct Tells(Vec<String>);

impl Teller for Tells {
    fn tell(&mut self, told: &Told<'_>) -> ControlFlow<()> {
        self.0.push(format!("{told:?}"));
        ControlFlow::Continue(())
    }
}

impl<G: Game> Teller for OfGame<G> {
    fn tell(&mut self, told: &Told<'_>) -> ControlFlow<()> {
        self.told.tell(told)
    }
}

impl<G: Game> Study for OfGame<G> {
    fn subject(&self) -> &Subject {
        &self.subject
    }
    fn log(&self) -> &std::path::Path {
        &self.log
    }
    fn game(&mut self) -> Result<(&mut dyn Game, &mut dyn Teller), GameError> {
        Ok((&mut self.game, &mut self.told))
    }
    fn record(&self, _: usize) -> &str {
        ""
    }
    fn answer(&mut self, _: usize) -> Result<Answered, GameError> {
        Err("a game answers nothing".into())
    }
    fn attention(
        &mut self,
        _: usize,
        _: &[u32],
        _: &mut dyn FnMut(&LayerView<'_>) -> Result<(), PolicyError>,
    ) -> Result<(), GameError> {
        Err("a game looks at nothing".into())
    }
}

fn sampled(name: &str) -> Sampled {
    let text = format!("estimator = '{name}'");
    let mut table = ConfigTable::parse("test", &text).unwrap();
    let choice = table.take_choice("estimator").unwrap().unwrap();
    let estimator = cokv_shapley::estimator(&choice).unwrap();
    Sampled {
        estimator,
        design: None,
        records_per_sample: 1,
        two_run_mae: false,
        allocation_distance: None,
        allocation: None,
        pilot: 0,
    }
}

fn study(log: PathBuf, evaluations: u64, shard: Shard) -> OfGame<impl Game> {
    let limits = Limits { seed: 1, reliability: 0.9, evaluations: Some(evaluations), time: None, batch: 16, shard };
    let subject = Subject {
        layout: HeadLayout::new(2, 5, 5, 4).unwrap(),
        players: PLAYERS,
        records: 4,
        fingerprint: "the game".into(),
        computed_by: "a test".into(),
        about: Default::default(),
        limits,
    };
    OfGame { subject, log, game: game(), told: Tells::default() }
}

#[test]
fn a_sampled_estimate_is_kept_in_its_log_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let study = || study(folder.path().join("log.jsonl"), 5000, Shard::WHOLE);
    let mut first = study();
    let exact = sampled("exact");
    exact.check(&first.subject).unwrap();
    let estimate = exact.estimate(&mut first).unwrap().unwrap();
    assert_close(&estimate.values, &exact_shapley(&mut game()).unwrap(), 1e-12);
    assert!(
        estimate.summary.starts_with("reliable: reliability 1.000 after 512 samples, 4104 evaluations"),
        "{}",
        estimate.summary
    );
    // Again, from the log alone.
    let mut second = study();
    assert!(exact.is_log(&second.log, &second.subject).unwrap());
    assert!(!sampled("scpr").is_log(&second.log, &second.subject).unwrap());
    assert_eq!(exact.estimate(&mut second).unwrap().unwrap(), estimate);
    assert!(second.told.0[0].starts_with("Resumed("), "{:?}", second.told.0);
}

/// Tasks of a cluster play in waves until all of them know enough together: whatever more they have played than one machine would have
/// is left out.
#[test]
fn shares_in_waves_end_where_one_play_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let scpr = sampled("scpr");
    let mut whole = study(path("whole.jsonl"), 5000, Shard::WHOLE);
    let expected = scpr.estimate(&mut whole).unwrap().unwrap();
    assert!(expected.summary.starts_with("reliable: "), "{}", expected.summary);
    for count in [2, 3, 8] {
        let mut logs = Vec::new();
        let mut waves = 0;
        while !scpr.is_enough(&logs, &whole.subject).unwrap() {
            for index in 0..count {
                let log = path(&format!("{index}-of-{count}.{waves}.jsonl"));
                let mut share = study(log.clone(), 100 << waves, Shard { index, count });
                scpr.join(&logs, &log, &share.subject).unwrap();
                scpr.estimate(&mut share).unwrap();
                let left = scpr.effort(&share.subject, &[], Some(&log)).unwrap().unwrap();
                assert_eq!(Some(left.done), left.most, "a share is done when it is played");
                logs.push(log);
            }
            waves += 1;
        }
        let joined = path(&format!("joined-{count}.jsonl"));
        scpr.join(&logs, &joined, &whole.subject).unwrap();
        assert_eq!(read_log(&joined).unwrap().0, read_log(path("whole.jsonl")).unwrap().0);
        let mut again = study(joined, 5000, Shard::WHOLE);
        assert_eq!(scpr.estimate(&mut again).unwrap().unwrap(), expected, "{count} shards, {waves} waves");
    }
}

/// The instances behind the first are dead: nothing depends on the coalition there.
struct Dead<G> {
    game: G,
    alive: usize,
    dead: usize,
}

impl<G: Game> Game for Dead<G> {
    fn players(&self) -> usize {
        self.game.players()
    }
    fn instances(&self) -> usize {
        self.alive + self.dead
    }
    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        self.game.evaluate(queries, utilities)?;
        for (query, utility) in queries.iter().zip(utilities) {
            *utility = if query.instance < self.alive { *utility } else { 0.125 };
        }
        Ok(())
    }
}

fn half_dead(seed: u64) -> Dead<Noisy<Unanimity>> {
    Dead { game: Noisy { game: Unanimity::like_heads(PLAYERS, 1), deviation: 0.05, seed }, alive: 3, dead: 5 }
}

#[test]
fn a_pilot_spares_instances_that_tell_nothing() {
    let truth: Vec<f64> = Unanimity::like_heads(PLAYERS, 1).shapley().iter().map(|value| value * 3.0 / 8.0).collect();
    let error = |pilot: u64| {
        let of_seed = |seed: u64| {
            let mut game = half_dead(seed);
            let mut log = empty_log(plan(&game, Design::middle(PLAYERS), seed));
            let stop = Stop { reliability: None, evaluations: Some(1500), ..Stop::default() };
            let settings = PlaySettings { stop, pilot, round: 1 << 12, ..PlaySettings::default() };
            let proceed = &mut |_: &Progress| ControlFlow::Continue(());
            let outcome = play(&mut game, &mut log, &Scpr::default(), &settings, &mut |_| Ok(()), proceed).unwrap();
            assert_eq!(outcome, Outcome::Evaluations);
            assert!(log.evaluations() > 1490, "{}", log.evaluations());
            assert_eq!(silent(&spreads(&log)), [3, 4, 5, 6, 7]);
            let values = Scpr::default().fit(&log).unwrap().values;
            let squares = values.iter().zip(&truth).map(|(value, truth)| (value - truth).powi(2));
            squares.sum::<f64>()
        };
        (0..8).map(of_seed).sum::<f64>()
    };
    let (alike, by_spread) = (error(0), error(8));
    assert!(by_spread < 0.75 * alike, "{by_spread} {alike}");
}

#[test]
fn a_play_with_a_pilot_goes_on_and_ends_where_it_would_have() {
    let folder = tempfile::tempdir().unwrap();
    let with_pilot = Sampled { pilot: 4, ..sampled("scpr") };
    let study = |name: &str, evaluations: u64| {
        let OfGame { subject, log, told, .. } = study(folder.path().join(name), evaluations, Shard::WHOLE);
        let subject = Subject { records: 8, ..subject };
        OfGame { subject, log, game: half_dead(2), told }
    };
    let whole = with_pilot.estimate(&mut study("whole.jsonl", 700)).unwrap().unwrap();
    // Broken off within the pilot, and behind it.
    for evaluations in [50, 300] {
        with_pilot.estimate(&mut study("parts.jsonl", evaluations)).unwrap().unwrap();
    }
    assert_eq!(with_pilot.estimate(&mut study("parts.jsonl", 700)).unwrap().unwrap(), whole);
    assert_eq!(whole.silent, [3, 4, 5, 6, 7]);
    // Again, from the log alone.
    assert_eq!(with_pilot.estimate(&mut study("whole.jsonl", 700)).unwrap().unwrap(), whole);
    assert!(!with_pilot.is_shared(&study("whole.jsonl", 700).subject));
    let several = Sampled { records_per_sample: 2, ..with_pilot };
    assert!(several.check(&study("whole.jsonl", 700).subject).is_err());
}
