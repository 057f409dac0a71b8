//! Documents that a server has from its start.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use anyhow::{Context, Result, anyhow, bail};
use cokv_core::{Budget, Method};
use cokv_models::cache::file::{Identity, SavedCache, Summary};
use cokv_scheduler::{Document, DocumentTold, Handle, Namespace, NewDocument, Refusal, Restored};
use cokv_serve::is_document_name;

use crate::cli::bar::bar;
use crate::document::{Turn, check_document};
use crate::machine::memory::mebibytes;
use crate::model::Outlined;

/// A document of the command line.
pub struct Preloaded {
    name: String,
    path: PathBuf,
    what: Kind,
}

enum Kind {
    Text(String),
    Saved,
}

/// What the command line names, of which no two have one name.
pub fn preloaded(said: &[String]) -> Result<Vec<Preloaded>> {
    let documents = said.iter().map(|said| one(said)).collect::<Result<Vec<_>>>()?;
    let named_before = |at: usize| documents[..at].iter().any(|one| one.name == documents[at].name);
    match (1..documents.len()).find(|&at| named_before(at)) {
        Some(twice) => bail!("{}: another one has that name", documents[twice].said()),
        None => Ok(documents),
    }
}

impl Preloaded {
    /// As it was given.
    fn said(&self) -> String {
        format!("--document {}={}", self.name, self.path.display())
    }
}

fn one(said: &str) -> Result<Preloaded> {
    let (name, path) = said.split_once('=').ok_or_else(|| anyhow!("--document {said}: write NAME=FILE"))?;
    if !is_document_name(name) {
        bail!(
            "--document {said}: a name is of at most 64 letters, digits, `.`, `_` and `-`, and begins with one of the first two"
        );
    }
    let path = PathBuf::from(path);
    if Summary::read(&path).is_ok() {
        return Ok(Preloaded { name: name.into(), path, what: Kind::Saved });
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("--document {said}"))?;
    match text.trim().is_empty() {
        true => bail!("--document {said}: it is empty"),
        false => Ok(Preloaded { name: name.into(), path, what: Kind::Text(text) }),
    }
}

/// Refuses what could not be used, before the weights are loaded.
pub fn check(documents: &[Preloaded], outlined: &Outlined, identity: &Identity) -> Result<()> {
    for document in documents {
        let at = || document.said();
        match &document.what {
            Kind::Saved => Summary::read(&document.path)
                .and_then(|summary| summary.description.check(identity))
                .with_context(at)?,
            Kind::Text(text) => {
                let open = Turn::of(&outlined.outline)?.open(text).with_context(at)?;
                check_document(&open, outlined.outline.config()).with_context(at)?;
            }
        }
    }
    Ok(())
}

/// Reads the documents of the command line.
pub fn preload(
    documents: Vec<Preloaded>,
    handle: &Handle,
    outlined: &Outlined,
    identity: &Identity,
    compress: Option<(Method, Budget)>,
) -> Result<()> {
    let turn = Turn::of(&outlined.outline)?;
    for document in documents {
        let at = document.said();
        let Preloaded { name, path, what } = document;
        match what {
            Kind::Saved => restore(handle, &path, name, identity).context(at)?,
            Kind::Text(text) => {
                let open = turn.open(&text)?;
                let of = name.clone();
                let new = NewDocument {
                    namespace: Namespace::default(),
                    shared: true,
                    name: Some(name),
                    tokens: open.tokens,
                    text: text.trim_end().to_owned(),
                    compress: compress.clone(),
                    frame: open.frame,
                    close: turn.close()?,
                    pin: true,
                    time_to_live: None,
                    hear: Box::new(|_| ()),
                };
                wait(&of, handle, new).context(at)?;
            }
        }
    }
    Ok(())
}

/// Has a text read, and says how far it is.
fn wait(name: &str, handle: &Handle, new: NewDocument) -> Result<()> {
    let (send, told) = channel();
    let hear = Box::new(move |event| drop(send.send(event)));
    let _ticket = handle.read(NewDocument { hear, ..new })?;
    let bar = bar(false, "reading {msg} {wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left", 0)
        .with_message(name.to_owned());
    loop {
        match told.recv().context("the thread that computes has ended")? {
            DocumentTold::Queued => {}
            DocumentTold::Read { tokens, of } => {
                bar.set_length(of as u64);
                bar.set_position(tokens as u64);
            }
            DocumentTold::Done { document, .. } => {
                bar.finish_and_clear();
                eprintln!("document {name}: {}", size(&document));
                return Ok(());
            }
            DocumentTold::Refused(refusal) => {
                bar.finish_and_clear();
                return Err(refusal.into());
            }
        }
    }
}

fn size(document: &Document) -> String {
    let share = 100.0 * document.kept_tokens() / document.tokens.len() as f64;
    let bytes = mebibytes(document.cache.bytes() as u64);
    format!("{} tokens, {share:.1} % of them kept, {bytes}", document.tokens.len())
}

fn restore(handle: &Handle, path: &Path, name: String, identity: &Identity) -> Result<()> {
    let saved = SavedCache::read(path)?;
    let of = Restored {
        namespace: Namespace::default(),
        shared: true,
        name: name.clone(),
        pin: true,
        identity: identity.clone(),
    };
    let (send, received) = channel();
    let reply = Box::new(move |restored: Result<Document, Refusal>| drop(send.send(restored)));
    handle.restore(saved, of, reply)?;
    let document = received.recv().context("the thread that computes has ended")??;
    eprintln!("document {name}: {}", size(&document));
    Ok(())
}
