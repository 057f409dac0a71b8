//! Scores of a prompt's tokens, layer by layer: of a long prompt this lasts, and may be put down between layers.

use std::sync::Arc;

use cokv_core::{LayerView, Method, TokenScores};

use super::Prefill;
use crate::error::ModelError;

/// Scores of several methods on their way, each where all heads together may keep so many tokens, which matters to methods that follow
/// it. What they look at is made once per layer for all of them, and scored once for all methods of one compressor; for every total
/// where scores follow it.
pub struct Scoring {
    asked: Vec<(Method, usize)>,
    /// Of each method the first that scores like it.
    firsts: Vec<usize>,
    scored: Vec<TokenScores>,
    done: usize,
    layers: usize,
}

impl Scoring {
    /// Of a prompt, of which no layer has been looked at.
    pub fn new(prefill: &Prefill, asked: &[(&Method, usize)]) -> Self {
        let layout = prefill.prompt().layout();
        let same = |(method, total): (&Method, usize), (other, others): (&Method, usize)| {
            method.scores_like(other) && (total == others || !method.follows_budget())
        };
        let first_like = |one: (&Method, usize)| asked.iter().position(|&other| same(one, other)).unwrap_or(0);
        let firsts: Vec<usize> = asked.iter().map(|&one| first_like(one)).collect();
        let scores = |(place, first): (usize, &usize)| {
            let tokens = if place == *first { prefill.prompt_len() } else { 0 };
            TokenScores::with_capacity(layout, tokens).within(prefill.frame())
        };
        let scored = firsts.iter().enumerate().map(scores).collect();
        let asked = asked.iter().map(|&(method, total)| (method.clone(), total)).collect();
        Self { asked, firsts, scored, done: 0, layers: layout.layers }
    }

    /// Layers that are still to be scored.
    pub fn left(&self) -> usize {
        self.layers - self.done
    }

    /// Scores the next layer of the prompt that it is of.
    ///
    /// # Errors
    /// Of the methods, and of the backend where it is looked at.
    pub fn step(&mut self, prefill: &Prefill) -> Result<(), ModelError> {
        let heads = prefill.prompt().layout().heads();
        prefill.view(self.done, |view| -> Result<(), ModelError> {
            for (place, (method, total)) in self.asked.iter().enumerate() {
                if self.firsts[place] != place {
                    continue;
                }
                let kept = method.follows_budget().then(|| total / heads);
                let view = &LayerView { kept, ..*view };
                self.scored[place].push_layer(&method.score(view)?);
                if let Some(needed) = method.layer_preference(view)? {
                    self.scored[place].push_preference(needed);
                }
            }
            Ok(())
        })??;
        self.done += 1;
        Ok(())
    }

    /// All scores, in the order of the methods.
    pub fn finish(self) -> Vec<Arc<TokenScores>> {
        let scored: Vec<Arc<TokenScores>> = self.scored.into_iter().map(Arc::new).collect();
        self.firsts.iter().map(|&first| Arc::clone(&scored[first])).collect()
    }
}
