//! The smallest server: `cargo run --release -p cokv-serve --example serve -- pip:smollm2-135m-instruct 8080`. `cokv serve` has flags.

use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;

use cokv_core::{Budget, ConfigTable, Method};
use cokv_models::sampling::Sampling;
use cokv_models::source::{Observer, Source};
use cokv_models::{LanguageModel, LoadOptions, Outline};
use cokv_scheduler::Settings as SchedulerSettings;
use cokv_serve::{Logged, Served, Server, Settings, run};
use serde_json::{Map, Value as Json};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next().unwrap_or_else(|| "random:tiny".into());
    let port: u16 = arguments.next().map_or(Ok(8080), |port| port.parse())?;
    let files = source.parse::<Source>()?.fetch(Observer::default())?;
    let outline = Outline::open(&files)?;
    let model = Arc::new(LanguageModel::load(&files, &LoadOptions::default(), |_, _| {})?);
    let format = model.format();
    let settings = SchedulerSettings { cache_memory: Some(1 << 30), ..SchedulerSettings::default() };
    let (handle, worker) = cokv_scheduler::start(model, settings)?;
    let server = Server {
        handle,
        model: Served {
            outline: Arc::new(outline),
            id: source,
            aliases: Vec::new(),
            created: 0,
            fingerprint: "example".into(),
            format,
            sampling: Sampling::default(),
            seed: None,
        },
        methods: Arc::new(method),
        files: None,
        settings: Settings { any_model: true, max_tokens: 64, ..Settings::default() },
        log: Arc::new(|logged| match logged {
            Logged::Request(line) => println!("{line}"),
            Logged::Notice(text) => println!("{text}"),
        }),
    };
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("http://{}", listener.local_addr()?);
    run(listener, server)?;
    worker.join();
    Ok(())
}

fn method(said: &Map<String, Json>) -> Result<(Method, Budget), String> {
    let text = |key: &str, otherwise: &str| said.get(key).and_then(Json::as_str).unwrap_or(otherwise).to_owned();
    let line = format!("compressor = {:?}", text("compressor", "keydiff"));
    let table = ConfigTable::parse("cokv.compress", &line).map_err(|error| error.to_string())?;
    let method = cokv_policies::registry().method(table).map_err(|error| error.to_string())?;
    let budget = text("budget", "50%").parse().map_err(|error| format!("budget: {error}"))?;
    Ok((method, budget))
}
