//! How often what does not differ is marked, and how often what does: a simulation.

use std::fmt::Write as _;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::{Cluster, Difference, FEWEST};

/// What the differences of records are like where nothing differs: all have mean zero.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Normal,
    /// Half are zero, the others one up or one down.
    ThreeValued,
    /// Exponential: a long tail of gains against many small losses.
    Skewed,
    /// Nine of ten are zero.
    MostlyZero,
    /// Seven of ten are zero; gains are twice as large as losses and half as frequent.
    SkewedTies,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Normal, Self::ThreeValued, Self::Skewed, Self::MostlyZero, Self::SkewedTies];

    fn draw(self, random: &mut Pcg64) -> f64 {
        let mut uniform = || 1.0 - random.random::<f64>();
        let of_two = |place: f64, [up, down]: [f64; 2], [gain, loss]: [f64; 2]| match place {
            place if place <= up => gain,
            place if place <= up + down => -loss,
            _ => 0.0,
        };
        match self {
            Self::Normal => (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos(),
            Self::ThreeValued => of_two(uniform(), [0.25, 0.25], [1.0, 1.0]),
            Self::Skewed => -uniform().ln() - 1.0,
            Self::MostlyZero => of_two(uniform(), [0.05, 0.05], [1.0, 1.0]),
            Self::SkewedTies => of_two(uniform(), [0.1, 0.2], [2.0, 1.0]),
        }
    }

    /// A draw where there is an effect: continuous ones are moved, of the others as many become gains of one.
    fn draw_moved(self, effect: f64, random: &mut Pcg64) -> f64 {
        let value = self.draw(random);
        match self {
            Self::Normal | Self::Skewed => value + effect,
            _ if random.random::<f64>() < effect => 1.0,
            _ => value,
        }
    }

    fn deviation(self) -> f64 {
        match self {
            Self::Normal | Self::Skewed => 1.0,
            Self::ThreeValued => 0.5f64.sqrt(),
            Self::MostlyZero => 0.1f64.sqrt(),
            Self::SkewedTies => 0.6f64.sqrt(),
        }
    }
}

/// Records of each task, and how strongly its differences spread.
fn layouts(n: usize) -> [(&'static str, Vec<(usize, f64)>); 4] {
    [
        ("one task", vec![(n, 1.0)]),
        ("n, n/2, 2n", vec![(n, 1.0), (n / 2, 1.0), (2 * n, 1.0)]),
        ("six tasks", vec![(n, 1.0); 6]),
        ("n, and 4n that spread 0.3", vec![(n, 1.0), (4 * n, 0.3)]),
    ]
}

type Groups = Vec<Vec<f64>>;

/// What was done before: the percentile bootstrap, n - 1 draws of n, marked from six records.
fn bootstrap_marks(groups: &Groups, random: &mut Pcg64) -> bool {
    const RESAMPLES: usize = 400;
    if groups.iter().map(Vec::len).sum::<usize>() < 6 {
        return false;
    }
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mean_of = |group: &Vec<f64>| {
                let count = (group.len() - 1).max(1);
                (0..count).map(|_| group[random.random_range(0..group.len())]).sum::<f64>() / count as f64
            };
            groups.iter().map(mean_of).sum::<f64>() / groups.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[(share * (RESAMPLES - 1) as f64).round() as usize];
    at(0.025) > 0.0 || at(0.975) < 0.0
}

/// Marks of a hundred tables, of ours and of the bootstrap, which is slower and gets a tenth of the tables.
fn rates(tasks: &[(usize, f64)], kind: Kind, effect: f64, tables: usize, random: &mut Pcg64) -> [f64; 2] {
    let (mut ours, mut theirs) = (0, 0);
    for table in 0..tables {
        let groups: Groups =
            tasks.iter().map(|&(n, scale)| (0..n).map(|_| scale * kind.draw_moved(effect, random)).collect()).collect();
        let clusters: Vec<Vec<Cluster>> =
            groups.iter().map(|group| group.iter().map(|&value| Cluster::alone(value)).collect()).collect();
        let difference = Difference::of_groups(&clusters).unwrap();
        // The p-value and the interval are the same test.
        assert_eq!(difference.excludes_zero(), difference.p < 0.05, "{difference:?}");
        ours += usize::from(difference.excludes_zero());
        theirs += usize::from(table % 10 == 0 && bootstrap_marks(&groups, random));
    }
    let percent = |marks: usize, tables: usize| 100.0 * marks as f64 / tables as f64;
    [percent(ours, tables), percent(theirs, tables.div_ceil(10))]
}

/// All rates as a Markdown table, after a check that false marks are at most so many in a hundred.
fn table(tables: usize, sizes: &[usize], at_most: f64) -> String {
    let mut random = Pcg64::seed_from_u64(1);
    let mut text = String::from(
        "| tasks | differences | n | false marks | of the bootstrap | found | by the bootstrap |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
    );
    for place in 0..layouts(1).len() {
        for kind in Kind::ALL {
            for &n in sizes {
                let (name, tasks) = &layouts(n)[place];
                let [wrong, theirs] = rates(tasks, kind, 0.0, tables, &mut random);
                let records: usize = tasks.iter().map(|(n, _)| n).sum();
                // Three standard errors of the mean over all records.
                let effect = 3.0 * kind.deviation() / (records as f64).sqrt();
                let [found, by_theirs] = rates(tasks, kind, effect, tables, &mut random);
                writeln!(text, "| {name} | {kind:?} | {n} | {wrong:.1} | {theirs:.1} | {found:.0} | {by_theirs:.0} |")
                    .unwrap();
                assert!(wrong <= at_most, "{name}, {kind:?}, n = {n}: {wrong} false marks of 100\n{text}");
            }
        }
    }
    text
}

#[test]
fn of_a_hundred_that_do_not_differ_at_most_six_are_marked() {
    // 6 % of 1,000 tables are known to 0.75 %: three of these above.
    table(1000, &[4, 6, 8, 12, 50], 6.0 + 3.0 * 0.75);
}

/// `cargo test --release -p cokv-bench --lib rates -- --ignored --nocapture` prints the table of docs/statistics.md.
#[test]
#[ignore = "takes a minute or two: cargo xtask test --full"]
fn rates_of_ten_thousand_tables() {
    println!("{}", table(10_000, &[4, 6, 8, 12, 50, 200], 6.0));
}

/// A difference that all records share to the digit is marked from as many on as a mark takes, and never before.
#[test]
fn too_few_informative_records_have_no_mark_and_an_interval_with_zero() {
    let of = |informative: usize, zeros: usize| {
        let values = (0..informative).map(|place| 20.0 + (place % 2) as f64).chain(std::iter::repeat_n(0.0, zeros));
        Difference::of_groups(&[values.map(Cluster::alone).collect(), vec![Cluster::alone(0.0); 50]]).unwrap()
    };
    for zeros in [0, 3, 50] {
        let few = of(FEWEST - 1, zeros);
        assert!(few.low <= 0.0 && few.high > 0.0 && few.p == 1.0 && few.informative == FEWEST - 1, "{few:?}");
    }
    let enough = of(FEWEST, 0);
    assert!(enough.excludes_zero() && enough.p < 1e-6, "{enough:?}");
}
