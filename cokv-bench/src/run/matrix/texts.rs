//! What of a prompt is prefilled for its cells: all of it, its context, or both at once.

use std::ops::Range;
use std::time::Instant;

use cokv_core::{Frame, Method, ObservationRequest, Replay};
use cokv_models::{LanguageModel, ModelError, Prefill, Prefilling, rotates_alike};

use super::{Job, Matrix};
use crate::data::Protocol;
use crate::data::prompt::Prompt;
use crate::event::{Event, Listener};

/// What the cells of a prompt share.
pub(super) struct Texts {
    prompt: Option<Read>,
    /// By itself; kept for the next prompt, which may ask about it too.
    pub context: Option<Context>,
}

/// A text that is prefilled.
struct Read {
    prefill: Prefill,
    /// What that took, with feeding it again.
    seconds: f64,
}

/// A context that questions are asked about.
pub(super) struct Context {
    tokens: Vec<u32>,
    request: ObservationRequest,
    read: Read,
}

/// What the cells of a protocol want to see.
struct Wanted<'a> {
    prompt: &'a Prompt,
    /// The prompt's first tokens that are compressed.
    tokens: &'a [u32],
    frame: Frame,
    request: ObservationRequest,
    replays: Vec<Replay>,
}

impl<'a> Wanted<'a> {
    fn of(prompt: &'a Prompt, protocol: Protocol, methods: &[&Method]) -> Self {
        let frame = prompt.frame(protocol);
        let nothing = ObservationRequest::default();
        let request = methods.iter().fold(nothing, |all, method| all.union(method.observations(frame)));
        let replays = Replay::covering(methods.iter().filter_map(|method| method.replay()).collect());
        Self { prompt, tokens: &prompt.tokens[..prompt.compressed_tokens(protocol)], frame, request, replays }
    }

    fn is_in(&self, context: &Context) -> bool {
        let replayed = |replay: &Replay| context.read.prefill.is_replayed(replay);
        context.tokens == self.tokens && context.request == self.request && self.replays.iter().all(replayed)
    }

    /// Whether another text begins with this one, and can be read with it.
    fn begins(&self, whole: &Self, model: &LanguageModel) -> bool {
        let (tokens, longer) = (self.tokens.len(), whole.tokens.len());
        tokens < longer && whole.tokens.starts_with(self.tokens) && rotates_alike(model.engine(), tokens, longer)
    }
}

impl Texts {
    /// Prefills what some cells need, and feeds again what their methods want to see twice. `previous` is the context of the prompt
    /// before.
    pub fn read(
        matrix: &Matrix<'_>,
        model: &LanguageModel,
        job: &Job<'_>,
        cells: Range<usize>,
        previous: Option<Context>,
        listener: &mut dyn Listener,
    ) -> Result<Self, ModelError> {
        let wanted = |protocol: Protocol| {
            let cells = matrix.cells[cells.clone()].iter().zip(&job.cells[cells.clone()]);
            let own = cells.filter(|(cell, _)| cell.protocol == protocol).map(|(_, own)| own.method);
            let methods: Vec<&Method> = own.collect();
            (!methods.is_empty()).then(|| Wanted::of(job.asked.prompt(protocol), protocol, &methods))
        };
        let [whole, context] = [Protocol::QuestionSeen, Protocol::ContextOnly].map(wanted);
        let previous = previous.filter(|previous| context.as_ref().is_some_and(|context| context.is_in(previous)));
        let open = context.as_ref().filter(|_| previous.is_none());
        let [prompt, read] = match (&whole, open) {
            (Some(whole), Some(context)) if context.begins(whole, model) => {
                both(model, whole, context, listener)?.map(Some)
            }
            (whole, context) => {
                let [whole, context] =
                    [whole.as_ref(), context].map(|text| text.map(|text| one(model, text, listener)));
                [whole.transpose()?, context.transpose()?]
            }
        };
        let read = context.zip(read).map(|(wanted, read)| Context {
            tokens: wanted.tokens.to_vec(),
            request: wanted.request,
            read,
        });
        Ok(Self { prompt, context: previous.or(read) })
    }

    /// What the cells of a protocol compress, and the seconds that reading it took.
    pub fn of(&self, protocol: Protocol) -> Result<(&Prefill, f64), ModelError> {
        let read = match protocol {
            Protocol::QuestionSeen => self.prompt.as_ref(),
            Protocol::ContextOnly => self.context.as_ref().map(|context| &context.read),
        };
        let unread = || ModelError::Backend("cells were run whose text was not read".into());
        read.map(|read| (&read.prefill, read.seconds)).ok_or_else(unread)
    }
}

/// Reads a text by itself.
fn one(model: &LanguageModel, text: &Wanted<'_>, listener: &mut dyn Listener) -> Result<Read, ModelError> {
    let started = Instant::now();
    let prefill = model.prefill(text.tokens, text.request.clone(), |tokens| {
        let _ = listener.hear(&Event::Prefilled { tokens, of: text.tokens.len() });
    })?;
    again(model, text, prefill.within(text.frame), started, listener)
}

/// Reads a prompt and its context at once.
fn both(
    model: &LanguageModel,
    whole: &Wanted<'_>,
    context: &Wanted<'_>,
    listener: &mut dyn Listener,
) -> Result<[Read; 2], ModelError> {
    let (engine, started) = (model.engine(), Instant::now());
    let prefilling = Prefilling::new(engine, whole.tokens.to_vec(), model.format(), whole.request.clone())?;
    let prefilling = prefilling.within(whole.frame);
    let mut prefilling = prefilling.with_document(context.tokens.len(), context.request.clone(), context.frame)?;
    while prefilling.left() > 0 {
        for answer in engine.step(&mut [prefilling.row(engine.chunk())])? {
            prefilling.take(answer)?;
        }
        let _ = listener.hear(&Event::Prefilled { tokens: prefilling.done(), of: whole.tokens.len() });
    }
    let unread = || ModelError::Backend("a prompt and its context are two texts".into());
    let [of_context, of_whole] = prefilling.finish_all()?.try_into().map_err(|_| unread())?;
    let of_whole = again(model, whole, of_whole, started, listener)?;
    Ok([of_whole, again(model, context, of_context, started, listener)?])
}

/// Feeds a text again, as often as methods want to see it.
fn again(
    model: &LanguageModel,
    text: &Wanted<'_>,
    mut prefill: Prefill,
    started: Instant,
    listener: &mut dyn Listener,
) -> Result<Read, ModelError> {
    for replay in &text.replays {
        model.replay(&mut prefill, replay, text.prompt.close(), |tokens, of| {
            let _ = listener.hear(&Event::Replayed { tokens, of });
        })?;
    }
    Ok(Read { prefill, seconds: started.elapsed().as_secs_f64() })
}
