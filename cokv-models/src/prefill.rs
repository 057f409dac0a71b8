//! One pass over a prompt that serves every method, budget and coalition.

mod scoring;

use std::sync::Arc;

use cokv_core::{
    Budget, Format, Frame, HeadLayout, HeadSelection, LayerView, Method, ObservationRequest, Pairs, Replay, Replayed,
    Selection, TokenScores,
};

pub use self::scoring::Scoring;
use crate::ask::{Answer, Ask, Top};
use crate::backend::{LayerSummaries, Watch};
use crate::cache::{RaggedCache, Segment};
use crate::engine::{Engine, Row};
use crate::error::ModelError;
use crate::eviction::Eviction;
use crate::kernel::pool;
use crate::stop::StopRule;

/// A prompt on its way: it can be put down between chunks, which may share a pass with rows of other kinds.
pub struct Prefilling {
    engine: Arc<dyn Engine>,
    prompt: Vec<u32>,
    cache: RaggedCache,
    /// The prompt, and perhaps before it the document that it begins with.
    texts: Vec<Text>,
}

/// Something that is watched from the beginning of the prompt.
struct Text {
    /// Its tokens: the prompt's first ones.
    tokens: usize,
    frame: Frame,
    watch: Box<dyn Watch>,
    /// Once it is done.
    logits: Option<Vec<f32>>,
}

/// A prefilled prompt: its keys and values, what the methods asked to be recorded, and the logits of the first token.
pub struct Prefill {
    engine: Arc<dyn Engine>,
    tokens: Vec<u32>,
    frame: Frame,
    prompt: Arc<Segment>,
    watch: Box<dyn Watch>,
    logits: Vec<f32>,
    /// What second passes saw of every layer.
    replays: Vec<(Replay, Vec<Replayed>)>,
}

/// What a method makes of a prompt at a budget.
pub struct Compressed {
    /// What is kept.
    pub cache: RaggedCache,
    /// The same, as positions.
    pub selection: Selection,
    /// Tokens that all heads together were allowed to keep.
    pub allowed: usize,
    /// What evicts while the model answers, if anything does.
    pub eviction: Option<Eviction>,
}

impl Prefilling {
    /// Nothing done yet; makes room for the prompt.
    ///
    /// # Errors
    /// Where the prompt is empty or longer than the model can attend to, or the backend has no memory for it.
    pub fn new(
        engine: &Arc<dyn Engine>,
        prompt: Vec<u32>,
        format: Format,
        request: ObservationRequest,
    ) -> Result<Self, ModelError> {
        if prompt.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        engine.config().check_length(prompt.len())?;
        let cache = engine.cache(format, prompt.len())?;
        let text = Text::new(engine, prompt.len(), request, Frame::default());
        Ok(Self { engine: Arc::clone(engine), prompt, cache, texts: vec![text] })
    }

    /// Says where its parts lie, which some methods want to know.
    pub fn within(mut self, frame: Frame) -> Self {
        self.texts.iter_mut().last().into_iter().for_each(|text| text.frame = frame);
        self
    }

    /// Records of the prompt's first tokens by themselves, too: a document, which can be compressed before the rest is seen.
    ///
    /// # Errors
    /// Where it is no part of the prompt, or queries and keys of its tokens are turned otherwise where more follows.
    pub fn with_document(
        mut self,
        tokens: usize,
        request: ObservationRequest,
        frame: Frame,
    ) -> Result<Self, ModelError> {
        if !(1..self.prompt.len()).contains(&tokens) {
            return Err(ModelError::EmptyPrompt);
        }
        if !rotates_alike(&self.engine, tokens, self.prompt.len()) {
            let message = "a document of this model's has other keys where more follows it: prefill it by itself";
            return Err(ModelError::Backend(message.into()));
        }
        self.texts.insert(0, Text::new(&self.engine, tokens, request, frame));
        Ok(self)
    }

    /// Tokens done.
    pub fn done(&self) -> usize {
        self.cache.next_position()
    }

    /// Tokens still to do.
    pub fn left(&self) -> usize {
        self.prompt.len() - self.done()
    }

    /// Bytes of its buffers.
    pub fn bytes(&self) -> usize {
        self.cache.own_bytes()
    }

