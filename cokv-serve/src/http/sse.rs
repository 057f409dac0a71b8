//! Streams of server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde_json::Value as Json;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep_until, timeout};

/// Frames that a client has not taken yet. What is written behind them waits; what computes does not.
const ROOM: usize = 16;

/// Within which a client takes something; who takes nothing has gone without a word.
const PATIENCE: Duration = Duration::from_secs(300);

/// The end of every stream.
pub const DONE: &str = "[DONE]";

/// Writes a stream; its client has gone where [`Gone`] is returned.
pub struct Events {
    frames: Sender<Bytes>,
    silence: Duration,
    /// When the next comment is due.
    due: Instant,
}

/// Nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// A stream and the response that carries it. Its first comment is on its way already, so that the headers are, too.
pub fn stream(silence: Duration, first: &str) -> (Events, Response) {
    let (frames, receiver) = mpsc::channel(ROOM);
    // There is room for one.
    let _ = frames.try_send(Bytes::from(format!(": {first}\n\n")));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let response = (headers, Body::new(Frames(receiver))).into_response();
    (Events { frames, silence, due: Instant::now() + silence }, response)
}

impl Events {
    /// A line of JSON.
    pub async fn data(&mut self, json: &Json) -> Result<(), Gone> {
        self.send(format!("data: {json}\n\n")).await
    }

    /// A line of JSON of some name.
    pub async fn named(&mut self, name: &str, json: &Json) -> Result<(), Gone> {
        self.send(format!("event: {name}\ndata: {json}\n\n")).await
    }

    /// The end.
    pub async fn done(mut self) -> Result<(), Gone> {
        self.send(format!("data: {DONE}\n\n")).await
    }

    /// Waits for something, saying meanwhile that all is well.
    pub async fn while_waiting<T>(&mut self, coming: impl Future<Output = T>, comment: &str) -> Result<T, Gone> {
        tokio::pin!(coming);
        loop {
            tokio::select! {
                biased;
                come = &mut coming => return Ok(come),
                () = self.frames.closed() => return Err(Gone),
                () = sleep_until(self.due) => self.send(format!(": {comment}\n\n")).await?,
            }
        }
    }

    async fn send(&mut self, frame: String) -> Result<(), Gone> {
        self.due = Instant::now() + self.silence;
        match timeout(PATIENCE, self.frames.send(frame.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// The body of a response whose frames another task writes.
struct Frames(Receiver<Bytes>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}
