//! All cells of one prompt.

use std::ops::{ControlFlow, Range};

use cokv_core::{Method, Selection};
use cokv_models::cache::RaggedCache;
use cokv_models::{Compressed, LanguageModel, ModelError, Prefill};

use super::texts::{Context, Texts};
use super::{Asked, Cell, Job, JobCell, Matrix};
use crate::data::{Protocol, prompt};
use crate::event::Listener;
use crate::run::kept::{Kept, KeptCell};
use crate::run::measure::{Damage, agreement, damage};
use crate::run::store::Row;

impl Matrix<'_> {
    /// All rows of a prompt, from one prefill and decoded as one batch; or, for comparison, each from a prefill of its own
    /// and decoded alone, as where nothing is shared. `context` is what the prompt before was about, which this one may be, too.
    pub(super) fn run_prompt(
        &self,
        model: &LanguageModel,
        job: &Job<'_>,
        context: &mut Option<Context>,
        listener: &mut dyn Listener,
    ) -> Result<(Vec<Row>, Kept), ModelError> {
        let Asked { task, record, .. } = job.asked;
        let mut rows = Vec::with_capacity(self.cells.len());
        let mut kept = Kept {
            model: self.config.model.source.clone(),
            task: task.name.clone(),
            record: record.id.clone(),
            prompt_tokens: job.asked.prompt_tokens(),
            cells: Vec::new(),
        };
        let mut references = Vec::new();
        let shares = self.config.run.share_prefill;
        let at_once = if shares { self.cells.len() } else { 1 };
        for start in (0..self.cells.len()).step_by(at_once) {
            let cells = start..self.cells.len().min(start + at_once);
            let previous = context.take().filter(|_| shares);
            let texts = Texts::read(self, model, job, cells.clone(), previous, listener)?;
            // Cells of a protocol stand together.
            for of_protocol in self.by_protocol(cells) {
                let (of_cells, kept_cells) = self.run_cells(model, job, of_protocol, &texts, &mut references)?;
                rows.extend(of_cells);
                kept.cells.extend(kept_cells);
            }
            *context = texts.context;
        }
        Ok((rows, kept))
    }

    fn by_protocol(&self, cells: Range<usize>) -> Vec<Range<usize>> {
        let of = |cell: &usize| self.cells[*cell].protocol;
        let all: Vec<usize> = cells.collect();
        all.chunk_by(|a, b| of(a) == of(b)).map(|run| run[0]..run[run.len() - 1] + 1).collect()
    }

    /// Some cells of a prompt, all of one protocol. `references` are the full cache's answers that are known already.
    fn run_cells(
        &self,
        model: &LanguageModel,
        job: &Job<'_>,
        cells: Range<usize>,
        texts: &Texts,
        references: &mut Vec<(Protocol, Vec<u32>)>,
    ) -> Result<(Vec<Row>, Vec<KeptCell>), ModelError> {
        let Asked { task, first, .. } = job.asked;
        let own = &job.cells[cells.clone()];
        let protocol = self.cells[cells.start].protocol;
        let prompt = job.asked.prompt(protocol);
        let compressed = prompt.compressed_tokens(protocol);
        let (prefill, prefill_seconds) = texts.of(protocol)?;

        let (mut branches, of_cells) = self.branches(job, cells.clone(), prefill)?;
        let mut kept = Vec::new();
        if *first {
            let evicting = cells.clone().zip(own).zip(&of_cells);
            kept.extend(evicting.filter_map(|((place, own), &branch)| {
                let (cell, selection) = (&self.cells[place], branches[branch].selection.as_ref()?);
                let fingerprint = own.fingerprint.clone();
                Some(KeptCell::of(fingerprint, &cell.name(), &cell.budget_name(), selection, compressed))
            }));
        }

        let stop = prompt::stop_rule(self.model, task)?;
        let started = std::time::Instant::now();
        // What follows what was compressed is read in full on what is left of it.
        let (last, asked) =
            prompt.tokens[compressed..].split_last().map_or((None, &[][..]), |(last, asked)| (Some(*last), asked));
        if !asked.is_empty() {
            model.extend(&mut branches, asked, &stop)?;
        }
        let asking = started.elapsed();
        let damages = damage(model, &mut branches, last, &prompt.answer)?;
        let started = std::time::Instant::now();
        let firsts = match last {
            Some(last) => model.extend(&mut branches, &[last], &stop)?,
            None => vec![prefill.first(&stop)],
        };
        // The full cache's answer may be known from the cells before.
        let reference = references.iter().find(|(of, _)| *of == protocol).map(|(_, answer)| answer.clone());
        let known = usize::from(reference.is_some());
        let batch = &mut branches[known..];
        let batch_rows = batch.len();
        let firsts = if firsts.len() > 1 { &firsts[known..] } else { &firsts };
        let answers = model.greedy(batch, firsts, &stop, |_, _| ControlFlow::Continue(()))?;
        let decode_seconds = (started.elapsed() + asking).as_secs_f64();
        branches.iter_mut().zip(damages).for_each(|(branch, damage)| branch.damage = damage);
        branches[known..].iter_mut().zip(answers).for_each(|(branch, answer)| branch.answer = answer);
        match reference {
            Some(full) => branches[0].answer = full,
            None => references.push((protocol, branches[0].answer.clone())),
        }

        let times = Times { prefill_seconds, decode_seconds, batch_rows };
        let (whole, full) = (branches[0].kept_tokens, branches[0].answer.clone());
        let rows = cells.zip(own).zip(of_cells).map(|((place, own), branch)| {
            self.row(job, &self.cells[place], own, &branches[branch], (whole, &full), &times)
        });
        Ok((rows.collect::<Result<_, _>>()?, kept))
    }

    /// What of a prompt is decoded: the full cache first, as the reference, whether or not it is a column of its own; then what
    /// each cell keeps. With them, the branch of every cell. Every layer is looked at once for all methods, whatever the
    /// number of budgets.
    fn branches(
        &self,
        job: &Job<'_>,
        cells: Range<usize>,
        prefill: &Prefill,
    ) -> Result<(Vec<Branch>, Vec<usize>), ModelError> {
        let own = &job.cells[cells.clone()];
        let asked: Vec<(&Method, usize)> = self.cells[cells.clone()]
            .iter()
            .zip(own)
            .filter(|(_, own)| own.method.evicts())
            .filter_map(|(cell, own)| Some((own.method, prefill.allowed(own.method, cell.budget?))))
            .collect();
        let mut scored = prefill.score_all(&asked)?.into_iter();
        let mut branches = vec![Branch::new(RaggedCache::full(prefill.prompt()), None)];
        let mut of_cells = Vec::with_capacity(own.len());
        for (cell, JobCell { method, .. }) in self.cells[cells].iter().zip(own) {
            let scores = if method.evicts() { cell.budget.zip(scored.next()) } else { None };
            let Some((budget, scores)) = scores else {
                of_cells.push(0);
                continue;
            };
            let Compressed { cache, selection, .. } = prefill.compress_scored(method, &scores, budget)?;
            of_cells.push(branches.len());
            branches.push(Branch::new(cache, Some(selection)));
        }
        Ok((branches, of_cells))
    }

    /// What is written down of a cell. `full` are the tokens that the full cache keeps and its answer.
    fn row(
        &self,
        job: &Job<'_>,
        cell: &Cell<'_>,
        own: &JobCell<'_>,
        branch: &Branch,
        full: (usize, &[u32]),
        times: &Times,
    ) -> Result<Row, ModelError> {
        let Asked { task, record, .. } = job.asked;
        let prompt = job.asked.prompt(cell.protocol);
        let prediction = prompt::prediction(self.model, task, &branch.answer)?;
        let score = task.score(&prediction, record);
        // A question that was read with the prompt decides the first token for all.
        let (context_tokens, first) = match cell.protocol {
            Protocol::QuestionSeen => (None, 1),
            Protocol::ContextOnly => (Some(prompt.context_tokens()), 0),
        };
        Ok(Row {
            fingerprint: own.fingerprint.clone(),
            model: self.config.model.source.clone(),
            task: task.name.clone(),
            record: record.id.clone(),
            method: cell.name(),
            protocol: cell.protocol,
            settings: own.settings.to_owned(),
            head_scores: own.head_scores.cloned(),
            budget: cell.budget_name(),
            prompt_tokens: prompt.tokens.len(),
            context_tokens,
            kept_tokens: branch.kept_tokens,
            kept_share: branch.kept_tokens as f64 / full.0 as f64,
            cache_bytes: branch.cache_bytes,
            prediction,
            question: record.input.chars().take(QUESTION_LETTERS).collect(),
            answers: record.answers.clone(),
            all_classes: record.all_classes.clone(),
            length: record.length,
            place: record.place,
            text: record.text.clone(),
            metric: task.metric.name().into(),
            score,
            log_likelihood: branch.damage.log_likelihood,
            divergence: branch.damage.divergence,
            agreement: agreement(full.1, &branch.answer, task.max_new_tokens, first),
            new_tokens: branch.answer.len(),
            prefill_seconds: times.prefill_seconds,
            decode_seconds: times.decode_seconds,
            batch_rows: times.batch_rows,
        })
    }
}

/// One way on from a prompt: a row of every pass behind it.
struct Branch {
    cache: RaggedCache,
    /// None where nothing is evicted.
    selection: Option<Selection>,
    kept_tokens: usize,
    cache_bytes: usize,
    damage: Damage,
    answer: Vec<u32>,
}

impl Branch {
    fn new(cache: RaggedCache, selection: Option<Selection>) -> Self {
        let (kept_tokens, cache_bytes) = (cache.total_tokens(), cache.allocated_bytes());
        Self { cache, selection, kept_tokens, cache_bytes, damage: Damage::default(), answer: Vec::new() }
    }
}

impl AsMut<RaggedCache> for Branch {
    fn as_mut(&mut self) -> &mut RaggedCache {
        &mut self.cache
    }
}

/// Of a question, this much tells it from others; examples of few-shot tasks may be long.
const QUESTION_LETTERS: usize = 300;

/// What all cells of a pass share.
struct Times {
    prefill_seconds: f64,
    decode_seconds: f64,
    batch_rows: usize,
}
