//! What is counted, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::sync::{Mutex, PoisonError};

use cokv_scheduler::{Counter, Figures, Seconds};

/// What HTTP counts beside the scheduler's figures.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    /// Answers that ended: `stop`, `length`, `tool_calls`.
    finished: Mutex<BTreeMap<&'static str, u64>>,
    /// From a request's head to its first token.
    pub first_token: Seconds<16>,
    /// From one token of an answer to the next.
    pub between_tokens: Seconds<12>,
    /// From a request's head to its answer's end.
    pub request: Seconds<16>,
}

impl Metrics {
    /// Counts a request.
    pub fn count(&self, endpoint: &str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((endpoint.to_owned(), status)).or_default() += 1;
    }

    /// Counts the end of an answer.
    pub fn finish(&self, reason: &'static str) {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// All of it, of a model.
    pub fn text(&self, figures: &Figures, model: &str) -> String {
        let mut text = Text { written: String::new(), model: escaped(model) };
        // Writing to a string does not fail.
        let _ = self.write(&mut text, figures);
        text.written
    }

    fn write(&self, text: &mut Text, figures: &Figures) -> fmt::Result {
        text.head("cokv_requests_total", "counter", "Requests by endpoint and status.")?;
        for ((endpoint, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let labels = format!("endpoint=\"{}\",status=\"{status}\"", escaped(endpoint));
            text.line("cokv_requests_total", &labels, count)?;
        }
        text.head("cokv_requests_finished_total", "counter", "Answers by why they ended.")?;
        for (reason, count) in &*self.finished.lock().unwrap_or_else(PoisonError::into_inner) {
            text.line("cokv_requests_finished_total", &format!("reason=\"{reason}\""), count)?;
        }
        text.gauge("cokv_requests_running", "Requests that run.", &figures.running)?;
        text.gauge("cokv_requests_waiting", "Requests in the queue.", &figures.waiting)?;
        text.gauge("cokv_rows_per_step", "Rows of the last step.", &figures.rows)?;
        text.seconds("cokv_queue_seconds", "In the queue.", &figures.queued)?;
        text.seconds("cokv_time_to_first_token_seconds", "To an answer's first token.", &self.first_token)?;
        text.seconds("cokv_inter_token_seconds", "Between tokens of an answer.", &self.between_tokens)?;
        text.seconds("cokv_request_seconds", "Of requests.", &self.request)?;
        text.seconds("cokv_step_seconds", "Of passes of the model.", &figures.steps)?;
        text.seconds("cokv_compress_seconds", "That compressing a document took.", &figures.compressing)?;
        let source = |source: &str| format!("source=\"{source}\"");
        let prompts = [("computed", &figures.prompt_tokens_computed), ("cached", &figures.prompt_tokens_cached)];
        let prompts = prompts.map(|(name, counter)| (source(name), counter));
        text.counters("cokv_prompt_tokens_total", "Prompt tokens.", &prompts)?;
        text.counter("cokv_generated_tokens_total", "Tokens of answers.", &figures.generated_tokens)?;
        text.counter("cokv_prefix_lookups_total", "Prompts that looked for what was read.", &figures.prefix_lookups)?;
        text.counter("cokv_prefix_hits_total", "Of them, those that found some.", &figures.prefix_hits)?;
        let action = |action: &str| format!("action=\"{action}\"");
        let evicted =
            [(action("compressed"), &figures.compressed_entries), (action("dropped"), &figures.dropped_entries)];
        text.counters("cokv_cache_evictions_total", "Idle entries that made room.", &evicted)?;
        let stage = |stage: &str| format!("stage=\"{stage}\"");
        let cancelled =
            [(stage("waiting"), &figures.cancelled_waiting), (stage("running"), &figures.cancelled_running)];
        text.counters("cokv_cancelled_total", "Requests whose client has gone.", &cancelled)?;
        text.head("cokv_cache_bytes", "gauge", "Bytes of caches.")?;
        let kinds = [
            ("promised", &figures.promised_bytes),
            ("held", &figures.held_bytes),
            ("documents", &figures.document_bytes),
            ("entries", &figures.entry_bytes),
        ];
        for (kind, counter) in kinds {
            text.line("cokv_cache_bytes", &format!("kind=\"{kind}\""), counter.get())?;
        }
        text.gauge("cokv_cache_budget_bytes", "Bytes that all caches may have; 0 is unknown.", &figures.limit_bytes)?;
        text.gauge("cokv_documents", "Documents.", &figures.documents)?;
        text.gauge(
            "cokv_ledger_error_bytes",
            "Bytes by which ledger and buffers differ.",
            &figures.ledger_error_bytes,
        )?;
        if let Some(bytes) = resident_bytes() {
            text.head("process_resident_memory_bytes", "gauge", "Memory of this process.")?;
            writeln!(text.written, "process_resident_memory_bytes {bytes}")?;
        }
        Ok(())
    }
}

struct Text {
    written: String,
    model: String,
}

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.written, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        writeln!(self.written, "{name}{{model=\"{}\"{comma}{labels}}} {value}", self.model)
    }

    fn gauge(&mut self, name: &str, help: &str, counter: &Counter) -> fmt::Result {
        self.head(name, "gauge", help)?;
        self.line(name, "", counter.get())
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) -> fmt::Result {
        self.counters(name, help, &[(String::new(), counter)])
    }

    fn counters(&mut self, name: &str, help: &str, counters: &[(String, &Counter)]) -> fmt::Result {
        self.head(name, "counter", help)?;
        counters.iter().try_for_each(|(labels, counter)| self.line(name, labels, counter.get()))
    }

    fn seconds<const N: usize>(&mut self, name: &str, help: &str, seconds: &Seconds<N>) -> fmt::Result {
        self.head(name, "histogram", help)?;
        let (count, sum) = seconds.total();
        for (end, below) in seconds.cumulated() {
            self.line(&format!("{name}_bucket"), &format!("le=\"{end}\""), below)?;
        }
        self.line(&format!("{name}_bucket"), "le=\"+Inf\"", count)?;
        self.line(&format!("{name}_sum"), "", sum)?;
        self.line(&format!("{name}_count"), "", count)
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Bytes of this process that are in memory, where the system says it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_line_is_one_of_prometheus() {
        let (metrics, figures) = (Metrics::default(), Figures::default());
        metrics.count("/v1/chat/completions", 200);
        metrics.count("/v1/chat/completions", 200);
        metrics.finish("stop");
        metrics.request.observe(Duration::from_millis(20));
        figures.generated_tokens.add(5);
        let text = metrics.text(&figures, "a\"b");
        assert!(
            text.contains("cokv_requests_total{model=\"a\\\"b\",endpoint=\"/v1/chat/completions\",status=\"200\"} 2\n")
        );
        assert!(text.contains("cokv_generated_tokens_total{model=\"a\\\"b\"} 5\n"));
        assert!(text.contains("cokv_request_seconds_bucket{model=\"a\\\"b\",le=\"0.025\"} 1\n"));
        assert!(text.contains("cokv_request_seconds_bucket{model=\"a\\\"b\",le=\"+Inf\"} 1\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = name.split('{').next().unwrap();
            assert!(name.starts_with("cokv_") || name == "process_resident_memory_bytes", "{line}");
        }
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            assert_eq!(text.matches(line).count(), 1, "{line}");
        }
    }
}
