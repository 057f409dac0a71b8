//! How a server ends.

mod common;

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use cokv_models::batch::Why;
use cokv_scheduler::{Command, Job, Refusal, Told};
use cokv_serve::Shutdown;
use common::{Running, chat, eventually, posted, read_until, start_with, used};
use serde_json::json;

enum Asked {
    Run(Box<Job>),
    Drain,
    Stop,
}

fn by_hand(drain: Duration) -> (Running, Receiver<Asked>) {
    let (sender, asked) = channel();
    let script = move |command| {
        let asked = match command {
            Command::Run(mut job, _) => {
                (job.hear)(Told::Queued { before: 0 });
                Asked::Run(Box::new(job))
            }
            Command::Drain => Asked::Drain,
            Command::Stop => Asked::Stop,
            _ => return,
        };
        let _ = sender.send(asked);
    };
    (start_with(script, |server| server.settings.drain = drain), asked)
}

fn begin(server: &Running) -> BufReader<TcpStream> {
    let mut connection = server.connect();
    let body = chat(json!({ "stream": true })).to_string();
    connection.write_all(&posted("/v1/chat/completions", "", body.as_bytes())).unwrap();
    BufReader::new(connection)
}

fn job(asked: &Receiver<Asked>) -> Box<Job> {
    let Ok(Asked::Run(job)) = asked.recv() else { panic!("a job was to be run") };
    job
}

#[test]
fn what_runs_may_finish_and_nobody_new_begins() {
    let (mut server, asked) = by_hand(Duration::from_secs(20));
    let mut first = begin(&server);
    let mut running = job(&asked);
    let mut second = begin(&server);
    let mut queued = job(&asked);
    read_until(&mut first, ": queued");
    read_until(&mut second, ": queued");
    server.shutdown.send(Shutdown::Drain).unwrap();
    assert!(matches!(asked.recv(), Ok(Asked::Drain)));
    let health = server.get("/health");
    assert_eq!((health.status, health.json()), (503, json!({ "status": "draining" })));
    let late = server.chat(json!({}));
    assert_eq!((late.error().0, &late.error().1), (503, &json!("draining")));
    assert!(late.header("retry-after").is_some());

    (queued.hear)(Told::Refused(Refusal::Draining));
    assert!(read_until(&mut second, "[DONE]").contains("\"code\":\"draining\""));
    (running.hear)(Told::Token { choice: 0, token: 65, logprobs: None });
    (running.hear)(Told::Ended { choice: 0, why: Why::Stop });
    (running.hear)(Told::Done(used()));
    assert!(read_until(&mut first, "[DONE]").contains("\"finish_reason\":\"stop\""));
    assert!(matches!(asked.recv(), Ok(Asked::Stop)));
    server.thread.take().unwrap().join().unwrap();
}

#[test]
fn what_does_not_finish_in_time_is_told_so() {
    let (mut server, asked) = by_hand(Duration::from_millis(100));
    let mut stream = begin(&server);
    let running = job(&asked);
    read_until(&mut stream, ": queued");
    server.shutdown.send(Shutdown::Drain).unwrap();
    assert!(matches!(asked.recv(), Ok(Asked::Drain)));
    assert!(matches!(asked.recv(), Ok(Asked::Stop)));
    // A scheduler that stops lets its jobs go.
    drop(running);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"code\":\"draining\"") && rest.contains("data: [DONE]"), "{rest}");
    server.thread.take().unwrap().join().unwrap();
}

#[test]
fn a_second_word_ends_it_at_once() {
    let (mut server, asked) = by_hand(Duration::from_secs(60));
    let mut stream = begin(&server);
    let running = job(&asked);
    read_until(&mut stream, ": queued");
    server.shutdown.send(Shutdown::Drain).unwrap();
    let since = Instant::now();
    assert!(matches!(asked.recv(), Ok(Asked::Drain)));
    server.shutdown.send(Shutdown::Now).unwrap();
    assert!(matches!(asked.recv(), Ok(Asked::Stop)));
    drop(running);
    server.thread.take().unwrap().join().unwrap();
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_scheduler_that_has_ended_is_a_failure() {
    let (handle, commands) = cokv_scheduler::Handle::scripted();
    let server = common::serve(handle, common::model::outline(), |_| ());
    drop(commands);
    let health = eventually(|| Some(server.get("/health")).filter(|reply| reply.status == 503));
    assert_eq!(health.json(), json!({ "status": "failed" }));
    assert_eq!(server.chat(json!({})).error(), (500, json!("internal"), serde_json::Value::Null));
    assert_eq!(server.get("/v1/cokv/status").error().0, 500);
}

#[cfg(unix)]
#[test]
fn a_file_can_be_connected_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cokv.socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (handle, commands) = cokv_scheduler::Handle::scripted();
    std::thread::spawn(move || commands.into_iter().for_each(common::saying("x")));
    let _server = common::serve_at(listener, handle, common::model::outline(), |_| ());
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(&posted("/v1/chat/completions", "", chat(json!({})).to_string().as_bytes())).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert_eq!(common::parse(&reply).status, 200);
}