    /// The next tokens, at most `tokens` of them, as a row of a pass. Its answer goes to [`take`](Self::take).
    pub fn row(&mut self, tokens: usize) -> Row<'_> {
        let done = self.cache.next_position();
        let next_end = self.texts.iter().map(|text| text.tokens).find(|&tokens| tokens > done);
        let end = (done + tokens).min(next_end.unwrap_or(self.prompt.len()));
        let ask = if Some(end) == next_end { Ask::Logits } else { Ask::Nothing };
        let mut watches: Vec<&mut dyn Watch> = Vec::with_capacity(self.texts.len());
        for text in self.texts.iter_mut().filter(|text| text.tokens > done) {
            watches.push(text.watch.as_mut());
        }
        let within = self.prompt.len();
        Row { tokens: &self.prompt[done..end], cache: &mut self.cache, watches, ask, within }
    }

    /// Takes the answer to the row of a pass.
    pub fn take(&mut self, answer: Answer) -> Result<(), ModelError> {
        let done = self.done();
        if let Some(text) = self.texts.iter_mut().find(|text| text.tokens == done) {
            text.logits = Some(answer.logits(|| format!("after the {done} tokens of the prompt"))?);
        }
        Ok(())
    }

    /// The prefilled prompt, once nothing is left.
    pub fn finish(self) -> Result<Prefill, ModelError> {
        self.finish_all()?.pop().ok_or(ModelError::EmptyPrompt)
    }

    /// The document, if one is watched by itself, and the prompt; both share the memory of their caches.
    pub fn finish_all(self) -> Result<Vec<Prefill>, ModelError> {
        let unfinished = || ModelError::Backend("a prompt was taken for prefilled before its end".into());
        let whole = self.cache.into_segment()?.ok_or_else(unfinished)?;
        let of_text = |text: Text| {
            let prompt = match text.tokens == whole.seen() {
                true => Arc::clone(&whole),
                false => Arc::new(whole.prefix(text.tokens).ok_or_else(unfinished)?),
            };
            Ok(Prefill {
                engine: Arc::clone(&self.engine),
                tokens: self.prompt[..text.tokens].to_vec(),
                frame: text.frame,
                prompt,
                watch: text.watch,
                logits: text.logits.ok_or_else(unfinished)?,
                replays: Vec::new(),
            })
        };
        self.texts.into_iter().map(of_text).collect()
    }
}

impl Text {
    fn new(engine: &Arc<dyn Engine>, tokens: usize, request: ObservationRequest, frame: Frame) -> Self {
        Self { tokens, frame, watch: engine.watch(request, tokens), logits: None }
    }
}

/// Whether tokens of a text are turned as those of a longer one that begins with it.
pub fn rotates_alike(engine: &Arc<dyn Engine>, tokens: usize, longer: usize) -> bool {
    engine.rotary(tokens) == engine.rotary(longer)
}

