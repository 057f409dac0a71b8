//! Documents in files: saved by name into one folder, and loaded from it.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use cokv_models::cache::file::{CacheFileError, SavedCache, encode};
use cokv_scheduler::{Refusal, Restored};
use serde_json::json;

use super::body;
use super::documents::find;
use super::reply::ok;
use super::shared::{Caller, Shared, aside};
use crate::api::documents::{FileRequest, shown};
use crate::api::error::ApiError;
use crate::server::Files;

/// Behind the name that a request gives.
const ENDING: &str = ".cokv.safetensors";

/// Writes a document, and reads the file back before it says so.
pub async fn save(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&headers, body, shared.settings().body).await?;
    let asked = FileRequest::read(&bytes)?;
    let path = path(files(&shared)?, &asked.name);
    let document = find(&shared, shared.namespace(&caller, asked.salt.as_deref()), &id).await?;
    let of = Arc::clone(&shared);
    let (bytes, tokens) = aside(move || {
        let files = files(&of)?;
        let text = Some(document.text.as_str()).filter(|text| !text.is_empty());
        let description = (files.describe)(&document);
        let bytes = encode(&description, &document.tokens, text, &document.cache)?;
        (files.write)(&path, &bytes).map_err(|error| unwritten(&error))?;
        let read = SavedCache::read(&path).map_err(|error| unwritten(&error))?;
        match read.description == description && read.tokens == *document.tokens {
            true => Ok((bytes.len(), read.tokens.len())),
            false => Err(ApiError::internal("what was written is not what is read back")),
        }
    })
    .await?;
    Ok(ok(&json!({ "name": asked.name, "bytes": bytes, "tokens": tokens })))
}

/// Reads a file; what it holds is checked before any of it is used.
pub async fn load(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&headers, body, shared.settings().body).await?;
    let FileRequest { name, id, salt } = FileRequest::read(&bytes)?;
    let path = path(files(&shared)?, &name);
    let (saved, bytes) = aside(move || read(&path)).await?;
    let tokens = saved.tokens.len();
    let of = Restored {
        namespace: shared.namespace(&caller, salt.as_deref()),
        shared: false,
        name: id.unwrap_or_else(|| name.clone()),
        pin: true,
        identity: files(&shared)?.identity.clone(),
    };
    let document = shared.ask(|handle, reply| handle.restore(saved, of, reply)).await?.map_err(unread)?;
    let mut answer = shown(&document, true);
    (answer["name"], answer["file_bytes"], answer["tokens"]) = (name.into(), bytes.into(), tokens.into());
    Ok(ok(&answer))
}

/// A file of this folder, and none that a link leads to.
fn read(path: &std::path::Path) -> Result<(SavedCache, u64), ApiError> {
    let nothing = || ApiError::value("name", "there is no such file");
    let there = std::fs::symlink_metadata(path).map_err(|_| nothing())?;
    if !there.is_file() {
        return Err(nothing());
    }
    let saved = SavedCache::read(path).map_err(|error| match error {
        CacheFileError::Io(error) => ApiError::internal(error.to_string()),
        other => ApiError::value("name", other.to_string()),
    })?;
    Ok((saved, there.len()))
}

fn files(shared: &Shared) -> Result<&Files, ApiError> {
    let nowhere = "documents are not saved here: whoever runs the server gives it a folder for them (--cache-dir)";
    shared.server.files.as_ref().ok_or_else(|| ApiError::unsupported("name", nowhere))
}

/// The name was checked: it leads nowhere else.
fn path(files: &Files, name: &str) -> PathBuf {
    files.folder.join(format!("{name}{ENDING}"))
}

/// What the model cannot go on with is the file's affair.
fn unread(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Method(message) => ApiError::value("name", message),
        other => other.into(),
    }
}

fn unwritten(error: &dyn std::error::Error) -> ApiError {
    ApiError::internal(format!("the file could not be written: {error}"))
}
