//! Answers to what rows ask of logits, which stay on the device.

use std::fmt::{self, Debug};
use std::sync::Arc;

use cokv_models::ModelError;
use cokv_models::ask::{Along, Answer, Ask, Distributions, Logits, Top};
use cokv_models::backend::{self, foreign};

use super::watch::SUM_BYTES;
use crate::device::{Buffer, Device, Launch};
use crate::matrix::{Matrix, read, table};
use crate::plan::tables::{Best, DIRECT, Place};

/// Logits of a row, `[places, vocabulary]`.
pub struct DeviceLogits<D: Device> {
    device: Arc<D>,
    logits: Matrix<D::Buffer>,
}

impl<D: Device> Debug for DeviceLogits<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "logits of {} places on a device", self.logits.rows)
    }
}

impl<D: Device> Logits for DeviceLogits<D> {
    fn read(&self) -> Result<Vec<f32>, ModelError> {
        Ok(self.logits.download(self.device.as_ref())?)
    }
}

/// One row's places, and what it asked.
struct Asked<'a> {
    ask: Ask<'a>,
    first: usize,
    places: usize,
}

/// Answers some rows, each a question and its tokens, behind the answers of the rows before. `hidden` are
/// `[places, hidden_size]`, `logits` `[places, vocabulary]`.
pub fn answer<D: Device>(
    device: &Arc<D>,
    hidden: &Matrix<D::Buffer>,
    logits: &Matrix<D::Buffer>,
    asks: &[(Ask<'_>, usize)],
    answers: &mut Vec<Answer>,
) -> backend::Result<()> {
    let mut first = 0;
    let asked: Vec<Asked<'_>> = asks
        .iter()
        .map(|&(ask, tokens)| {
            let places = ask.looks_at(tokens);
            first += places;
            Asked { ask, first: first - places, places }
        })
        .collect();
    let finite = finite(device.as_ref(), hidden, logits)?;
    let mut tops = tops(device.as_ref(), logits, &asked)?.into_iter();
    // Rows may be compared with rows of the same call, so that their kept logits are told before anybody's numbers are.
    let start = answers.len();
    for asked in &asked {
        let fine = finite[asked.first..asked.first + asked.places].iter().all(|&fine| fine != 0);
        let top = matches!(asked.ask, Ask::Top { .. }).then(|| tops.next()).flatten();
        answers.push(match (fine, asked.ask) {
            (false, _) => Answer::NotFinite,
            (true, Ask::Nothing) => Answer::Nothing,
            (true, Ask::Top { .. }) => Answer::Top(top.unwrap_or_default()),
            (true, Ask::Logits) => Answer::Logits(logits.some_rows(asked.first, 1).download(device.as_ref())?),
            (true, Ask::Along { keep, .. }) => {
                let own =
                    || DeviceLogits { device: Arc::clone(device), logits: logits.some_rows(asked.first, asked.places) };
                Answer::Along(Along { kept: keep.then(|| Distributions::new(own())), ..Along::default() })
            }
        });
    }
    judge(device, logits, &asked, &mut answers[..], start)
}

/// Of each place, whether its numbers are.
fn finite<D: Device>(device: &D, hidden: &Matrix<D::Buffer>, logits: &Matrix<D::Buffer>) -> crate::Result<Vec<u32>> {
    let hidden = hidden.contiguous(device, hidden.kind)?;
    let results = device.allocate(4 * logits.rows)?;
    let arguments = [
        hidden.address().into(),
        hidden.kind.into(),
        hidden.width.into(),
        logits.address().into(),
        logits.width.into(),
        results.address().into(),
    ];
    device.launch(by_places("all_finite", logits.rows), &arguments)?;
    read(device, results.address(), logits.rows)
}

fn by_places(kernel: &'static str, places: usize) -> Launch<'static> {
    Launch { kernel, blocks: [places, 1], threads: 1024, shared_bytes: SUM_BYTES }
}

/// The likeliest tokens of all rows that ask for them.
fn tops<D: Device>(device: &D, logits: &Matrix<D::Buffer>, asked: &[Asked<'_>]) -> crate::Result<Vec<Top>> {
    let wanted: Vec<(u32, usize, bool)> = asked
        .iter()
        .filter_map(|asked| match asked.ask {
            Ask::Top { count, log_sum_exp } => Some((asked.first as u32, count, log_sum_exp)),
            _ => None,
        })
        .collect();
    let most = wanted.iter().map(|(_, count, _)| count.min(&logits.width)).max();
    let Some(&most) = most else { return Ok(Vec::new()) };
    let places: Vec<u32> = wanted.iter().map(|(place, ..)| *place).collect();
    let places_at = table(device, &places)?;
    let best = device.allocate(places.len() * most * size_of::<Best>())?;
    let log_sums = device.allocate(places.len() * 8)?;
    let arguments = [
        logits.address().into(),
        logits.width.into(),
        places_at.address().into(),
        most.into(),
        best.address().into(),
        log_sums.address().into(),
    ];
    device.launch(by_places("likeliest", places.len()), &arguments)?;
    let best: Vec<Best> = read(device, best.address(), places.len() * most)?;
    let log_sums: Vec<f64> = read(device, log_sums.address(), places.len())?;
    let top = |(row, (_, count, log_sum_exp)): (usize, (u32, usize, bool))| {
        let best = best[row * most..(row + 1) * most].iter().take(count).filter(|best| best.token != DIRECT);
        Top {
            tokens: best.map(|best| (best.token, best.logit)).collect(),
            log_sum_exp: log_sum_exp.then_some(log_sums[row]),
        }
    };
    Ok(wanted.into_iter().enumerate().map(top).collect())
}

/// Fills in log-likelihoods and divergences; the answers of this call begin at `start`.
fn judge<D: Device>(
    device: &Arc<D>,
    logits: &Matrix<D::Buffer>,
    asked: &[Asked<'_>],
    answers: &mut [Answer],
    start: usize,
) -> backend::Result<()> {
    let mut places = Vec::new();
    for (row, asked) in asked.iter().enumerate() {
        let (Ask::Along { targets, ref against, .. }, Answer::Along(_)) = (asked.ask, &answers[start + row]) else {
            continue;
        };
        let other = match against.distributions(&answers[..start + row])? {
            None => None,
            Some(other) => {
                let other = other.held_as::<DeviceLogits<D>>().ok_or_else(|| foreign("row's distributions"))?;
                if other.logits.rows < asked.places {
                    return Err(ModelError::Backend("a row is compared with one that has fewer places".into()));
                }
                Some(&other.logits)
            }
        };
        places.extend((0..asked.places).map(|place| Place {
            logits: logits.row(asked.first + place),
            other: other.map_or(0, |other| other.row(place)),
            target: targets.get(place).copied().unwrap_or(DIRECT),
            unused: 0,
        }));
    }
    if places.is_empty() {
        return Ok(());
    }
    let places_at = table(device.as_ref(), &places)?;
    let results = device.allocate(16 * places.len())?;
    let arguments = [places_at.address().into(), logits.width.into(), results.address().into()];
    device.launch(by_places("judge", places.len()), &arguments)?;
    let results: Vec<[f64; 2]> = read(device.as_ref(), results.address(), places.len())?;
    let mut judged = places.iter().zip(results);
    for (row, asked) in asked.iter().enumerate() {
        let Answer::Along(along) = &mut answers[start + row] else { continue };
        for (place, [log_likelihood, divergence]) in judged.by_ref().take(asked.places) {
            along.log_likelihoods.extend((place.target != DIRECT).then_some(log_likelihood));
            along.divergences.extend((place.other != 0).then_some(divergence));
        }
    }
    Ok(())
}