impl Prefill {
    /// Runs the prompt in chunks with full attention. `progress` hears the number of tokens done.
    pub fn run(
        engine: &Arc<dyn Engine>,
        prompt: &[u32],
        format: Format,
        request: ObservationRequest,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, ModelError> {
        let mut prefilling = Prefilling::new(engine, prompt.to_vec(), format, request)?;
        while prefilling.left() > 0 {
            for answer in engine.step(&mut [prefilling.row(engine.chunk())])? {
                prefilling.take(answer)?;
            }
            progress(prefilling.done());
        }
        prefilling.finish()
    }

    /// As [`Prefilling::within`].
    pub fn within(self, frame: Frame) -> Self {
        Self { frame, ..self }
    }

    /// Where the prompt's parts lie.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(crate) fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Takes what a second pass saw of every layer.
    pub(crate) fn add_replay(&mut self, replay: Replay, layers: Vec<Replayed>) {
        self.replays.push((replay, layers));
    }

    /// Whether there was such a second pass.
    pub fn is_replayed(&self, replay: &Replay) -> bool {
        self.replays.iter().any(|(of, _)| of.covers(replay))
    }

    /// Keys and values of the whole prompt.
    pub fn prompt(&self) -> &Arc<Segment> {
        &self.prompt
    }

    /// Prompt tokens.
    pub fn prompt_len(&self) -> usize {
        self.prompt.seen()
    }

    /// Logits of the first token after the prompt, which no compression can change: `[vocabulary]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// What has to be known to choose the first token, for [`greedy`](crate::LanguageModel::greedy).
    pub fn first(&self, stop: &StopRule) -> Top {
        stop.top_of(&self.logits)
    }

    /// Tokens of this prompt that a method may keep in all heads together.
    pub fn allowed(&self, method: &Method, budget: Budget) -> usize {
        method.allowed(budget, self.prompt.layout(), self.prompt_len(), self.prompt.format())
    }

    /// Scores of a method for every token, KV head and layer, where all heads together may keep `total` tokens, which matters to
    /// methods that follow it.
    pub fn score(&self, method: &Method, total: usize) -> Result<Arc<TokenScores>, ModelError> {
        Ok(self.score_all(&[(method, total)])?.swap_remove(0))
    }

    /// Scores of several methods at their totals, in their order: see [`Scoring`].
    pub fn score_all(&self, asked: &[(&Method, usize)]) -> Result<Vec<Arc<TokenScores>>, ModelError> {
        let mut scoring = Scoring::new(self, asked);
        while scoring.left() > 0 {
            scoring.step(self)?;
        }
        Ok(scoring.finish())
    }

    /// What a method keeps of this prompt when all heads together may keep `total` tokens.
    pub fn select(&self, method: &Method, total: usize) -> Result<Selection, ModelError> {
        let scores = self.score(method, total)?;
        Ok(method.select(self.prompt.layout(), &scores, total)?)
    }

    /// Score, allocate, select, cut: the way from a prompt to a small cache.
    pub fn compress(&self, method: &Method, budget: Budget) -> Result<Compressed, ModelError> {
        let scores = self.score(method, self.allowed(method, budget))?;
        self.compress_scored(method, &scores, budget)
    }

    /// The same from scores that are known already.
    pub fn compress_scored(
        &self,
        method: &Method,
        scores: &TokenScores,
        budget: Budget,
    ) -> Result<Compressed, ModelError> {
        self.cut_scored(method, scores, budget, |selection| self.cut(method, selection))
    }

    /// The same where no head shares the prompt's memory, not even one that keeps everything.
    pub fn compress_apart(&self, method: &Method, budget: Budget) -> Result<Compressed, ModelError> {
        let scores = self.score(method, self.allowed(method, budget))?;
        self.compress_apart_scored(method, &scores, budget)
    }

    /// The same from scores that are known already.
    pub fn compress_apart_scored(
        &self,
        method: &Method,
        scores: &TokenScores,
        budget: Budget,
    ) -> Result<Compressed, ModelError> {
        self.cut_scored(method, scores, budget, |selection| self.cut(method, &self.apart(selection)))
    }

    fn cut_scored(
        &self,
        method: &Method,
        scores: &TokenScores,
        budget: Budget,
        cut: impl FnOnce(&Selection) -> Result<RaggedCache, ModelError>,
    ) -> Result<Compressed, ModelError> {
        let allowed = self.allowed(method, budget);
        let selection = method.select(self.prompt.layout(), scores, allowed)?;
        let column_sums = |layer| Ok(self.summaries(layer)?.column_sums);
        let eviction = Eviction::new(&self.engine, method, budget, &selection, column_sums)?;
        Ok(Compressed { cache: cut(&selection)?, selection, allowed, eviction })
    }

    /// A selection with all tokens listed of the heads that keep everything.
    fn apart(&self, selection: &Selection) -> Selection {
        let mut apart = selection.clone();
        for (head, kept) in apart.heads.iter_mut().enumerate() {
            if *kept == HeadSelection::Everything {
                *kept = HeadSelection::Tokens((0..self.prompt.len(head) as u32).collect());
            }
        }
        apart
    }

    /// What is kept, as it is or rewritten.
    fn cut(&self, method: &Method, selection: &Selection) -> Result<RaggedCache, ModelError> {
        if !method.rewrites() {
            return RaggedCache::compressed(&self.prompt, selection);
        }
        let HeadLayout { layers, kv_heads, .. } = self.prompt.layout();
        let of_layers = pool::map(layers, |layer| {
            let kept = &selection.heads[layer * kv_heads..(layer + 1) * kv_heads];
            self.view(layer, |view| method.rewrite(view, kept))
        });
        let mut pairs = Vec::with_capacity(selection.heads.len());
        for of_layer in of_layers {
            pairs.extend(of_layer??);
        }
        // These heads share the prompt's memory.
        let shares = selection.heads.iter().map(|kept| *kept == HeadSelection::Everything);
        pairs.iter_mut().zip(shares).filter(|(_, shares)| *shares).for_each(|(pairs, _)| *pairs = Pairs::default());
        RaggedCache::rewritten(&self.prompt, selection, &pairs)
    }

    /// What was recorded of a layer.
    pub fn summaries(&self, layer: usize) -> Result<LayerSummaries, ModelError> {
        self.engine.summaries(self.watch.as_ref(), &self.prompt, layer)
    }

    /// Lends one layer as compressors see it. What was not asked for at prefill is absent.
    pub fn view<T>(&self, layer: usize, work: impl FnOnce(&LayerView<'_>) -> T) -> Result<T, ModelError> {
        let summaries = self.summaries(layer)?;
        let rotary = self.engine.rotary(self.prompt_len());
        fn recorded(numbers: &[f32]) -> Option<&[f32]> {
            Some(numbers).filter(|numbers| !numbers.is_empty())
        }
        Ok(work(&LayerView {
            frame: self.frame,
            window: summaries.window,
            window_attention: &summaries.window_attention,
            window_sums: &summaries.window_sums,
            column_sums: recorded(&summaries.column_sums),
            block_sums: &summaries.block_sums,
            query_statistics: summaries.query_statistics.as_ref(),
            keys: recorded(&summaries.keys),
            values: recorded(&summaries.values),
            value_output_norms: recorded(&summaries.value_output_norms),
            output_grams: recorded(&summaries.output_grams),
            inputs: recorded(&summaries.inputs),
            queries: &summaries.queries,
            replays: &self.replays,
            rotary: Some(&rotary),
            ..LayerView::new(layer, self.prompt.layout(), &self.tokens)
        }))
    }
}
