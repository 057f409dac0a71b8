//! Clients that go, that wait and that read slowly.

mod common;

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown as Half, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cokv_models::batch::Why;
use cokv_scheduler::{Command, Flags, Job, Told};
use common::{Running, chat, eventually, posted, read_until, start, start_with, used};
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";

/// A server whose jobs the test runs by hand.
fn by_hand(silence: Duration) -> (Running, Receiver<(Job, Arc<Flags>)>) {
    let (sender, jobs) = channel();
    let script = move |command| {
        if let Command::Run(job, flags) = command {
            sender.send((job, flags)).unwrap();
        }
    };
    (start_with(script, |server| server.settings.silence = silence), jobs)
}

fn begin(server: &Running, stream: bool) -> TcpStream {
    let mut connection = server.connect();
    let body = chat(json!({ "stream": stream })).to_string();
    connection.write_all(&posted(CHAT, "", body.as_bytes())).unwrap();
    connection
}

fn gone(flags: &Flags) {
    eventually(|| flags.is_gone().then_some(()));
}

#[test]
fn jobs_of_clients_that_go_end_wherever_they_are() {
    let (server, jobs) = by_hand(Duration::from_secs(10));
    for stream in [false, true] {
        // Before the scheduler has said anything, in the queue, while the prompt is read, while the answer is written.
        for stage in 0..4 {
            let connection = begin(&server, stream);
            let (mut job, flags) = jobs.recv().unwrap();
            if stage > 0 {
                (job.hear)(Told::Queued { before: 1 });
            }
            if stage > 1 {
                (job.hear)(Told::Read { tokens: 1, of: 9 });
            }
            if stage > 2 {
                (job.hear)(Told::Token { choice: 0, token: 65, logprobs: None });
            }
            std::thread::sleep(Duration::from_millis(20));
            assert!(!flags.is_gone());
            drop(connection);
            gone(&flags);
        }
    }
    let lines = server.lines(8);
    assert_eq!(lines.iter().filter(|line| line.status == 499).count(), 5, "a stream has its status once it is queued");
}

#[test]
fn half_a_connection_is_none() {
    let (server, jobs) = by_hand(Duration::from_secs(10));
    let connection = begin(&server, true);
    let (mut job, flags) = jobs.recv().unwrap();
    (job.hear)(Told::Queued { before: 0 });
    connection.shutdown(Half::Write).unwrap();
    gone(&flags);
}

#[test]
fn an_answer_that_is_complete_leaves_nothing() {
    let (server, jobs) = by_hand(Duration::from_secs(10));
    let mut connection = begin(&server, true);
    let (mut job, flags) = jobs.recv().unwrap();
    (job.hear)(Told::Queued { before: 0 });
    (job.hear)(Told::Ended { choice: 0, why: Why::Stop });
    (job.hear)(Told::Done(used()));
    connection.read_to_string(&mut String::new()).unwrap();
    gone(&flags);
}

#[test]
fn silence_is_broken_by_comments() {
    let (server, jobs) = by_hand(Duration::from_millis(50));
    let mut reader = BufReader::new(begin(&server, true));
    let (mut job, _flags) = jobs.recv().unwrap();
    (job.hear)(Told::Queued { before: 2 });
    let head = read_until(&mut reader, ": queued");
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    read_until(&mut reader, ": queued");
    (job.hear)(Told::Read { tokens: 2048, of: 8000 });
    read_until(&mut reader, ": prefill 2048/8000");
    (job.hear)(Told::Token { choice: 0, token: 65, logprobs: None });
    read_until(&mut reader, "\"content\":\"A\"");
}

#[test]
fn headers_are_out_as_soon_as_a_job_is_queued_and_no_sooner() {
    let (server, jobs) = by_hand(Duration::from_secs(10));
    let mut connection = begin(&server, true);
    let (mut job, _flags) = jobs.recv().unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
    assert!(connection.read(&mut [0; 10]).is_err(), "nothing was told");
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (job.hear)(Told::Queued { before: 2 });
    read_until(&mut BufReader::new(connection), ": queued");
}

#[test]
fn who_reads_slowly_slows_nobody() {
    let (server, jobs) = by_hand(Duration::from_secs(10));
    let slow = begin(&server, true);
    let (mut job, flags) = jobs.recv().unwrap();
    (job.hear)(Told::Queued { before: 0 });
    // More than all buffers on the way hold; hearing never waits.
    for _ in 0..100_000 {
        (job.hear)(Told::Token { choice: 0, token: 65, logprobs: None });
    }
    let quick = std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.chat(json!({})));
        let (mut job, flags) = jobs.recv().unwrap();
        common::say(&mut job, &flags, "hi", Why::Stop);
        asked.join().unwrap()
    });
    assert_eq!(quick.status, 200);
    drop(slow);
    gone(&flags);
}

#[test]
fn an_answer_that_a_stop_string_ends_is_ended() {
    let (server, jobs) = by_hand(Duration::from_secs(10));
    let body = chat(json!({ "stream": true, "stop": "BB", "n": 2 })).to_string();
    let mut connection = server.connect();
    connection.write_all(&posted(CHAT, "", body.as_bytes())).unwrap();
    let (mut job, flags) = jobs.recv().unwrap();
    (job.hear)(Told::Queued { before: 0 });
    for token in [65, 66, 66, 67] {
        (job.hear)(Told::Token { choice: 1, token, logprobs: None });
    }
    eventually(|| flags.has_enough(1).then_some(()));
    assert!(!flags.has_enough(0) && !flags.is_gone());
}

#[test]
fn connections_may_be_idle_and_many() {
    let server = start(common::saying("x"));
    let idle: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    assert_eq!(server.chat(json!({})).status, 200);
    drop(idle);
    let crowded = start_with(common::saying("x"), |server| server.settings.connections = 2);
    let first = [crowded.connect(), crowded.connect()];
    std::thread::sleep(Duration::from_millis(50));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| crowded.chat(json!({})));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waits.is_finished());
        drop(first);
        assert_eq!(waits.join().unwrap().status, 200);
    });
}
