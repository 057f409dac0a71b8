//! From a form to a grammar, beside everything else: whoever sends a schema that is hard to read waits alone.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use cokv_models::Outline;
use cokv_models::chat::ToolSyntax;
use cokv_models::sampling::Constraint;
use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{ParserFactory, panic_utils};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::follow::{Following, reason};
use super::lark::{self, Calls};
use super::vocabulary::vocabulary;
use crate::api::error::ApiError;
use crate::api::form::{Form, Function, Schema, invalid};

/// Within which a schema is read, or refused.
const PATIENCE: Duration = Duration::from_secs(10);
/// Schemas that are read at the same time. One that takes too long holds its place until it is done.
const AT_ONCE: usize = 2;
/// Each takes one or two kilobytes, which are nobody's promise.
const MOST_STATES: usize = 20_000;
/// What reads a schema goes down into it.
const STACK: usize = 32 << 20;

/// Makes grammars for a model.
pub struct Grammars {
    compiler: Arc<Compiler>,
    places: Arc<Semaphore>,
}

struct Compiler {
    outline: Arc<Outline>,
    /// Made when the first answer wants a form: it takes some time, and tens of megabytes.
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl Grammars {
    /// For a model.
    pub fn of(outline: Arc<Outline>) -> Self {
        let compiler = Arc::new(Compiler { outline, factory: OnceLock::new() });
        Self { compiler, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// What answers of a form have to follow; what is free follows nothing.
    ///
    /// # Errors
    /// A schema cannot be followed, in llguidance's words, or is too much work.
    pub async fn constraint(&self, form: Form) -> Result<Option<Box<dyn Constraint>>, ApiError> {
        if form == Form::Free {
            return Ok(None);
        }
        let place = timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(ApiError::schemas()) };
        let (compiler, of) = (Arc::clone(&self.compiler), Arc::clone(&self.compiler));
        // The first one waits for the model's tokens, too, which is no schema's fault.
        let ready = tokio::task::spawn_blocking(move || of.factory().map(|_| ())).await;
        ready.unwrap_or_else(|_| Err(ApiError::internal("something failed that must not")))?;
        let param = params(&form).next().map_or_else(String::new, |schema| schema.param.clone());
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            // Whoever asked may have gone.
            let _ = sender.send(compiler.constraint(form));
            drop(place);
        };
        let started = thread::Builder::new().name("schema".into()).stack_size(STACK).spawn(work);
        started.map_err(|error| ApiError::internal(format!("no thread for a schema: {error}")))?;
        match timeout(PATIENCE, receiver).await {
            Ok(Ok(made)) => made,
            Ok(Err(_)) => Err(invalid(&param, "the schema broke what reads it")),
            Err(_) => Err(invalid(&param, format!("the schema takes more than {} s to read", PATIENCE.as_secs()))),
        }
    }
}

#[cfg(test)]
impl Grammars {
    /// What follows a grammar that is written down.
    pub fn follow(&self, lark: String) -> Following {
        let factory = self.compiler.factory().unwrap();
        Following::of(factory.create_parser(TopLevelGrammar::from_lark(lark)).unwrap())
    }
}

impl Compiler {
    fn constraint(&self, form: Form) -> Result<Option<Box<dyn Constraint>>, ApiError> {
        let shown = self.outline.chat_template().and_then(|template| template.tool_syntax());
        let form = match form {
            // Nobody would find the calls.
            Form::Talk(_) if shown.is_none() => Form::Free,
            Form::JsonOrCalls(schema, _) if shown.is_none() => Form::Json(schema),
            form => form,
        };
        // A model that is shown no way to write calls writes them as most do.
        let syntax = shown.unwrap_or(ToolSyntax::Hermes);
        let marker = self.outline.tokenizer().special_token("[TOOL_CALLS]");
        let Some(text) = lark::grammar(&form, Calls { syntax, marker }) else { return Ok(None) };
        let factory = self.factory()?;
        match factory.create_parser(TopLevelGrammar::from_lark(text)) {
            Ok(parser) => Ok(Some(Box::new(Following::of(parser)))),
            Err(error) => Err(blame(factory, &form).unwrap_or_else(|| {
                let param = params(&form).next().map_or("tools", |schema| &schema.param);
                invalid(param, reason(&error))
            })),
        }
    }

    fn factory(&self) -> Result<&ParserFactory, ApiError> {
        self.factory.get_or_init(|| self.make_factory()).as_ref().map_err(ApiError::internal)
    }

    fn make_factory(&self) -> Result<ParserFactory, String> {
        let make = || {
            let mut factory = ParserFactory::new(
                &vocabulary(&self.outline),
                InferenceCapabilities::default(),
                &SlicedBiasComputer::json_slices(),
            )?;
            // Neither prompts nor schemas are written anywhere.
            factory.quiet();
            factory.limits_mut().verbose_errors = false;
            factory.limits_mut().max_lexer_states = MOST_STATES;
            Ok(factory)
        };
        let made = panic_utils::catch_unwind(AssertUnwindSafe(make));
        made.map_err(|error| format!("the model's tokens cannot be held to a grammar: {}", reason(&error)))
    }
}

/// Which schema of a form it is that nothing can be made of.
fn blame(factory: &ParserFactory, form: &Form) -> Option<ApiError> {
    params(form).find_map(|schema| {
        let grammar = TopLevelGrammar::from_json_schema(lark::schema(schema));
        let error = factory.create_parser(grammar).err()?;
        Some(invalid(&schema.param, reason(&error)))
    })
}

/// All schemas of a form.
fn params(form: &Form) -> impl Iterator<Item = &Schema> {
    let (words, functions): (Option<&Schema>, &[Function]) = match form {
        Form::Free => (None, &[]),
        Form::Json(schema) => (Some(schema), &[]),
        Form::Calls { functions, .. } | Form::Talk(functions) => (None, functions),
        Form::JsonOrCalls(schema, functions) => (Some(schema), functions),
    };
    words.into_iter().chain(functions.iter().map(|function| &function.arguments))
}
