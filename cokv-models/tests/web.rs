//! Files of the web outside of the hub, against servers on the loopback interface.
#![cfg(feature = "hub")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use cokv_models::source::{FetchOptions, read_web_file};

/// The address of a server that answers its first connections so, one after the other, and keeps the last open.
fn answers(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/file.json", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut open = Vec::new();
        for (stream, answer) in listener.incoming().zip(answers) {
            let mut stream = stream.unwrap();
            let head = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            head.for_each(drop);
            stream.write_all(answer.as_bytes()).unwrap();
            // A stalled answer: more is promised, and the connection stays.
            if answer.contains("stall") {
                open.push(stream);
            }
        }
        thread::park();
    });
    address
}

#[test]
fn a_file_of_the_web_is_whole_or_an_error() {
    let options = FetchOptions { patience: Duration::from_millis(300), hub_offline: false, ..FetchOptions::from_env() };
    let read = |answer: &'static [&'static str]| read_web_file(&answers(answer), &options);
    let fails = |answer: &'static [&'static str], expected: &str| {
        let error = read(answer).unwrap_err().to_string();
        assert!(error.contains("/file.json: ") && error.contains(expected), "{error}");
    };
    assert_eq!(read(&["HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\n{}"]).unwrap(), b"{}");
    let moved = "HTTP/1.1 302 x\r\nLocation: /other\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(read(Box::leak(Box::new([moved, "HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\n{}"]))).unwrap(), b"{}");
    fails(&["HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n"], "status 404");
    fails(&["HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n"], "HF_TOKEN is sent to the hub only");
    fails(&["HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"], "status 503; try again later");
    fails(&["HTTP/1.1 200 x\r\nContent-Length: 99\r\n\r\n{"], "run again");
    fails(&["HTTP/1.1 200 x\r\nContent-Length: 99\r\n\r\nstall"], "nothing arrived for up to 300ms");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let error = read_web_file(&address, &options).unwrap_err().to_string();
    assert!(error.contains("nothing arrived for up to 300ms"), "{error}");
    let error = read_web_file("http://127.0.0.1:9/file.json", &options).unwrap_err().to_string();
    assert!(error.contains("check the network"), "{error}");
    let offline = FetchOptions { hub_offline: true, ..options.clone() };
    assert!(read_web_file(&address, &offline).unwrap_err().to_string().contains("unset HF_HUB_OFFLINE"));
}
