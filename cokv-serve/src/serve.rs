//! Connections, from the first to the last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::http::{Shared, router};
use crate::listen::{Accepting, Listener, Stream};
use crate::server::Server;

/// Bytes of a request's head.
const HEAD: usize = 16 << 10;
/// Within which a request's head is there; between requests a connection may be silent as long.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// What streams have to say that they end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// After an error of the system, such as too many open files.
const BREATH: Duration = Duration::from_millis(50);

/// Why there is no server, or none any more.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The model's chat template cannot be used.
    #[error(transparent)]
    Model(#[from] cokv_models::ModelError),
    /// The system does not give what a server needs.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// When a server ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Not now.
    #[default]
    Not,
    /// Nobody new is answered; what runs may go on for a while.
    Drain,
    /// At once.
    Now,
}

/// Serves on a thread of its own runtime until SIGTERM or SIGINT: the first lets what runs go on for a while, the second ends all.
///
/// # Errors
/// Where the system does not give what a server needs.
pub fn run(listener: impl Into<Listener>, server: Server) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
    runtime.block_on(async {
        let (sender, shutdown) = watch::channel(Shutdown::Not);
        let signals = tokio::spawn(signals(sender));
        let served = serve(listener, server, shutdown).await;
        signals.abort();
        served
    })
}

/// Serves until it is told to end. The thread that computes is told to drain, and then to stop.
///
/// # Errors
/// Where the chat template fails at a user's message.
pub async fn serve(
    listener: impl Into<Listener>,
    server: Server,
    mut shutdown: watch::Receiver<Shutdown>,
) -> Result<(), ServeError> {
    let listener = Accepting::of(listener.into())?;
    let shared = Arc::new(Shared::new(server)?);
    let router = router(Arc::clone(&shared));
    let limit = shared.settings().connections;
    let places = Arc::new(Semaphore::new(limit));
    // Connections see this end, and end when they have nothing to say.
    let (ending, ended) = watch::channel(());
    until_drained(&shared, accept(&listener, &router, &places, &ended), &mut shutdown).await;
    shared.handle().stop();
    drop(ending);
    // Streams say that they end; who does not listen any more is not waited for.
    let all = u32::try_from(limit).unwrap_or(u32::MAX);
    let _ = timeout(LAST_WORDS, places.acquire_many(all)).await;
    Ok(())
}

/// Answers whoever comes, and ends when all that ran when it was told to drain has ended, or may no longer run.
async fn until_drained(shared: &Shared, accept: impl Future<Output = Never>, shutdown: &mut watch::Receiver<Shutdown>) {
    tokio::pin!(accept);
    tokio::select! {
        never = &mut accept => match never {},
        _ = shutdown.wait_for(|shutdown| *shutdown >= Shutdown::Drain) => {}
    }
    shared.drain();
    let finished = async {
        while shared.is_busy() {
            sleep(BREATH).await;
        }
    };
    // Whoever comes now hears that it is too late, and whoever watches hears why.
    tokio::select! {
        never = &mut accept => match never {},
        () = finished => {}
        () = sleep(shared.settings().drain) => {}
        _ = shutdown.wait_for(|shutdown| *shutdown == Shutdown::Now) => {}
    }
}

/// What never comes.
enum Never {}

async fn accept(listener: &Accepting, router: &Router, places: &Arc<Semaphore>, ended: &watch::Receiver<()>) -> Never {
    loop {
        // Nothing closes the semaphore.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok(stream) => drop(tokio::spawn(connection(stream, router.clone(), place, ended.clone()))),
            Err(_) => sleep(BREATH).await,
        }
    }
}

async fn connection(
    stream: Box<dyn Stream>,
    router: Router,
    _place: OwnedSemaphorePermit,
    mut ended: watch::Receiver<()>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        // What a client breaks off is its own affair.
        _ = &mut connection => return,
        _ = ended.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[cfg(unix)]
async fn signals(shutdown: watch::Sender<Shutdown>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    for next in [Shutdown::Drain, Shutdown::Now] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.send_replace(next);
    }
}

#[cfg(not(unix))]
async fn signals(shutdown: watch::Sender<Shutdown>) {
    for next in [Shutdown::Drain, Shutdown::Now] {
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        shutdown.send_replace(next);
    }
}
